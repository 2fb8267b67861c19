"""How fast copies are looked for, and how many planted ones are found.

    python benchmarks/audit.py speed
    python benchmarks/audit.py detection --data phantom --data busi_128.npz --sizes 32,64 --out docs/benchmarks/audit.md

The detection table plants copies of training images in a bank of held-out ones, kind by kind; at the default share.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genmix_transforms import SyntheticBank
from genmix_transforms.data import open_dataset
from genmix_transforms.evaluation.audit import find_copies, nearest_neighbors
from genmix_transforms.evaluation.audit.correlation import UPRIGHT, References, find_candidates
from genmix_transforms.evaluation.audit.search import Prepared, most_alike
from genmix_transforms.evaluation.audit.transformations import warp


def speed() -> None:
    random = torch.Generator().manual_seed(0)
    queries, references = (torch.randn(10_000, 768, generator=random) for _ in range(2))
    began = time.perf_counter()
    nearest_neighbors(queries, references)
    print(f"10,000 x 10,000 x 768: {time.perf_counter() - began:.1f} s on {torch.get_num_threads()} threads")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")
    images = torch.randint(0, 256, (2000, 1, 64, 64), dtype=torch.uint8, generator=random)
    began = time.perf_counter()
    bank, train = Prepared.of(images[:1000]), Prepared.of(images[1000:])
    cut = References(train.coarse)
    most_alike(bank, train, cut, family=0)
    print(f"shift, flip, turn and zoom, 1,000 x 1,000 of 64 px: {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    find_candidates(bank.coarse, cut, parts=(0,), keep=4, warps=UPRIGHT)
    print(f"of it shifts and flips, coarse stage: {time.perf_counter() - began:.1f} s")


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


def detection(data: list[str], sizes: list[int], planted: int, held_out: int) -> str:
    columns, rows = [], {}
    for source in data:
        for size in sizes:
            train, val, test = open_dataset(source, size=size).split(seed=0)
            train = train.subset(torch.arange(min(700, len(train))))
            unseen = torch.cat([val.images, test.images])
            unseen = unseen[torch.randperm(len(unseen), generator=torch.Generator().manual_seed(0))][:held_out]
            which = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))[:planted]
            changed = [change(train.images[which]) for change in kinds(unseen).values()]
            images = torch.cat([*changed, unseen])
            bank = SyntheticBank(images, torch.zeros(len(images), dtype=torch.int64), classes=train.classes)
            found = find_copies(bank, train).near_copy.double()
            columns.append(f"{Path(source).stem} {size} px")
            shares = found[: len(changed) * planted].view(len(changed), planted).mean(dim=1).tolist()
            for name, share in zip(
                [*kinds(unseen), "held-out images"], [*shares, float(found[-len(unseen) :].mean())], strict=True
            ):
                rows.setdefault(name, []).append(f"{share:.1%}")
            print(columns[-1], *(f"{name} {values[-1]}" for name, values in rows.items()), sep="; ", flush=True)
    lines = ["| flagged | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(values) + " |" for name, values in rows.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "detection"])
    parser.add_argument("--data", action="append")
    parser.add_argument("--sizes", default="32,64,128")
    parser.add_argument("--planted", type=int, default=40)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "speed":
        speed()
        return
    sizes = [int(size) for size in given.sizes.split(",")]
    table = detection(given.data or ["phantom"], sizes, given.planted, given.held_out)
    print(table)
    if given.out is not None:
        given.out.write_text(f"# Planted copies\n\nShares that are flagged, at the default share.\n\n{table}\n")


if __name__ == "__main__":
    main()
