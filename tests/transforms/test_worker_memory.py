"""A bank on the CPU that a DataLoader's workers mix with in their collate_fn is shared among them, and not copied.

The benchmark measures it, in a process of its own, so that what other tests left in memory does not count.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BANK = 100
"""Megabytes."""

WORKERS = 2
ALLOWED = 20
"""Megabytes for all workers together; measured: 3 at most, heaps that do not grow alike. A copy a worker is 200."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="measured by /proc: Linux only")


def measure(method, *banks):
    """The benchmark's table: a bank's name to (the workers' own, in all, where it is, at most)."""
    found = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "worker_memory.py",
            *("--gigabytes", str(BANK / 1000), "--workers", str(WORKERS), "--methods", method, "--banks", *banks),
            "--without-numba",  # whose import takes a worker seconds, and megabytes that vary
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, found.stderr
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.stdout.splitlines() if line[:1] == "|"]
    assert all(row[0] == method for row in cells[2:])
    return {bank: (float(own), float(in_all), where, float(peak)) for _, bank, own, in_all, where, peak in cells[2:]}


@pytest.fixture(scope="module")
def forked():
    return measure("fork", "memory", "mapped", "copied")


@pytest.fixture(scope="module")
def spawned():
    # A bank made in memory goes the same way; each more costs every worker the import of torch.
    return measure("spawn", "mapped")


def test_the_ruler_sees_copies(forked):
    own, in_all, *_ = forked["100 MB, copied by every worker"]
    assert own == pytest.approx(100 * WORKERS, abs=ALLOWED)
    assert in_all == pytest.approx(100 * WORKERS, abs=ALLOWED)


@pytest.mark.parametrize(("bank", "place"), [("made in memory", "memory"), ("loaded from one shard", "the file")])
def test_forked_workers_share_the_bank_where_it_is(forked, bank, place):
    own, in_all, where, peak = forked[f"{BANK} MB, {bank}"]
    assert own < ALLOWED
    assert in_all < ALLOWED
    assert where == place
    assert peak < ALLOWED


@pytest.mark.slow
def test_spawned_workers_share_the_bank_in_shared_memory(spawned):
    own, in_all, where, peak = spawned[f"{BANK} MB, loaded from one shard"]
    assert own < ALLOWED
    assert in_all < ALLOWED
    assert where == "shared memory"
    # While it goes there, the main process has it twice.
    assert peak == pytest.approx(BANK, abs=ALLOWED)
