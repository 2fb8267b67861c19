"""What a user writes, for type checkers: not run, see ``test_typing.py``."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.data import LesionPhantom, PatchDataset, open_dataset
from genmix_transforms.evaluation import Protocol, Results, evaluate
from genmix_transforms.generators import DCGAN, Generator, fill_bank, load_generator


def train(bank: SyntheticBank, loader: DataLoader[tuple[Tensor, Tensor]], model: nn.Module) -> float:
    """The training loop of the README."""
    genmix = GenMix(bank, alpha=0.3, pairing="same", absent="redraw", mean=(0.5,), std=(0.5,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    last = 0.0
    for images, labels in loader:
        mixed, soft = genmix(images, labels)
        assert_type(mixed, Tensor)
        assert_type(soft, Tensor)
        loss = torch.nn.functional.cross_entropy(model(mixed), soft)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        last = loss.item()
    params = genmix.params
    if params is not None:
        print(params["lam"].mean())
    assert_type(genmix.alpha, float)
    return last


def mix_samples(genmix: GenMix, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A sample comes back in the structure it came in."""
    batch = genmix({"image": images, "labels": labels})
    assert_type(batch, dict[str, Tensor])
    pair: tuple[Tensor, Tensor] = genmix((images, labels))
    return pair


def make_bank(folder: Path) -> SyntheticBank:
    """From data to a bank."""
    patches = open_dataset(folder / "patches.npz", size=64, fit="pad")
    assert_type(patches, PatchDataset)
    training, validation, test = patches.split(seed=0)
    generator = DCGAN(resolution=64, channels=1, classes=training.classes)
    generator.fit(training, out=folder / "run", steps=20, batch_size=8, seed=0)
    drawn: Generator = load_generator(folder / "run")
    pixels = drawn.sample(labels=[0, 1], seeds=[7, 8])
    assert_type(pixels, Tensor)
    bank = fill_bank(drawn, counts=training.class_counts, out=folder / "bank", seed=0)
    assert_type(bank, SyntheticBank)
    balanced = bank.balance(seed=0).select(classes=["benign"]).drop(flags=1)
    assert_type(balanced, SyntheticBank)
    balanced.save(folder / "balanced")
    print(len(validation), len(test), balanced.class_counts, bank.unit(mean=(0.5,), std=(0.5,)))
    return SyntheticBank.load(folder / "balanced", device="cpu")


def compare(bank: SyntheticBank) -> str:
    """A comparison."""
    splits = LesionPhantom(size=32, seed=0).dataset().split()
    results = evaluate(
        splits, bank=bank, arms=["baseline", "genmix"], seeds=2, protocol=Protocol(steps=10, pairing="balanced")
    )
    assert_type(results, Results)
    table: str = results.table()
    return table


def a_loader(images: Tensor, labels: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    """Of tensors."""
    return DataLoader(TensorDataset(images, labels), batch_size=8)
