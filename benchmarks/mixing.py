"""One batch mixed: GenMix with a uint8 bank, beside what else mixes batches, interleaved in one process a table.

Everything is counted on every side: draws, gather, dequantising and normalising (GenMix), mixing, labels, and dropping
what is returned. Each call finds a batch that has just been written, as a DataLoader leaves it; what mixes in place
writes into that one. The batch is normalised, and GenMix is told how. The other rivals' alpha is 1, their labels are
not smoothed. Those beside v2.MixUp need the `bench` extra.

On a CPU GenMix writes its output into the memory of one that nobody holds any more. What it takes without that a second
table says, in which everything that is returned is kept.

    python benchmarks/mixing.py
    python benchmarks/mixing.py --without-numba --threads 1
    python benchmarks/mixing.py --device cuda --bank-gigabytes 10
"""

import argparse
import itertools
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import numpy as np
import torch
from findings import Findings, Value, add_json_option
from timing import (
    Clock,
    Neighbours,
    Times,
    device_clock,
    give_back_free_memory,
    interleave,
    machine,
    median,
    processor_clock,
    ratios,
    table,
    wall_clock,
)
from torch import Tensor
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank

SHAPES = ((8, 3, 224, 224), (64, 3, 224, 224), (256, 3, 64, 64), (64, 1, 64, 64), (8, 3, 8, 8))
LARGE_SHAPE = (256, 3, 224, 224)
"""Measured on CUDA too."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU = torch.device("cpu")
CLASSES = 10
KEPT_BYTES = 2**30
"""Of outputs that are kept; when there are more they are all dropped, outside of any rival's time."""

SMALLEST_KEPT = 2**20
"""Bytes. Smaller outputs find memory at hand, and are not measured kept."""

CLONE, MIXUP, GENMIX, COPY = "x.clone()", "v2.MixUp", "GenMix", "empty_like(x).copy_(x)"
PEERS = ("timm", "kornia", "monai")

Mix = Callable[[Tensor, Tensor], object]


class Measured(NamedTuple):
    """Of one setting: what is printed, and the numbers by name."""

    text: str
    findings: dict[str, Value]


