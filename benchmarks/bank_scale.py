"""How a bank of ours grows: opening times, the manifest, memory, and what else docs/concepts/scale.md reckons with.

python benchmarks/bank.py --open-scaling --gigabytes 10
python benchmarks/bank.py --paper-plan
"""

import gc
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import bank_stores
import torch
from bank_stores import BATCH, CLASSES, OURS_DEFAULT, SHAPE

from genmix_transforms import SyntheticBank
from genmix_transforms.bank import BankWriter
from genmix_transforms.bank.manifest import INDEX, Manifest, ShardEntry, read_manifest, shard_name, write_manifest
from genmix_transforms.bank.shard import describe_shard, images_per_shard

IMAGES = 10**8
SHAPES = ((1, 64, 64), (3, 64, 64), (3, 128, 128))
ONE_PIXEL = (1, 1, 1)
OPENINGS = 20
PROCESSOR = time.process_time
"""Of this process: files are in the page cache, and what is measured are loops of Python."""


def milliseconds(
    call: Callable[[], object], *, times: int = OPENINGS, clock: Callable[[], float] = time.perf_counter
) -> str:
    """Median, lowest and highest of several calls, after one more."""
    call()
    gc.collect()
    taken = []
    for _ in range(times):
        start = clock()
        result = call()
        taken.append(1e3 * (clock() - start))
        del result
    numbers = (min(taken), statistics.median(taken), max(taken))
    low, middle, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in numbers)
    return f"{middle} ({low}-{high})"


def write_bank(folder: Path, *, shards: int, each: int, shape: Sequence[int] = SHAPE) -> None:
    """So many shards of so many images of noise; the same noise, moved on by a few bytes from shard to shard."""
    noise = torch.randint(0, 256, (each, *shape), dtype=torch.uint8)
    labels = torch.arange(each) % len(CLASSES)
    size = noise.nbytes
    with BankWriter(folder, classes=CLASSES, image_shape=shape, shard_bytes=size, publish="close") as writer:
        for number in range(shards):
            writer.add(noise.view(-1).roll(number).view_as(noise), labels)


def fresh(folder: Path, reader: str, count: int, *, rounds: int = 5) -> str:
    """Open, and open and draw a batch, in fresh processes: median milliseconds."""
    command = [sys.executable, bank_stores.__file__, reader, str(folder), str(count)]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(rounds)]
    opened, first = zip(*(json.loads(output.splitlines()[-1]) for output in outputs), strict=True)
    return f"{1e3 * statistics.median(opened):.3g}, with a first batch of {BATCH} {1e3 * statistics.median(first):.3g}"


