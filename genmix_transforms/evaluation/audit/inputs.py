"""What an audit compares: the bank and real images of the same classes and size, checked; notes on what is missing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.checks import fitting_bank

FEWEST = 10
"""Images of a class below which nothing is said of it."""

NO_GROUPS = (
    "the data set has no groups, so patients cannot be told apart: two images of one patient may stand in both halves "
    "of the real images, and the real values look better than a new patient's would"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """A bank and real images that can be compared.

    Args:
        bank: with the real images' classes, on the CPU.
        real: the real images.
        labels: int64 ``(N,)``: the (most probable) class of each image of the bank.
        notes: one sentence each.
    """

    bank: SyntheticBank
    real: PatchDataset
    labels: Tensor
    notes: tuple[str, ...]


def compared(bank: SyntheticBank, real: PatchDataset) -> Compared:
    """Check a bank and real images against each other.

    Raises:
        InputError: other classes, other channels, sizes or pixels, a class without images, or fewer than 10 of one.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> real = LesionPhantom(size=16, train=(10, 10, 10), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()[0]
        >>> compared(SyntheticBank(real.images, real.labels, classes=real.classes), real).labels.bincount().tolist()
        [10, 10, 10]
    """
    if len(bank.image_shape) != 3:
        raise InputError(f"audit: images must be (C, H, W), the bank's are {bank.image_shape}")
    mapped = fitting_bank(bank, real)
    labels = (mapped.labels if mapped.labels.ndim == 1 else mapped.labels.argmax(dim=1)).cpu()
    for what, here in (("the bank", labels), ("the real set", real.labels)):
        counts = dict(zip(real.classes, torch.bincount(here, minlength=len(real.classes)).tolist(), strict=True))
        empty = [name for name, count in counts.items() if not count]
        if empty:
            raise InputError(
                f"audit: {what} has no image of {', '.join(empty)}: fill that class, or leave it out of the data set"
            )
        few = [f"{name} {count}" for name, count in counts.items() if count < FEWEST]
        if few:
            raise InputError(
                f"audit: {what} has fewer than {FEWEST} images of a class ({', '.join(few)}), which say nothing of it: "
                "fill more, or take a larger part of the data"
            )
    return Compared(bank=mapped, real=real, labels=labels, notes=() if real.groups is not None else (NO_GROUPS,))
