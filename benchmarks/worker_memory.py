"""What a bank on the CPU costs a DataLoader whose workers mix in their collate_fn: is it shared, or copied into each?

Counted are the pages of the main process and of its workers, and the tables of these pages (2 MB a process for each
gigabyte it looks at), beyond the same run with a bank of one image; every worker has read the whole bank by then.
Mapped files other than the bank's are left out: whatever else on the machine loaded torch's libraries shares them.

- "the workers' own": pages that one worker alone has, summed over the workers.
- "in all": what the workers add to the main process, a page that several share being counted once.
- "the bank is in": where it is then: in the main process's memory, in shared memory, or in a file.
- "at most": by how much the main process grew meanwhile.

The last row is there to see that the ruler works: each worker copies a bank of 100 MB.

    python benchmarks/worker_memory.py --gigabytes 1 --workers 4
"""

import argparse
import gc
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.bank.shard import SHARD_BYTES

SHAPE = (3, 128, 128)
CLASSES = 10
BATCH = 8
BATCHES_A_WORKER = 3
MEGABYTE = 10**6
METHODS = ("fork", "spawn", "forkserver")
BANKS = ("memory", "shards", "mapped", "copied")


class Real(Dataset[tuple[Tensor, Tensor]]):
    """Random images."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.rand(SHAPE), torch.tensor(index % CLASSES)


class MixingCollate:
    """A collate_fn that mixes; its first call in a worker reads all of the bank, and copies it if that is asked for."""

    def __init__(self, genmix: GenMix, *, copies: bool, numba: bool) -> None:
        self.genmix = genmix
        self.copies = copies
        self.numba = numba
        self.has_read = False

    def __call__(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if not self.has_read:
            if not self.numba:
                hide_numba()
            if self.copies:
                self.genmix.bank.pixels = self.genmix.bank.images.clone()
            read(self.genmix.bank)
            self.has_read = True
        mixed: tuple[Tensor, Tensor] = self.genmix(*torch.utils.data.default_collate(samples))
        return mixed


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, or of several."""

    own: int = 0
    """That nobody else has."""
    anonymous: int = 0
    """With the next two: shared pages in equal parts, so that a sum over all who share them counts them once."""
    shared_memory: int = 0
    bank_file: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return self._each(other, 1)

    def __sub__(self, other: "Memory") -> "Memory":
        return self._each(other, -1)

    def _each(self, other: "Memory", sign: int) -> "Memory":
        return Memory(*(getattr(self, f.name) + sign * getattr(other, f.name) for f in fields(self)))

    @property
    def in_all(self) -> int:
        return self.anonymous + self.shared_memory + self.bank_file

    @property
    def mostly(self) -> str:
        kinds = {"memory": self.anonymous, "shared memory": self.shared_memory, "the file": self.bank_file}
        return max(kinds, key=lambda kind: kinds[kind])


def memory_of(processes: Iterable[int]) -> Memory:
    return sum((_memory_of_one(str(number)) for number in processes), Memory())


def _memory_of_one(process: str) -> Memory:
    tables = _status("VmPTE", process)
    found = Memory(own=tables, anonymous=tables)
    # A line of addresses and the file's name, if any, then "Name:  number kB" for each quantity.
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{process}/smaps").read_text()):
        head, *lines = mapping.splitlines()
        columns = head.split(maxsplit=5)
        name = columns[5] if len(columns) > 5 else ""
        quantities = (line.partition(":") for line in lines)
        size = {key: 1024 * int(value.split()[0]) for key, _, value in quantities if value.endswith(" kB")}
        own = size["Private_Clean"] + size["Private_Dirty"]
        if not name or name.startswith("["):
            found += Memory(own=own, anonymous=size["Pss"])
        elif name.startswith(("/dev/shm/", "/memfd:", "/dev/zero")):
            found += Memory(own=own, shared_memory=size["Pss"])
        elif ".safetensors" in name:
            found += Memory(own=own, bank_file=size["Pss"])
    return found


@dataclass(frozen=True)
class Cost:
    """Of one run's workers."""

    workers: Memory
    added: Memory
    everything: Memory
    peak: int


