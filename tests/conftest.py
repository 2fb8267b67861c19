"""What all tests share: one thread (tiny models crawl with two), and the folder of real images where there is one."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real medical images: $GENMIX_TEST_DATA, or ``../shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GENMIX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no folder of real images: set GENMIX_TEST_DATA to one (see CONTRIBUTING.md)")
    return folder