@dataclass(frozen=True)
class Setting:
    """What one table is about."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    threads: int = 1
    bank_images: int = 1_000
    bank_gigabytes: float | None = None
    """Of a second bank; None: there is none."""
    seconds: float = 12.0
    processor_time: bool = False

    @property
    def values(self) -> int:
        """In the batch."""
        return torch.Size(self.shape).numel()

    @property
    def mean(self) -> list[float]:
        """Of colour images as for ImageNet, so that every channel has units of its own."""
        return [0.485, 0.456, 0.406] if self.shape[1] == 3 else [0.5]

    @property
    def std(self) -> list[float]:
        return [0.229, 0.224, 0.225] if self.shape[1] == 3 else [0.5]

    def batch(self) -> tuple[Tensor, Tensor]:
        images = v2.functional.normalize(torch.rand(self.shape, device=self.device), self.mean, self.std)
        return images.to(self.dtype), torch.randint(0, CLASSES, self.shape[:1], device=self.device)

    @property
    def large_bank_name(self) -> str:
        return f"{GENMIX}, bank of {self.bank_gigabytes:g} GB"

    def __str__(self) -> str:
        return f"{self.shape}, {str(self.dtype).removeprefix('torch.')}"


def make_bank(count: int, shape: tuple[int, ...], device: torch.device) -> SyntheticBank:
    """Of random pixels, written in parts: random numbers for ten gigabytes at once take more than that."""
    pixels = torch.empty((count, *shape), dtype=torch.uint8, device=device)
    for part in pixels.split(max(1, 2**28 // pixels[0].numel())):
        part.random_(0, 256)
    labels = torch.arange(count, device=device) * CLASSES // count
    return SyntheticBank(pixels, labels, classes=[str(number) for number in range(CLASSES)])


def ours(setting: Setting) -> Iterator[tuple[str, Mix]]:
    """GenMix, in the ways it is used."""
    make = partial(GenMix, mean=setting.mean, std=setting.std)
    bank = make_bank(setting.bank_images, setting.shape[1:], setting.device)
    yield GENMIX, make(bank)
    yield "GenMix, in place", make(bank, inplace=True)
    yield "GenMix, pairing balanced", make(bank, pairing="balanced")
    if setting.bank_gigabytes is not None:
        count = max(1, int(setting.bank_gigabytes * 1e9 / torch.Size(setting.shape[1:]).numel()))
        large = make_bank(count, setting.shape[1:], setting.device)
        yield setting.large_bank_name, make(large)


def peers(setting: Setting) -> Iterator[tuple[str, Mix]]:
    """v2.MixUp and those of the others that are installed."""
    yield MIXUP, v2.MixUp(num_classes=CLASSES)
    missing = missing_peers()
    if "timm" not in missing:
        from timm.data.mixup import Mixup

        for mode in ("batch", "elem"):
            yield f"timm Mixup {mode}, in place", Mixup(num_classes=CLASSES, label_smoothing=0.0, mode=mode)
    if "kornia" not in missing:
        from kornia.augmentation import RandomMixUpV2

        yield "kornia RandomMixUpV2 (labels paired, not mixed)", RandomMixUpV2(data_keys=["input", "class"])
    if "monai" not in missing:
        from monai.data import set_track_meta
        from monai.transforms import MixUp

        set_track_meta(False)  # on, it is most of what MONAI does with a small batch
        monai = MixUp(batch_size=setting.shape[0])
        yield "MONAI MixUp (images only)", lambda images, labels: monai(images)


def first_calls(dtypes: Iterable[torch.dtype], device: torch.device) -> str:
    """How long GenMix's first calls take, in which it compiles its kernels; and the others are imported."""
    lines = []
    for dtype in dtypes:
        setting = Setting((2, 3, 8, 8), dtype=dtype, device=device, bank_images=10)
        images, labels = setting.batch()
        clock, mixes = wall_clock(device), dict(ours(setting))
        seconds = [clock(partial(mix, images, labels)) for mix in mixes.values()]
        lines.append(f"{str(dtype).removeprefix('torch.')} {seconds[0]:.2g} s, in place {seconds[1]:.2g} s")
    dict(peers(setting))
    return f"GenMix's first call: {'; '.join(lines)}."


def measure(setting: Setting) -> Measured:
    """One table, and what else there is to know."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    source, labels = setting.batch()
    images = source.clone()
    own = dict(ours(setting))
    mixes = {**dict(peers(setting)), **own}
    rivals: dict[str, Callable[[], object]] = {CLONE: images.clone}
    on_cuda = setting.device.type == "cuda"
    if on_cuda:
        rivals[COPY] = lambda: torch.empty_like(images).copy_(images)
    rivals |= {name: partial(mix, images, labels) for name, mix in mixes.items()}
    clock = processor_clock() if setting.processor_time else wall_clock(setting.device)
    run = partial(interleave, device=setting.device, before=lambda: images.copy_(source), seconds=setting.seconds)
    neighbours = Neighbours()
    times = run(rivals, clock=clock)
    crowded = neighbours.crowd(setting.threads)
    parts = [
        f"### {setting}",
        machine(setting.device),
        table(times, against=(CLONE, MIXUP)),
        f"{len(times[CLONE])} rounds.{crowded}",
    ]
    if setting.device.type == "cpu" and images.nbytes >= SMALLEST_KEPT:
        parts += [
            "Outputs kept:",
            outputs_kept(rivals, images, source, seconds=setting.seconds / 4, clock=clock),
        ]
    found, on_device, copying = numbers(times, setting, copying=CLONE), times, CLONE
    if on_cuda:
        on_device, copying = run(rivals, clock=device_clock(setting.device)), COPY
        waits = waiting(mixes, images, labels)
        found["ways of GenMix that make the host wait"] = sum(name in own for name in waits)
        parts += [
            "On the device alone, with the host ahead of it as it is within a training step:",
            table(on_device, against=(CLONE, MIXUP)),
            bandwidth(on_device, setting),
            report_waiting(mixes, waits),
        ]
    found |= {f"{name}, device": value for name, value in numbers(on_device, setting, copying=copying).items()}
    if setting.bank_gigabytes is not None:
        bank = own[setting.large_bank_name].bank  # type: ignore[attr-defined]
        on_the_device = bank.images.nbytes if bank.images.device.type == setting.device.type else 0
        found["share of the large bank that is on the device"] = on_the_device / (1e9 * setting.bank_gigabytes)
    return Measured("\n\n".join(parts), found)


def numbers(times: Times, setting: Setting, *, copying: str) -> dict[str, Value]:
    """Of GenMix's ways: milliseconds, share of the copy's bandwidth, and how many times as fast as v2.MixUp."""
    found: dict[str, Value] = {}
    for name, own in times.items():
        if not name.startswith(GENMIX) or isinstance(own, str):
            continue
        found[f"{name}: ms"] = 1e3 * median(times, name)
        if not isinstance(times[copying], str):
            found[f"{name}: share of the copy's bandwidth"] = share_of_copy(times, name, copying, setting)
        if not isinstance(times[MIXUP], str):
            found[f"{name}: times as fast as v2.MixUp"] = statistics.median(ratios(times, MIXUP, name))
    return found


def share_of_copy(times: Times, name: str, copying: str, setting: Setting) -> float:
    """Of a copy's bytes a second: GenMix moves a byte of the bank more for each value."""
    size = setting.dtype.itemsize
    return statistics.median((2 * size + 1) / (2 * size) / ratio for ratio in ratios(times, name, copying))