def cost(bank: SyntheticBank, *, method: str, workers: int, copies: bool = False, numba: bool = True) -> Cost:
    """Run an epoch whose workers mix with this bank, and look at their memory while they are still there."""
    read(bank)
    genmix = GenMix(bank)
    loader = DataLoader(
        Real(workers * BATCHES_A_WORKER * BATCH),
        batch_size=BATCH,
        num_workers=workers,
        multiprocessing_context=method,
        collate_fn=MixingCollate(genmix, copies=copies, numba=numba),
        persistent_workers=True,
    )
    gc.collect()
    alone = memory_of([os.getpid()])
    _forget_peak()
    resident = _status("VmRSS")
    batches = iter(loader)
    for _ in batches:
        pass
    gc.collect()
    children = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    theirs = memory_of(children)
    everything = theirs + memory_of([os.getpid()])
    peak = _status("VmHWM") - resident
    del batches, loader, genmix
    gc.collect()
    return Cost(workers=theirs, added=everything - alone, everything=everything, peak=peak)


def hide_numba() -> None:
    """As if it were not installed: no worker spends seconds on compiling."""
    sys.modules["numba"] = None  # type: ignore[assignment]


def read(bank: SyntheticBank) -> int:
    """Look at a byte of every page."""
    return int(bank.images.view(-1)[::1024].sum())


def make_bank(size: float) -> SyntheticBank:
    """Of about as many bytes, at least one image; no page of it is like another."""
    count = max(1, int(size) // torch.Size(SHAPE).numel())
    pixels = torch.empty((count, *SHAPE), dtype=torch.uint8).random_(0, 256)
    return SyntheticBank(pixels, torch.arange(count) * CLASSES // count, classes=[str(n) for n in range(CLASSES)])


def banks(names: Iterable[str], size: float, folder: Path) -> Iterator[tuple[str, Callable[[], SyntheticBank], bool]]:
    """For each kind: what to call it, how to make it, and whether the workers copy it."""

    def loaded(size: float) -> SyntheticBank:
        place = folder / f"{size:.0f}"
        if not place.exists():
            make_bank(size).save(place)
        return SyntheticBank.load(place)

    one_shard = min(size, SHARD_BYTES)
    small = min(size, 100 * MEGABYTE)
    for name in names:
        if name == "memory":
            yield f"{size / MEGABYTE:.0f} MB, made in memory", lambda: make_bank(size), False
        elif name == "shards" and size > SHARD_BYTES:
            yield f"{size / MEGABYTE:.0f} MB, loaded from several shards", lambda: loaded(size), False
        elif name == "mapped":
            yield f"{one_shard / MEGABYTE:.0f} MB, loaded from one shard", lambda: loaded(one_shard), False
        elif name == "copied":
            yield f"{small / MEGABYTE:.0f} MB, copied by every worker", lambda: make_bank(small), True


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str, process: str = "self") -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the bank")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=["fork", "spawn"], help="of starting a worker")
    parser.add_argument("--banks", choices=BANKS, nargs="+", default=list(BANKS))
    parser.add_argument("--without-numba", action="store_true", help="as if Numba were not installed")
    arguments = parser.parse_args()
    if not Path("/proc/self/smaps").exists():
        parser.error("reads /proc: Linux only")
    if arguments.without_numba:
        hide_numba()
    torch.set_num_threads(1)
    print(f"{arguments.workers} workers, torch {torch.__version__}; in MB, beyond a bank of one image\n")
    print("| start | bank | the workers' own | in all | the bank is in | at most |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for method in arguments.methods:
            run = partial(cost, method=method, workers=arguments.workers, numba=not arguments.without_numba)
            base = run(make_bank(1))
            for name, make, copies in banks(arguments.banks, arguments.gigabytes * 1e9, Path(folder)):
                if copies and method != arguments.methods[0]:
                    continue
                found = run(make(), copies=copies)
                own = found.workers.own - base.workers.own
                in_all = found.added.in_all - base.added.in_all
                where = (found.everything - base.everything).mostly
                numbers = [f"{value / MEGABYTE:.0f}" for value in (own, in_all, found.peak - base.peak)]
                print(f"| {method} | {name} | {numbers[0]} | {numbers[1]} | {where} | {numbers[2]} |", flush=True)


if __name__ == "__main__":
    main()
