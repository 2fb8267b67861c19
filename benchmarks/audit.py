"""How fast copies are looked for, how many planted ones are found, and how many others are called copies.

    python benchmarks/audit.py speed --threads 2
    python benchmarks/audit.py detection --data phantom --data busi_128.npz --data pneumoniamnist.npz --sizes 32,64,128
    python benchmarks/audit.py false-alarms --data phantom --data busi_128.npz --sizes 64 --draws 4
    python benchmarks/audit.py independent --sizes 64 --count 10000
    python benchmarks/audit.py copying --steps 2000

Copies of training images are planted in a bank of held-out ones, kind by kind; at the default share.
"""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genmix_transforms import SyntheticBank
from genmix_transforms.data import LesionPhantom, PatchDataset, open_dataset
from genmix_transforms.evaluation.audit import find_copies, nearest_neighbors
from genmix_transforms.evaluation.audit.search import Prepared, most_alike
from genmix_transforms.evaluation.audit.transformations import warp
from genmix_transforms.generators import DCGAN

DOUBLE = 1e-4
"""Held-out images that stand out further than one of 10,000 would are called doubles: the same picture."""


def speed() -> None:
    random = torch.Generator().manual_seed(0)
    queries, references = (torch.randn(10_000, 768, generator=random) for _ in range(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with timed("10,000 x 10,000 x 768"):
        nearest_neighbors(queries, references)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of the process {peak / 2**20:.2f} GiB, before {before / 2**20:.2f}")
    images = torch.randint(0, 256, (2000, 1, 64, 64), dtype=torch.uint8, generator=random)
    with timed("shift, flip, turn and zoom, 1,000 x 1,000 of 64 px"):
        bank, train = Prepared.of(images[:1000]), Prepared.of(images[1000:])
        most_alike(bank, train, family=0)
    with timed("halves and quarters, the same"):
        for family in (1, 2):
            most_alike(bank, train, family=family)


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what}: {wall:.1f} s on {torch.get_num_threads()} threads, of processors {processor:.1f} s", flush=True)


def _pixels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _jpeg(images: Tensor) -> Tensor:
    done = torch.empty_like(images)
    for image, channel in np.ndindex(*images.shape[:2]):
        file = io.BytesIO()
        Image.fromarray(images[image, channel].numpy()).save(file, "JPEG", quality=60)
        done[image, channel] = torch.from_numpy(np.array(Image.open(file)))
    return done


def kinds(others: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is done to copies, by name; of partial ones the rest is another image."""
    side = others.shape[-1]
    far, half = max(1, int(0.08 * side)), side // 2
    random = torch.Generator().manual_seed(0)

    def noisy(images: Tensor, sd: float) -> Tensor:
        return _pixels(images + sd * torch.randn(images.shape, generator=random))

    def part(images: Tensor, rows: int) -> Tensor:
        mixed = others[: len(images)].clone()
        mixed[..., :rows, :half] = images[..., :rows, :half]
        return mixed

    return {
        "exact": lambda x: x,
        "flipped": lambda x: x.flip(-1),
        "turned by 90 degrees": lambda x: x.rot90(1, (-2, -1)),
        "turned by 5 degrees": lambda x: _pixels(warp(x.float(), 5.0, 1.0)),
        "turned by 10 degrees": lambda x: _pixels(warp(x.float(), -10.0, 1.0)),
        "shifted by 8 %": lambda x: x.roll((far, -far), (-2, -1)),
        "zoomed by 1.1": lambda x: _pixels(warp(x.float(), 0.0, 1.1)),
        "zoomed by 0.9": lambda x: _pixels(warp(x.float(), 0.0, 0.9)),
        "inverted": lambda x: 255 - x,
        "windowed": lambda x: _pixels(x * 0.6 + 40),
        "noise, sd 5": lambda x: noisy(x, 5),
        "noise, sd 20": lambda x: noisy(x, 20),
        "JPEG 60": _jpeg,
        "half": lambda x: part(x, side),
        "quarter": lambda x: part(x, half),
        "flip, shift and window": lambda x: _pixels(x.flip(-1).roll((far, far), (-2, -1)) * 0.6 + 40),
    }


def detection(source: str, size: int, *, trained: int, planted: int, held_out: int) -> dict[str, str]:
    """Shares that are flagged, by what was done; and of held-out images."""
    parts = _parts(source, size, held_out)
    train = _some(parts[0], trained)
    unseen = torch.cat([part.images for part in parts[1:]])
    unseen = unseen[torch.randperm(len(unseen), generator=torch.Generator().manual_seed(0))]
    others, unseen = unseen[:planted], unseen[:held_out]
    which = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))[:planted]
    changes = kinds(others)
    images = torch.cat([*(change(train.images[which]) for change in changes.values()), unseen])
    bank = SyntheticBank(images, torch.zeros(len(images), dtype=torch.int64), classes=train.classes)
    began = time.process_time()
    found = find_copies(bank, train)
    seconds = time.process_time() - began
    by_kind = found.near_copy[: len(changes) * planted].view(len(changes), planted).double().mean(dim=1)
    rows = {name: f"{share:.1%}" for name, share in zip(changes, by_kind.tolist(), strict=True)}
    last = slice(-len(unseen), None)
    double = found.near_copy_at(DOUBLE)[last]
    apart = int((~double).sum())
    rows["held-out images, doubles of training images"] = f"{int(double.sum())} of {len(unseen)}"
    for share in (0.005, 0.05):
        flagged = int((found.near_copy_at(share)[last] & ~double).sum())
        rows[f"the other held-out images, {share:.1%} asked"] = f"{flagged} of {apart} ({flagged / apart:.1%})"
    rows["training images, doubles among them"] = f"{len(train)}, {int(found.law.double.sum())}"
    rows["seconds of one core"] = f"{seconds:.0f}"
    return rows


def _parts(source: str, size: int, held_out: int, *, seed: int = 0, official: bool = True) -> Sequence[PatchDataset]:
    if source == "phantom":
        third = held_out // 3 + 1
        phantom = LesionPhantom(size=size, train=(135,) * 3, val=(1, 1, 1), test=(third,) * 3, seed=seed)
        return phantom.dataset().split(seed=0)
    return open_dataset(source, size=size).split(seed=seed, official=official)


def _some(patches: PatchDataset, count: int) -> PatchDataset:
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(2))
    return patches.subset(order[:count].sort().values)


def false_alarms(source: str, size: int, *, trained: int, held_out: int, draws: int) -> dict[str, str]:
    """How many images of patients that are not in the training set are flagged, over several splits."""
    images, doubled, flagged = 0, 0, dict.fromkeys((0.005, 0.05), 0)
    for seed in range(draws):
        parts = _parts(source, size, held_out, seed=seed, official=False)
        train = _some(parts[0], trained)
        unseen = torch.cat([part.images for part in parts[1:]])
        unseen = unseen[torch.randperm(len(unseen), generator=torch.Generator().manual_seed(seed))[:held_out]]
        bank = SyntheticBank(unseen, torch.zeros(len(unseen), dtype=torch.int64), classes=train.classes)
        found = find_copies(bank, train)
        double = found.near_copy_at(DOUBLE)
        images, doubled = images + len(unseen), doubled + int(double.sum())
        for share in flagged:
            flagged[share] += int((found.near_copy_at(share) & ~double).sum())
    rows = {"unseen images": str(images), "doubles of training images": str(doubled)}
    for share, count in flagged.items():
        rows[f"others that are flagged, {share:.1%} asked"] = f"{count} ({count / (images - doubled):.1%})"
    return rows


def independent(size: int, count: int) -> str:
    """How many independent images of the phantom are flagged."""
    train = LesionPhantom(size=size, train=(135,) * 3, val=(1, 1, 1), test=(1, 1, 1)).dataset().split(seed=0)[0]
    third = count // 3 + 1
    others = LesionPhantom(size=size, train=(third,) * 3, val=(1, 1, 1), test=(1, 1, 1), seed=1).dataset()
    images = others.split(seed=0)[0].images[:count]
    bank = SyntheticBank(images, torch.zeros(len(images), dtype=torch.int64), classes=train.classes)
    found = find_copies(bank, train)
    five = int(found.near_copy_at(0.05).sum())
    return (
        f"{int(found.near_copy.sum())} of {len(images)} independent phantom images of {size} px are flagged at the "
        f"default, {five} where 5 % are asked"
    )


def copying(steps: int) -> str:
    """How many images of a DCGAN that has learned 20 images by heart are flagged: 20 of the phantom, 32 px."""
    patches = LesionPhantom(size=32, train=(7, 7, 6), val=(1, 1, 1), test=(1, 1, 1)).dataset().split(seed=0)[0]
    generator = DCGAN(resolution=32, channels=1, classes=patches.classes, base_width=32)
    with tempfile.TemporaryDirectory() as folder:
        generator.fit(
            patches, out=folder, steps=steps, batch_size=20, seed=0, progress=False, learning_rate=5e-4, augment=()
        )
        labels = torch.arange(60) % len(patches.classes)
        images = generator.sample(labels=labels, seeds=torch.arange(60))
    found = find_copies(SyntheticBank(images, labels, classes=patches.classes), patches)
    return (
        f"DCGAN, {len(patches)} images, {steps} steps: {int(found.near_copy.sum())} of 60 images are flagged at the "
        f"default, {int(found.near_copy_at(0.05).sum())} where 5 % are asked, {int(found.duplicate.sum())} duplicates; "
        f"images standing out furthest {found.standing.sort(descending=True).values[:5].round(decimals=1).tolist()}, "
        f"limit {found.law.limit(0.005):.1f}"
    )


def table(columns: dict[str, dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    lines = ["| flagged | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    return "\n".join(
        [*lines, *(f"| {name} | " + " | ".join(rows[name] for rows in columns.values()) + " |" for name in names)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "detection", "false-alarms", "independent", "copying"])
    parser.add_argument("--data", action="append")
    parser.add_argument("--sizes", default="32,64,128")
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--planted", type=int, default=40)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    sizes = [int(size) for size in given.sizes.split(",")]
    if given.what == "speed":
        speed()
    elif given.what == "copying":
        print(copying(given.steps))
    elif given.what == "independent":
        for size in sizes:
            print(independent(size, given.count))
    else:
        columns = {}
        for source in given.data or ["phantom"]:
            for size in sizes:
                name, counts = f"{Path(source).stem} {size} px", {"trained": given.train, "held_out": given.held_out}
                if given.what == "detection":
                    columns[name] = detection(source, size, planted=given.planted, **counts)
                else:
                    columns[name] = false_alarms(source, size, draws=given.draws, **counts)
                print(name, columns[name], flush=True)
        print(table(columns))


if __name__ == "__main__":
    main()