def outputs_kept(
    rivals: dict[str, Callable[[], object]], images: Tensor, source: Tensor, *, seconds: float, clock: Clock
) -> str:
    """A table for when everything that a rival returns is kept, so that each output needs memory never used before."""
    kept: list[object] = []

    def before() -> None:
        if len(kept) * images.nbytes >= KEPT_BYTES:
            kept.clear()
            give_back_free_memory()
        images.copy_(source)

    # A virtual machine gets memory from its host when it is first touched, and that takes many times as long as later.
    # By NumPy, which asks for large pages: they come from elsewhere.
    np.ones(2 * KEPT_BYTES, dtype=np.uint8)
    keeping = {name: lambda name=name: kept.append(rivals[name]()) for name in (CLONE, MIXUP, GENMIX)}
    times = interleave(keeping, device=images.device, before=before, seconds=seconds, clock=clock)
    return table(times, against=(CLONE, MIXUP))


def bandwidth(times: Times, setting: Setting) -> str:
    """Bytes a second moved by a copy, and by GenMix: the batch read and written, and a byte of the bank a value."""
    size = setting.dtype.itemsize
    copied = times[COPY]
    if isinstance(copied, str):
        return f"{COPY} {copied}"
    copying = setting.values * 2 * size / statistics.median(copied)
    lines = [f"`{COPY}` moves {copying / 1e9:.0f} GB/s. Of GenMix's {2 * size + 1} bytes a value:", ""]
    for name, own in times.items():
        if name.startswith(GENMIX) and not isinstance(own, str):
            speed = setting.values * (2 * size + 1) / statistics.median(own)
            share = share_of_copy(times, name, COPY, setting)
            lines.append(f"- {name}: {speed / 1e9:.0f} GB/s, {share:.0%} of the copy's")
    return "\n".join(lines)


def waiting(mixes: dict[str, Mix], images: Tensor, labels: Tensor) -> dict[str, str]:
    """The calls that make the host wait for the device, and how torch says so."""
    found = {}
    for name, mix in mixes.items():
        torch.cuda.set_sync_debug_mode("error")
        try:
            mix(images, labels)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def report_waiting(mixes: Iterable[str], waits: dict[str, str]) -> str:
    """A list for people."""
    lines = [f"- {name}: {waits.get(name, 'does not wait')}" for name in mixes]
    return "\n".join(['Calls under `torch.cuda.set_sync_debug_mode("error")`:', "", *lines])