def open_scaling(place: Path, *, gigabytes: float) -> str:
    """A large bank in shards of the usual size, and one of 1,000 shards."""
    usual = images_per_shard(SHAPE, torch.uint8)
    whole = max(1, round(gigabytes * 1e9 / (usual * torch.Size(SHAPE).numel())))
    lines = [
        f"Opened without options, {OPENINGS} times in one process (median, lowest-highest) and in 5 fresh ones",
        "(median); files in the page cache as far as they fit. The images are noise.",
        "",
        "| bank | open, ms | processor, ms | in a fresh process, ms |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, shards, each in (("shards of 256 MiB", whole, usual), ("1,000 small shards", 1000, 32)):
        folder = place / "bank"
        write_bank(folder, shards=shards, each=each)
        size = shards * each * torch.Size(SHAPE).numel() / 1e9
        load = partial(SyntheticBank.load, folder)
        inside, busy = milliseconds(load), milliseconds(load, clock=PROCESSOR)
        outside = fresh(folder, OURS_DEFAULT, shards * each)
        lines.append(f"| {name}: {size:.3g} GB, {shards:,} shards | {inside} | {busy} | {outside} |")
        shutil.rmtree(folder)
    return "\n".join(lines)


def paper_plan(place: Path, *, quick: bool) -> Iterator[str]:
    """What is measured for 100 million images, part by part."""
    some = 50 if quick else 1
    yield f"### Shards\n\n{_shards()}"
    yield "\n### The manifest\n\nProcessor time.\n"
    yield from _manifests(place, [count // some for count in (1000, 10000)])
    yield "\n### Opening\n\nImages of one pixel; all else is as large as it is going to be. Processor time.\n"
    yield from _openings(place, [count // some for count in (100, 1000, 5000)], images=IMAGES // some)
    yield f"\n### Describing\n\n{_describing(place)}"
    yield f"\n`vm.max_map_count` here: {Path('/proc/sys/vm/max_map_count').read_text().strip()}"


def _shards() -> str:
    lines = ["| shape | bytes an image | images a shard | shards | all, TB |", "| --- | ---: | ---: | ---: | ---: |"]
    for shape in SHAPES:
        each, size = images_per_shard(shape, torch.uint8), torch.Size(shape).numel()
        lines.append(f"| {shape} | {size:,} | {each:,} | {-(-IMAGES // each):,} | {IMAGES * size / 1e12:.3g} |")
    return "\n".join(lines)


def _manifests(place: Path, counts: Sequence[int]) -> Iterator[str]:
    yield "| classes | shards | bytes | bytes a shard | write, ms | read, ms |"
    yield "| ---: " * 6 + "|"
    each = images_per_shard(SHAPE, torch.uint8)
    for classes in (10, 100):
        for count in counts:
            shards = tuple(
                ShardEntry(
                    file=shard_name(number),
                    bytes=each * (torch.Size(SHAPE).numel() + 25) + 600,
                    count=each,
                    class_counts=(*[each // classes] * (classes - 1), each - each // classes * (classes - 1)),
                    pixel_range=(0, 255),
                    xxh3=f"{number:016x}",
                )
                for number in range(count)
            )
            names = tuple(f"class {number}" for number in range(classes))
            manifest = Manifest(classes=names, dtype="uint8", shape=SHAPE, shards=shards)
            write = milliseconds(lambda manifest=manifest: write_manifest(place, manifest), times=3, clock=PROCESSOR)
            read = milliseconds(lambda: read_manifest(place), times=5, clock=PROCESSOR)
            size = (place / INDEX).stat().st_size
            yield f"| {classes} | {count:,} | {size:,} | {size / count:.0f} | {write} | {read} |"
    (place / INDEX).unlink()


def _openings(place: Path, counts: Sequence[int], *, images: int) -> Iterator[str]:
    yield "| shards | images a shard | write, s | open, ms | mappings | memory, MB | batch, ms |"
    yield "| ---: " * 7 + "|"
    real = images_per_shard(SHAPE, torch.uint8)
    for shards, each in (*[(count, 256) for count in counts], (max(1, images // real), real)):
        folder = place / "bank"
        start = time.perf_counter()
        write_bank(folder, shards=shards, each=each, shape=ONE_PIXEL)
        written = time.perf_counter() - start
        yield f"| {shards:,} | {each:,} | {written:.3g} | {_opened(folder, shards * each)} |"
        shutil.rmtree(folder)


def _opened(folder: Path, count: int) -> str:
    def load() -> SyntheticBank:
        return SyntheticBank.load(folder, resident=False, verify=False)

    time_taken = milliseconds(load, times=5, clock=PROCESSOR)
    gc.collect()
    before, memory = _mappings(), _private()
    bank = load()
    memory = _private() - memory
    mappings = _mappings() - before
    index = torch.randint(0, count, (BATCH,))
    batch = milliseconds(lambda: bank.rows(index), times=100, clock=PROCESSOR)
    return f"{time_taken} | {mappings:,} | {memory / 1e6:.0f} | {batch}"


def _describing(place: Path) -> str:
    """How fast a process of a shared fill takes in a shard that another has written."""
    folder = place / "bank"
    write_bank(folder, shards=1, each=images_per_shard(SHAPE, torch.uint8))
    path, bank = folder / shard_name(0), read_manifest(folder)
    start = time.perf_counter()
    rounds = 5
    for _ in range(rounds):
        describe_shard(path, bank)
    speed = rounds * path.stat().st_size / (time.perf_counter() - start)
    shutil.rmtree(folder)
    return f"A shard of another process: {speed / 1e9:.2g} GB/s."


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _private() -> int:
    """Bytes of memory that is no file's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])
