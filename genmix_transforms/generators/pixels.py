"""Between integer pixels and the range [-1, 1] that generators work in."""

import torch
from torch import Tensor

from genmix_transforms.files.images import HIGHEST_PIXEL


def to_signed_unit(pixels: Tensor) -> Tensor:
    """Integer pixels, uint8 or uint16, to float32 in [-1, 1]."""
    return pixels.float().mul_(2 / HIGHEST_PIXEL[pixels.dtype]).sub_(1)


def to_pixels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float values, clipped to [-1, 1], to the nearest integer pixel of ``dtype`` (uint8 or uint16)."""
    highest = HIGHEST_PIXEL[dtype]
    return values.float().add(1).mul_(highest / 2).round_().clamp_(0, highest).to(torch.int32).to(dtype)
