"""What it costs a training step that the bank is not in memory, and how much of that reading ahead hides.

One bank on disk, and a part of it in memory; a small convolutional network; the same real batches. Interleaved: batches
without GenMix, with partners from memory, from a mapped bank whose files the system has in its page cache ("warm") and
has not ("cold": it is asked to forget them before each run), each directly and by ``genmix.prefetch``.

    python benchmarks/prefetch.py --gigabytes 4
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from timing import Neighbours, interleave, machine, table
from torch import Tensor, nn

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.bank import BankWriter

SHAPE = (3, 64, 64)
CLASSES = ("cyst", "hemangioma", "metastasis")
Batches = Iterable[tuple[Tensor, Tensor]]


def write_bank(folder: Path, *, gigabytes: float) -> None:
    random = torch.Generator().manual_seed(0)
    count, some = int(gigabytes * 1e9 / torch.Size(SHAPE).numel()), 8192
    with BankWriter(folder, classes=CLASSES, image_shape=SHAPE, publish="close") as writer:
        for first in range(0, count, some):
            now = min(some, count - first)
            images = torch.randint(0, 256, (now, *SHAPE), dtype=torch.uint8, generator=random)
            writer.add(images, torch.randint(0, len(CLASSES), (now,), generator=random))


def forget(folder: Path) -> None:
    """Drop the bank's files from the page cache. What is mapped and has been touched stays: map anew afterwards."""
    os.sync()
    for file in folder.glob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def warm(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as content:
            while content.read(1 << 24):
                pass


def trainer(device: torch.device) -> Callable[[Batches], None]:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, len(CLASSES)),
    ).to(device)
    optimiser = torch.optim.SGD(network.parameters(), 1e-3)

    def train(batches: Batches) -> None:
        for images, labels in batches:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(images.to(device)), labels.to(device))
            loss.backward()
            optimiser.step()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="pixels in the bank on disk")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="steps in a run")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where the bank is written, on the disk to be measured")
    options = parser.parse_args()
    device = torch.device(options.device)
    train = trainer(device)
    random = torch.Generator().manual_seed(1)
    real = [
        (
            torch.rand(options.batch_size, *SHAPE, generator=random),
            torch.randint(0, len(CLASSES), (options.batch_size,), generator=random),
        )
        for _ in range(options.steps)
    ]
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary) / "bank"
        write_bank(folder, gigabytes=options.gigabytes)
        on_disk = SyntheticBank.load(folder, resident=False, verify=False, device=device)
        part = SyntheticBank.load(folder, limit=20_000, resident=True, verify=False, device=device)

        def direct(bank: SyntheticBank) -> None:
            genmix = GenMix(bank, check_range=False)
            train(genmix(images.to(device), labels.to(device)) for images, labels in real)

        def ahead(bank: SyntheticBank) -> None:
            train(GenMix(bank, check_range=False).prefetch(real))

        def cold(run: Callable[[SyntheticBank], None]) -> Callable[[], None]:
            return lambda: run(SyntheticBank.load(folder, resident=False, verify=False, device=device))

        print(f"{len(on_disk):,} images of {SHAPE}, {options.steps} steps of {options.batch_size}; {machine(device)}")
        neighbours = Neighbours()
        warm(folder)
        times = interleave(
            {
                "no mixing": lambda: train(real),
                "bank in memory": lambda: direct(part),
                "on disk, in the page cache": lambda: direct(on_disk),
                "on disk, in the page cache, prefetched": lambda: ahead(on_disk),
            },
            device=device,
            rounds=options.rounds,
        )
        print(table(times, against="bank in memory"))
        times = interleave(
            {
                "bank in memory": lambda: direct(part),
                "on disk, cold": cold(direct),
                "on disk, cold, prefetched": cold(ahead),
            },
            device=device,
            rounds=options.rounds,
            before=lambda: forget(folder),
        )
        print(f"\nThe page cache emptied before each run:\n\n{table(times, against='bank in memory')}")
        print(neighbours.crowd(torch.get_num_threads()))


if __name__ == "__main__":
    main()
