"""What all tests share: one thread (tiny models crawl with two), no deadlines, and real images where there are some."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# No test is about time: a busy machine may take as long as it needs for an example.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real medical images: $GENMIX_TEST_DATA, or ``../shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GENMIX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no folder of real images: set GENMIX_TEST_DATA to one (see CONTRIBUTING.md)")
    return folder
