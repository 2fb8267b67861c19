"""What all tests share: one thread (tiny models crawl with two), no deadlines, fresh machine code, and real images."""

import atexit
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so in the processes that tests start

# Machine code of this very source, compiled once a run: the processes of pytest-xdist and of tests share the folder.
if "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="genmix-tests-")
    atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)

# No test is about time: a busy machine may take as long as it needs for an example. Laws that fail do so within a few
# dozen examples; a change to one is tried with many: --hypothesis-profile thorough.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
settings.register_profile("thorough", settings.get_profile("unhurried"), max_examples=500)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real medical images: $GENMIX_TEST_DATA, or ``../shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GENMIX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no folder of real images: set GENMIX_TEST_DATA to one (see CONTRIBUTING.md)")
    return folder


@pytest.fixture
def load_benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, ModuleType]]]:
    """Scripts of ``benchmarks/`` by name, imported anew; arms and threads that they set are as before afterwards."""
    from genmix_transforms.evaluation import arms

    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    kinds, threads, loaded = dict(arms.KINDS), torch.get_num_threads(), []

    def load(*names: str) -> dict[str, ModuleType]:
        for name in names:
            monkeypatch.delitem(sys.modules, name, raising=False)
        loaded.extend(names)
        return {name: importlib.import_module(name) for name in names}

    yield load
    arms.KINDS.clear()
    arms.KINDS.update(kinds)
    torch.set_num_threads(threads)
    for name in loaded:
        sys.modules.pop(name, None)
