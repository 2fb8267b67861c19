"""The tests that need a CUDA device, and no others: those that are skipped without one, for that reason.

    python benchmarks/cuda_tests.py --processes 8

As a plugin of pytest (``-p cuda_tests``, in processes of pytest-xdist too) it takes out all other tests. Where there is
no CUDA device the tests are still collected, and skipped: that much can be tried anywhere.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from findings import Findings, add_json_option

ROOT = Path(__file__).resolve().parents[1]
REASON = "CUDA device"
"""What the reason of such a test's ``skipif`` says."""
PAGE_NEEDS = "# needs CUDA"
"""How an example of the documentation begins that runs on CUDA alone."""
FILE, EVERY = "GENMIX_CUDA_TESTS_JSON", 2.0


def needs_cuda(item: Any) -> bool:
    """Whether a test is skipped where there is no CUDA device."""
    if any(REASON in str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skipif")):
        return True
    page = getattr(item, "callspec", None) and item.callspec.params.get("page")
    return "examples_run" in item.name and isinstance(page, Path) and PAGE_NEEDS in page.read_text(encoding="utf-8")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave those that need CUDA."""
    others = [item for item in items if not needs_cuda(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if needs_cuda(item)]


def pytest_configure(config: Any) -> None:
    """Count what the tests say, in the process that hears of all of them."""
    if FILE in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Counts(Path(os.environ[FILE])))


class Counts:
    """Passed, failed and skipped so far, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failures: list[str] = []
        self.written = 0.0

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Hear of a test."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.failed:
                self.failures.append(report.nodeid)
        if time.monotonic() > self.written + EVERY:
            self.write()

    def pytest_sessionfinish(self) -> None:
        """Write the last word."""
        self.write()

    def write(self) -> None:
        """Write what is known."""
        self.written = time.monotonic()
        findings = Findings(self.path, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        for outcome, count in self.counts.items():
            findings.add(f"tests that need CUDA: {outcome}", count)
        for number, name in enumerate(self.failures[:20]):
            findings.add(f"failed, {number + 1}", name)


def files_with_such_tests() -> list[str]:
    """Test files that mention the reason; to collect the others would take as long as to run these."""
    found = [file for file in (ROOT / "tests").rglob("test_*.py") if _mentions(file)]
    return sorted(str(file.relative_to(ROOT)) for file in found)


def _mentions(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return "cuda" in text and ("skipif" in text or "NEEDS_CUDA" in text) and (REASON in text or PAGE_NEEDS in text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1, help="where pytest-xdist is installed")
    parser.add_argument("--files", nargs="+", help="test files; left out, all that have such tests")
    add_json_option(parser)
    given = parser.parse_args()
    import pytest

    if given.json is not None:
        os.environ[FILE] = str(given.json.resolve())
    os.chdir(ROOT)
    # For the processes of pytest-xdist.
    here = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in here if part)
    several = given.processes > 1 and importlib.util.find_spec("xdist") is not None
    shared = ["-n", str(given.processes), "--dist", "worksteal"] if several else []
    # Without the addopts of pyproject.toml, which need pytest-xdist.
    own = ["-o", "addopts=", "-q", "-ra", "--import-mode=importlib", "-m", "not slow and not hub"]
    own += ["-p", "cuda_tests", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    sys.exit(int(pytest.main([*own, *shared, *(given.files or files_with_such_tests())])))


if __name__ == "__main__":
    main()