def in_a_process_of_its_own(setting: Setting) -> Measured:
    """As ``measure``. What earlier tables left in the heap would decide whose memory comes without page faults.

    A new process, not a forked one: there GenMix would stay on one thread.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, initializer=hide, initargs=hidden()) as pool:
        return pool.submit(measure, setting).result()


def hide(*names: str) -> None:
    """As if these packages were not installed."""
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]


def hidden() -> tuple[str, ...]:
    """The packages that are hidden here."""
    return tuple(name for name in (*PEERS, "numba") if name in sys.modules and sys.modules[name] is None)


def missing_peers() -> list[str]:
    return [name for name in PEERS if _version(name) is None]


def versions(*, numba: bool) -> str:
    """Of everything that is measured, on one line."""
    names = ["torchvision", *PEERS, *(["numba"] if numba else [])]
    found = [f"{name} {_version(name)}" for name in names if _version(name) is not None]
    return ", ".join([*found, *([] if numba and _version("numba") else ["without Numba"])])


def _version(name: str) -> str | None:
    if name in hidden():
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(extent) for extent in text.split("x"))
    if len(shape) < 3 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"a shape is N x C x spatial, such as 64x3x224x224, got {text}")
    return shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", type=_shape, nargs="+", help="such as 64x3x224x224; default: those of the docs")
    parser.add_argument("--dtypes", choices=list(DTYPES), nargs="+", default=list(DTYPES))
    parser.add_argument("--threads", type=int, nargs="+", help="of the CPU; default: 1 2; on CUDA 1")
    parser.add_argument("--seconds", type=float, default=12.0, help="for each table")
    parser.add_argument("--bank-images", type=int, default=1_000)
    parser.add_argument("--bank-gigabytes", type=float, help="one row more, with a bank as large as this")
    parser.add_argument("--without-numba", action="store_true", help="as if Numba were not installed")
    parser.add_argument("--without-peers", action="store_true", help="no rival but v2.MixUp: others import slowly")
    parser.add_argument(
        "--processor-time", action="store_true", help="instead of wall-clock time; one thread of a busy machine only"
    )
    parser.add_argument("--quick", action="store_true", help="the smallest shape for half a second: does it run?")
    parser.add_argument(
        "--one-process", action="store_true", help="on the CPU too: then what a table leaves in memory serves the next"
    )
    add_json_option(parser)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    shapes = arguments.shapes or [*SHAPES, *([LARGE_SHAPE] if device.type == "cuda" else [])]
    if arguments.quick:
        shapes, arguments.seconds, arguments.bank_images = arguments.shapes or [SHAPES[-1]], 0.5, 20
    threads_wanted = arguments.threads or ([1, 2] if device.type == "cpu" and not arguments.processor_time else [1])
    if arguments.processor_time and (device.type != "cpu" or threads_wanted != [1]):
        parser.error("--processor-time is of one thread on the CPU: --threads 1 --device cpu")
    if arguments.without_numba:
        hide("numba")
    if arguments.without_peers:
        hide(*PEERS)
    print(versions(numba=not arguments.without_numba))
    if missing_peers():
        print(f"\nNot installed, and left out: {', '.join(missing_peers())} (pip install '.[bench]')")
    print(f"\n{'Processor' if arguments.processor_time else 'Wall-clock'} time.", end=" ")
    dtypes = [DTYPES[name] for name in arguments.dtypes]
    findings = Findings(arguments.json, device=device)
    print(first_calls(dtypes, device), flush=True)
    for threads, shape, dtype in itertools.product(threads_wanted, shapes, dtypes):
        setting = Setting(
            shape,
            dtype=dtype,
            device=device,
            threads=threads,
            bank_images=arguments.bank_images,
            bank_gigabytes=arguments.bank_gigabytes,
            seconds=arguments.seconds,
            processor_time=arguments.processor_time,
        )
        apart = device.type == "cpu" and not arguments.one_process  # CUDA has an allocator of its own
        measured = in_a_process_of_its_own(setting) if apart else measure(setting)
        print(f"\n{measured.text}", flush=True)
        where = f"{setting}, {threads} thread(s)" if len(threads_wanted) > 1 else str(setting)
        for name, value in measured.findings.items():
            findings.add(f"{where}: {name}", value, "ms" if ": ms" in name else "")


if __name__ == "__main__":
    main()
