"""Patches for figures: which ones are shown, and what a transform makes of them."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.files.images import HIGHEST_PIXEL
from genmix_transforms.transforms import GenMix, functional


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What GenMix made of some patches, on the CPU.

    Args:
        values: float32 ``(N, C, H, W)`` in [0, 1], whatever normalisation the transform was built for.
        labels: float32 ``(N, K)``.
        lam: float32 ``(N,)``, the weight of the partner.
        index: int64 ``(N,)``, the partner's row in the bank or, where ``from_batch``, among the patches.
        from_batch: bool ``(N,)``.
    """

    values: Tensor
    labels: Tensor
    lam: Tensor
    index: Tensor
    from_batch: Tensor


def choose(of_class: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """At most ``count`` places, int64, where ``of_class`` is true, each once."""
    places = np.flatnonzero(of_class.cpu().numpy())
    return torch.from_numpy(random.permutation(places)[:count].astype(np.int64))


def mix(pixels: Tensor, labels: Tensor, genmix: GenMix, *, seed: int) -> Mixed:
    """Integer patches ``(N, C, H, W)`` through ``genmix``, which stays as it was."""
    device = genmix.bank.device
    # A copy that shares the bank: the caller's transform keeps its mode, and its generator its place.
    transform = copy.copy(genmix)
    transform.training, transform.inplace = True, False
    transform.generator = torch.Generator(device).manual_seed(seed)
    # genmix.scale is of its bank's pixels; the patches may have another depth.
    highest = HIGHEST_PIXEL[genmix.bank.pixel_dtype]
    scale = genmix.scale * highest
    values = functional.dequantise(pixels.to(device), scale / HIGHEST_PIXEL[pixels.dtype], genmix.shift)
    mixed, soft = transform(values, labels.to(device))
    unit = ((mixed - genmix.shift) / scale).clamp(0, 1)
    drawn = transform.params
    assert drawn is not None  # it was called
    return Mixed(
        values=unit.cpu(),
        labels=soft.cpu(),
        lam=drawn["lam"].cpu(),
        index=drawn["index"].cpu(),
        from_batch=drawn["from_batch"].cpu(),
    )


def hard_labels(bank: SyntheticBank) -> Tensor:
    """The class of each image of a bank, int64 ``(N,)`` on the CPU: of soft labels, the largest."""
    labels = bank.labels.cpu()
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


def rows_of(bank: SyntheticBank, index: Tensor) -> Tensor:
    """Images of a bank by number, on the CPU; of one larger than memory, only these are read."""
    images: Tensor = bank.rows(index.to(bank.device))
    return images.cpu()


def in_eight_bits(pixels: Tensor) -> Tensor:
    """Integer patches as uint8: black and white stay black and white."""
    return to_pixels(in_unit(pixels))


def to_pixels(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return (values * 255).round().to(torch.uint8)


def in_unit(pixels: Tensor) -> Tensor:
    """Integer patches as float32 in [0, 1]."""
    return pixels.float() / HIGHEST_PIXEL[pixels.dtype]
