"""What stores do when a byte on the disk is flipped, and when they are killed while they replace an older store.

python benchmarks/bank_faults.py STORE FOLDER    writes a store when it is told to: the process that is killed
"""

import collections
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bank_stores import (
    OURS_DEFAULT,
    READERS,
    WRITERS,
    Reader,
    make_images,
    png,
    read_all,
)
from PIL import Image
from torch import Tensor

from genmix_transforms.bank.opening import verify_bank

FLIP_IMAGES = 300
KILL_IMAGES, KILL_SHARD = 2000, 250
MOMENTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""When it is killed, in parts of the time that the writing takes."""

KILLED = {
    "ours": OURS_DEFAULT,
    "PNG folder": "PNG folder",
    "WebDataset, npy": "WebDataset, npy, stream",
    "datasets, Array3D": "datasets, Array3D",
    "litdata": "litdata, by index",
}
"""Of each library one store, and how what is left is read."""


def check_pngs(folder: Path) -> None:
    """What Pillow offers: the checksums within each file, without decoding it."""
    for file in folder.rglob("*.png"):
        with Image.open(file) as image:
            image.verify()


CHECKS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "ours": ("ours", "`verify_bank`", verify_bank),
    "PNG folder": ("PNG folder", "`Image.verify()`, file by file", check_pngs),
}
"""What a store offers that finds damage: a name, and a function that raises. The others offer nothing."""


def flips(store: str, folder: Path, images: Tensor, labels: Tensor, *, count: int) -> list[tuple[str, str]]:
    """Flip a bit of one image, read everything, flip it back; so many times, each time in another image.

    Args:
        store: of ``WRITERS``.
        folder: written with these images.
        images: as they are.
        labels: theirs.
        count: how many flips.

    Returns:
        For each way to read or check the store: its name, and how often what happened.
    """
    ways = {name: reader for name, reader in READERS.items() if reader.store == store}
    happened: dict[str, collections.Counter[str]] = {}
    for number in random.Random(0).sample(range(len(images)), count):
        file, position = _find(folder, images[number])
        _flip(file, position)
        for name, reader in ways.items():
            happened.setdefault(name, collections.Counter())[_reading(reader, folder, images, labels)] += 1
        if store in CHECKS:
            _, what, function = CHECKS[store]
            happened.setdefault(what, collections.Counter())[_outcome(function, folder)] += 1
        _flip(file, position)
    for name, reader in ways.items():
        left = _reading(reader, folder, images, labels)
        assert left == "the right images", f"{name}: {left} after every flip was undone"
    return [(name, _listed(counter)) for name, counter in happened.items()]


def _find(folder: Path, image: Tensor) -> tuple[Path, int]:
    """Where the middle of an image lies, as it is or as a PNG."""
    contents = [image.numpy().tobytes(), png(image)]
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or not file.stat().st_size:
            continue
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for content in contents:
                if (start := mapped.find(content)) >= 0:
                    return file, start + len(content) // 2
    raise AssertionError(f"{folder}: does not hold the image as it was written")


def _flip(file: Path, position: int) -> None:
    with open(file, "r+b") as opened:
        opened.seek(position)
        byte = opened.read(1)[0]
        opened.seek(position)
        opened.write(bytes([byte ^ 0x10]))


def _reading(reader: Reader, folder: Path, images: Tensor, labels: Tensor) -> str:
    def read(folder: Path) -> bool:
        return _multiset(*read_all(reader, folder)) == _multiset(images, labels)

    return _outcome(read, folder, {True: "the right images", False: "a wrong image, without a word"})


def _multiset(images: Tensor, labels: Tensor) -> "collections.Counter[tuple[int, int]]":
    """Sums of each image with its label: streams come in any order."""
    return collections.Counter(
        (zlib.crc32(image.contiguous().numpy()), label) for image, label in zip(images, labels.tolist(), strict=True)
    )


def _outcome(function: Callable[[Path], Any], folder: Path, said: dict[Any, str] | None = None) -> str:
    try:
        result = function(folder)
    except Exception as error:
        return type(error).__name__
    return said[result] if said is not None else "nothing found"


def _listed(counter: "collections.Counter[str]") -> str:
    total = sum(counter.values())
    return "; ".join(f"{what} ({number} of {total})" for what, number in counter.most_common())


def kills(store: str, place: Path) -> str:
    """Kill a writer that replaces a store by another at five moments, and look at what is left.

    Args:
        store: of ``KILLED``.
        place: an empty folder to work in.

    Returns:
        How often what was left.
    """
    images, labels = make_images(KILL_IMAGES)
    old, new = (images, labels), (255 - images, labels)
    base, folder = place / "base", place / "store"
    for name, tensor in zip(("images", "labels"), new, strict=True):
        np.save(place / f"{name}.npy", tensor.numpy())
    WRITERS[store].write(base, *old, each=KILL_SHARD)
    took = []
    for _ in range(2):
        shutil.copytree(base, folder)
        took.append(_write_in_a_process(store, folder, kill_after=None))
        assert _left(store, folder, old, new) == "the new store, whole", store
        _clear(place, base)
    happened: collections.Counter[str] = collections.Counter()
    for moment in MOMENTS:
        shutil.copytree(base, folder)
        _write_in_a_process(store, folder, kill_after=moment * min(took))
        happened[_left(store, folder, old, new)] += 1
        _clear(place, base)
    return _listed(happened)


def _clear(place: Path, base: Path) -> None:
    for entry in place.iterdir():
        if entry != base and entry.is_dir():
            shutil.rmtree(entry)


def _write_in_a_process(store: str, folder: Path, *, kill_after: float | None) -> float:
    """Seconds that it took."""
    command = [sys.executable, __file__, store, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            while process.stdout.readline().strip() != "ready":
                assert process.poll() is None, f"{store}: the writer did not start"
            start = time.perf_counter()
            process.stdin.write("go\n")
            process.stdin.flush()
            if kill_after is None:
                while process.stdout.readline().strip() != "done":
                    assert process.poll() is None, f"{store}: the writer failed"
                return time.perf_counter() - start
            time.sleep(kill_after)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    return kill_after


def _left(store: str, folder: Path, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> str:
    try:
        found = _multiset(*read_all(READERS[KILLED[store]], folder))
    except Exception as error:
        return f"{type(error).__name__} on reading"
    old_sums, new_sums = _multiset(*old), _multiset(*new)
    if found == new_sums:
        return "the new store, whole"
    if found == old_sums:
        return "the old store, whole"
    strange = found - (old_sums + new_sums)
    if strange:
        return "images or labels that were never written, without a word"
    if found & old_sums and found & new_sums:
        return "a mixture of both, without a word"
    return "a part of one, without a word"


def main() -> None:
    """Write when told to."""
    store, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    images, labels = (torch.from_numpy(np.load(folder.with_name(f"{name}.npy"))) for name in ("images", "labels"))
    if WRITERS[store].needs:
        __import__(WRITERS[store].needs)  # type: ignore[arg-type]
    write = WRITERS[store].prepare(folder, images, labels, KILL_SHARD)
    print("ready", flush=True)
    sys.stdin.readline()
    write()
    print("done", flush=True)


if __name__ == "__main__":
    main()
