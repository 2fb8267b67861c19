"""A bank on disk beside what else keeps images: a PNG folder, WebDataset, Hugging Face datasets and litdata.

The same images in each, in one run: written, opened, drawn from at random, damaged, killed while they are replaced. One
process, no workers, on every side: it is the store that is measured, not a DataLoader. Before a store is timed, what it
returns is compared with what was written. Files are in the page cache. Libraries that are missing are left out (the
`bench` extra has them).

    python benchmarks/bank.py
    python benchmarks/bank.py --open-scaling --gigabytes 10
    python benchmarks/bank.py --quick
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import bank_stores
import torch
from bank_faults import CHECKS, FLIP_IMAGES, KILL_IMAGES, KILL_SHARD, KILLED, MOMENTS, flips, kills
from bank_scale import open_scaling, paper_plan
from bank_stores import (
    BATCH,
    BUFFER,
    OURS,
    OURS_MAPPED,
    READERS,
    SHAPE,
    SHARD_BYTES,
    WRITERS,
    Indexed,
    check,
    installed,
    make_images,
    shard_images,
)
from timing import Neighbours, Times, interleave, machine, ratios
from torch import Tensor

CPU = torch.device("cpu")
BARE = "torch.index_select, one tensor in memory"
LIBRARIES = ("pillow", "webdataset", "datasets", "pyarrow", "litdata")
ALONE_ROUNDS = 400
IMAGE_BYTES = torch.Size(SHAPE).numel()


def spread(values: Sequence[float]) -> str:
    """Median, and the lowest and the highest."""
    numbers = (statistics.median(values), min(values), max(values))
    middle, low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in numbers)
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def folder_of(place: Path, store: str) -> Path:
    return place / "".join(letter if letter.isalnum() else "_" for letter in store)


def clear(folder: Path) -> None:
    """A store, and what was written beside it on the way."""
    for each in (folder, folder.with_name(f"{folder.name}-cache")):
        shutil.rmtree(each, ignore_errors=True)


def writing(stores: Sequence[str], place: Path, images: Tensor, labels: Tensor, *, rounds: int) -> str:
    """Write each store several times, in turn; the last of each stays."""
    alone: dict[str, list[float]] = {store: [] for store in stores}
    synced: dict[str, list[float]] = {store: [] for store in stores}
    order = list(stores)
    for _ in range(rounds):
        random.Random(len(alone[order[0]])).shuffle(order)
        for store in order:
            clear(folder_of(place, store))
            os.sync()
            start = time.perf_counter()
            WRITERS[store].write(folder_of(place, store), images, labels)
            alone[store].append(len(images) / (time.perf_counter() - start))
            os.sync()
            synced[store].append(len(images) / (time.perf_counter() - start))
            shutil.rmtree(
                folder_of(place, store).with_name(f"{folder_of(place, store).name}-cache"), ignore_errors=True
            )
    rows = []
    for store in stores:
        files = [file.stat() for file in folder_of(place, store).rglob("*") if file.is_file()]
        rows.append(
            [
                store,
                spread(alone[store]),
                f"{statistics.median(alone[store]) * IMAGE_BYTES / 1e9:.2g}",
                spread(synced[store]),
                f"{statistics.median(synced[store]) * IMAGE_BYTES / 1e9:.2g}",
                f"{sum(file.st_size for file in files) / len(images):,.0f}",
                f"{sum(512 * file.st_blocks for file in files) / len(images):,.0f}",
                f"{len(files):,}",
            ]
        )
    head = ["store", "images/s", "GB/s", "with `os.sync()`, images/s", "GB/s", "bytes an image", "on disk", "files"]
    return markdown(head, rows)


def opening(readers: Sequence[str], place: Path, count: int, *, rounds: int) -> str:
    """Open each store in fresh processes, in turn: milliseconds, without imports."""
    opened: dict[str, list[float]] = {name: [] for name in readers}
    first: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name in readers:
            command = [
                sys.executable,
                bank_stores.__file__,
                name,
                str(folder_of(place, READERS[name].store)),
                str(count),
            ]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds = json.loads(output.splitlines()[-1])
            opened[name].append(1e3 * seconds[0])
            first[name].append(1e3 * seconds[1])
    rows = [[name, "-" if READERS[name].streams else spread(opened[name]), spread(first[name])] for name in readers]
    return markdown(["store", "open, ms", "open and first random batch, ms"], rows)


def drawing(readers: Sequence[str], place: Path, images: Tensor, labels: Tensor, *, seconds: float) -> str:
    """Batches drawn at random, all stores in turn; then ours alone beside the bare tensor."""
    index = torch.empty(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)

    def draw() -> None:
        nonlocal index
        index = torch.randint(0, len(images), (BATCH,), generator=generator)

    def fetch(opened: Indexed) -> tuple[Tensor, Tensor]:
        return opened.fetch(index)

    rivals: dict[str, Callable[[], object]] = {
        BARE: lambda: (images.index_select(0, index), labels.index_select(0, index))
    }
    for name in readers:
        opened = READERS[name].open(folder_of(place, READERS[name].store))
        rivals[name] = partial(next, opened) if READERS[name].streams else partial(fetch, opened)
    ours = {name: rivals[name] for name in (BARE, OURS, OURS_MAPPED) if name in rivals}
    everything = interleave(rivals, device=CPU, before=draw, seconds=seconds)
    alone = interleave(ours, device=CPU, before=draw, rounds=ALONE_ROUNDS)
    return "\n\n".join(
        [
            batch_table(everything),
            f"{len(everything[BARE])} rounds. Ours beside the bare tensor alone, without those that empty the caches: "
            f"{ALONE_ROUNDS} rounds:",
            batch_table(alone),
        ]
    )


def batch_table(times: Times) -> str:
    rows = []
    for name, values in times.items():
        if isinstance(values, str):
            rows.append([name, values.replace("|", "/"), "", ""])
            continue
        rows.append(
            [
                name,
                f"{BATCH / statistics.median(values):,.0f}",
                spread([1e3 * value for value in values]),
                f"{statistics.median(ratios(times, name, BARE)):.3g}",
            ]
        )
    return markdown(["store", "images/s", "ms a batch", "times the bare tensor"], rows)


def checking(place: Path, count: int, *, rounds: int) -> str:
    """What finds damage: GB/s of pixels."""
    taken: dict[str, list[float]] = {store: [] for store in CHECKS}
    for _ in range(rounds):
        for store, (_, _, function) in CHECKS.items():
            start = time.perf_counter()
            function(folder_of(place, store))
            taken[store].append(count * IMAGE_BYTES / 1e9 / (time.perf_counter() - start))
    rows = [[store, CHECKS[store][1], spread(taken[store])] for store in CHECKS]
    rows += [[store, "-", "-"] for store in WRITERS if store not in CHECKS and installed(WRITERS[store].needs)]
    return markdown(["store", "what it offers", "GB/s of pixels"], rows)


def flipping(stores: Sequence[str], place: Path, *, count: int) -> str:
    """One bit of one image, in stores of their own."""
    images, labels = make_images(FLIP_IMAGES, seed=1)
    rows: list[Sequence[str]] = []
    for store in stores:
        folder = folder_of(place, f"flipped {store}")
        WRITERS[store].write(folder, images, labels)
        rows += flips(store, folder, images, labels, count=count)
        clear(folder)
    return markdown(["read by", "what comes back"], rows)


def killing(stores: Sequence[str], place: Path) -> str:
    """kill -9 while a store is replaced by another, in stores of their own."""
    rows = []
    for store in stores:
        with tempfile.TemporaryDirectory(dir=place) as own:
            rows.append([store, kills(store, Path(own))])
    return markdown(["store", "what is left"], rows)


def compare(place: Path, arguments: argparse.Namespace) -> None:
    """Every table about the rivals."""
    images, labels = make_images(arguments.images)
    stores = [store for store, writer in WRITERS.items() if installed(writer.needs)]
    readers = [name for name, reader in READERS.items() if reader.store in stores]
    size = f"{len(images):,} images {SHAPE}, uint8, {images.nbytes / 1e6:.0f} MB of pixels"
    rounds = f"Median (lowest-highest) of {arguments.rounds} rounds."
    neighbours = Neighbours()
    section(
        "Writing",
        f"{size}. One process, from memory. Ours flushes every shard and the manifest (fsync); the others leave it "
        f"to the "
        "system: the second number has `os.sync()` at its end, on every side. datasets: `from_generator`, "
        "then `save_to_disk`. litdata forks its worker (to spawn it, its default, takes seconds more, whatever the "
        "number of "
        f"images). {rounds} Bytes are of files, `on disk` of the blocks that they take.",
        writing(stores, place, images, labels, rounds=arguments.rounds),
    )
    for name in readers:
        check(name, folder_of(place, READERS[name].store), images, labels)
    section(
        "Opening",
        "In a fresh process each, imports not counted, files in the page cache. Opened without options, a bank up "
        "to 256 "
        "MiB is held to its checksums and brought into memory; in the two rows before, it is opened with "
        "verify=False. A "
        f"stream does nothing before its first batch, and fills its buffer then. {rounds}",
        opening(readers, place, len(images), rounds=arguments.rounds),
    )
    section(
        "Random batches",
        f"{BATCH} images and labels, shuffled. Our bank in {shards(place)} shards of {SHARD_BYTES >> 20} MiB. "
        f"WebDataset "
        f"has no index: its stream, shards and a buffer of {BUFFER} shuffled. litdata has both. Median "
        "(lowest-highest); ratios are of the same round.",
        drawing(readers, place, images, labels, seconds=arguments.seconds),
    )
    section(
        "Checking",
        f"The whole store; files in the page cache. {rounds}",
        checking(place, len(images), rounds=arguments.rounds),
    )
    for store in stores:
        clear(folder_of(place, store))
    section(
        "A flipped bit",
        f"In the middle of one image on disk; then all {FLIP_IMAGES} images are read. {arguments.flips} times, each "
        f"time "
        "in another image. Our bank in memory and mapped: with verify=False, as a bank beyond 256 MiB is opened by "
        "default.",
        flipping(stores, place, count=arguments.flips),
    )
    if not arguments.without_kills:
        moments = ", ".join(f"{moment:.0%}" for moment in MOMENTS)
        section(
            "kill -9",
            f"A store of {KILL_IMAGES:,} images, {KILL_SHARD} a shard, is replaced by another of as many, the same "
            f"labels; the writer is killed "
            f"after {moments} of the time that it takes (of datasets' `save_to_disk` alone). What can be read then:",
            killing([store for store in KILLED if store in stores], place),
        )
    print(f"\n{neighbours.crowd(torch.get_num_threads()).strip()}")


def section(title: str, caption: str, result: str) -> None:
    print(f"\n### {title}\n\n{textwrap.fill(caption, 120)}\n\n{result}", flush=True)


def shards(place: Path) -> int:
    return len(list(folder_of(place, "ours").glob("*.safetensors")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="to work in, a new one within it; default: the system's for temporary files")
    parser.add_argument("--images", type=int, default=20_000, help="in each store")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the random batches")
    parser.add_argument("--rounds", type=int, default=5, help="of writing, opening and checking")
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--without-kills", action="store_true", help="they take some minutes")
    parser.add_argument("--open-scaling", action="store_true", help="instead: opening times of large banks of ours")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="with --open-scaling: of the bank")
    parser.add_argument("--paper-plan", action="store_true", help="instead: what docs/concepts/scale.md reckons with")
    parser.add_argument("--quick", action="store_true", help="few images, one round: does it run?")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [f"{name} {version(name)}" for name in LIBRARIES if installed("PIL" if name == "pillow" else name)]
    missing = [name for name in LIBRARIES[1:] if not installed(name)]
    print(f"{machine(CPU)}, {', '.join(found)}")
    if missing:
        print(f"\nNot installed, and left out: {', '.join(missing)} (pip install '.[bench]')")
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.seconds, arguments.flips = 2 * shard_images(), 1, 1.0, 2
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.open_scaling:
            print(open_scaling(Path(folder), gigabytes=arguments.gigabytes), flush=True)
        elif arguments.paper_plan:
            for part in paper_plan(Path(folder), quick=arguments.quick):
                print(part, flush=True)
        else:
            compare(Path(folder), arguments)


if __name__ == "__main__":
    main()
