"""The images of a bank one after the other, encoded as PNG, with what is known of each."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.bank.rows import DESCRIPTIONS
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.files.images import encode_png, to_picture

COLUMNS = ("seed", "source", "distance", "flags")
"""What is known of every image."""

_PIECE_BYTES = 2**25
"""Pixels that stand in memory at once."""


class Sample(NamedTuple):
    """One image, encoded, and what is known of it."""

    row: int
    png: bytes
    label: int
    facts: dict[str, Any]
    mask: bytes | None
    """Likewise, its gray levels the numbers of the bank's mask classes; None: the bank has no masks."""


def encoded_samples(bank: SyntheticBank, order: Tensor, bar: Any) -> Iterator[Sample]:
    """The bank's rows in some order, encoded; a piece of them stands in memory at once."""
    image_bytes = bank.pixel_dtype.itemsize * math.prod(bank.image_shape)
    for index in order.split(max(1, _PIECE_BYTES // max(1, image_bytes))):
        images = bank.rows(index.to(bank.device)).cpu()
        labels = bank.labels[index.to(bank.labels.device)].cpu().numpy()
        masks = None if bank.mask_classes is None else bank.mask_rows(index.to(bank.device)).cpu()
        seeds, source, distance, flags = (bank.column(name)[index].numpy() for name in DESCRIPTIONS)
        for place, row in enumerate(index.tolist()):
            facts: dict[str, Any] = {
                "seed": int(seeds[place]),
                "source": int(source[place]),
                "distance": None if np.isnan(distance[place]) else _shortest(distance[place]),
                "flags": int(flags[place]),
            }
            if labels.ndim == 2:
                facts["probabilities"] = [_shortest(value) for value in labels[place]]
            label = labels[place] if labels.ndim == 1 else labels[place].argmax()
            mask = None if masks is None else encode_png(to_picture(masks[place].unsqueeze(0)))
            yield Sample(row, encode_png(to_picture(images[place])), int(label), facts, mask)
            bar.update()


def _shortest(value: np.float32) -> float:
    """The number with the fewest digits that is this float32 again when it is read as one."""
    return float(str(value))


def row_order(bank: SyntheticBank, seed: int | None) -> Tensor:
    """The rows in a random order, int64 ``(N,)``; in the bank's own for None."""
    if seed is None:
        return torch.arange(len(bank))
    return torch.from_numpy(np.random.default_rng(check_seed(seed)).permutation(len(bank)))


def check_images(bank: SyntheticBank, name: str) -> None:
    """Refuse what PNG files do not hold."""
    if not len(bank):
        raise InputError(f"{name}: the bank has no images; fill it first")
    shape = bank.image_shape
    if len(shape) != 3:
        raise InputError(
            f"{name}: images of shape {shape} are no pictures, expected (C, H, W): volumes are not exported; "
            "keep them as a bank, or make a bank of their slices"
        )
    if shape[0] not in (1, 3):
        raise InputError(f"{name}: PNG files hold 1 (gray) or 3 (color) channels, the bank has {shape[0]}")
    if shape[0] == 3 and bank.pixel_dtype == torch.uint16:
        raise InputError(
            f"{name}: color images of 16 bits would lose half of them in most readers; "
            "bring them to uint8 first, or make them gray"
        )
