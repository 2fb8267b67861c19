"""Which images of a bank an arm draws from, and how often each of its classes comes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError

_SEED = 20_210_927
"""Of the images that are dropped at random: the same for all seeds of a comparison, as the filter's are."""


def most_confident(bank: SyntheticBank, confidence: Tensor, *, keep: float) -> SyntheticBank:
    """The images of each class that a classifier is surest of.

    Args:
        bank: to choose from.
        confidence: float ``(N,)``, of each image, in the bank's order: the probability of its own label.
        keep: share of each class that is kept, above 0 and at most 1; of a class that has images one at least.

    Raises:
        InputError: as many values as the bank has no images.

    Source: HistoDiffusion (Ye et al., MICCAI 2023) filters its synthetic images by a classifier's confidence.

    Example:
        >>> bank = SyntheticBank(torch.zeros(4, 1, 8, 8).byte(), torch.tensor([0, 0, 0, 1]), classes=["a", "b"])
        >>> most_confident(bank, torch.tensor([0.9, 0.1, 0.8, 0.2]), keep=0.5).class_counts
        {'a': 2, 'b': 1}
    """
    if confidence.shape != (len(bank),):
        raise InputError(f"{len(bank)} images in the bank, but confidences of shape {tuple(confidence.shape)}")
    return _first(bank, confidence.double().cpu(), keep=keep)


def at_random(bank: SyntheticBank, *, keep: float) -> SyntheticBank:
    """As many images of each class as :func:`most_confident` keeps, at random: its control."""
    chance = torch.rand(len(bank), generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64)
    return _first(bank, chance, keep=keep)


def _first(bank: SyntheticBank, rank: Tensor, *, keep: float) -> SyntheticBank:
    """Of each class those of the highest rank; of equals the first."""
    kept = []
    for start, count in zip(bank.class_start.tolist(), bank.class_count.tolist(), strict=True):
        order = rank[start : start + count].argsort(descending=True, stable=True)
        # Rounded first: 0.1 of 70 is 7.000000000000001.
        kept.append(start + order[: math.ceil(round(keep * count, 9))].sort().values)
    return bank.take(torch.cat(kept).to(bank.device))


def class_shares(bank: SyntheticBank, balance: str, *, class_counts: Mapping[str, int]) -> Tensor | None:
    """How often each class is drawn from a bank.

    Args:
        bank: with the training set's classes.
        balance: "off": as often as the bank has it; "equal": every class that the bank has equally often; "fill": in
            proportion to what the training set lacks of as many as its largest class, as ``genmix fill --balance``
            fills a bank.
        class_counts: of the training set.

    Returns:
        float64 ``(K,)``, its sum 1, on the CPU; None for "off".

    Raises:
        InputError: nothing to fill, or a class that the bank has no images of.

    Example:
        >>> bank = SyntheticBank(torch.zeros(4, 1, 8, 8).byte(), torch.tensor([0, 0, 0, 1]), classes=["a", "b"])
        >>> class_shares(bank, "equal", class_counts={"a": 9, "b": 3}).tolist()
        [0.5, 0.5]
        >>> class_shares(bank, "fill", class_counts={"a": 9, "b": 3}).tolist()
        [0.0, 1.0]
    """
    if balance == "off":
        return None
    held = bank.class_count.double().cpu()
    if balance == "equal":
        present = (held > 0).double()
        return present / present.sum()
    counts = torch.tensor(list(class_counts.values()), dtype=torch.float64)
    lacking = counts.max() - counts
    if not lacking.any():
        raise InputError("balance=fill: every class has as many real images already; balance=equal draws them equally")
    absent = [name for name, count, asked in zip(class_counts, held, lacking, strict=True) if asked and not count]
    if absent:
        raise InputError(f"balance=fill: the bank has no images of {', '.join(absent)}; fill it with them")
    return lacking / lacking.sum()
