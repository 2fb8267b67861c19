"""Between integer pixels and the range [-1, 1] that generators work in."""

import torch
from torch import Tensor

from genmix_transforms.files.images import HIGHEST_PIXEL


def to_signed_unit(pixels: Tensor) -> Tensor:
    """Turn integer pixels into the values that a network is trained on.

    Args:
        pixels: uint8 or uint16, of any shape.

    Returns:
        float32 in [-1, 1], of the same shape.

    Example:
        >>> to_signed_unit(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return pixels.float().mul_(2 / HIGHEST_PIXEL[pixels.dtype]).sub_(1)


def to_pixels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn what a network draws into integer pixels.

    Args:
        values: floating-point, of any shape; clipped to [-1, 1].
        dtype: ``torch.uint8`` or ``torch.uint16``.

    Returns:
        The nearest pixels, of the same shape and on the same device.

    Example:
        >>> to_pixels(torch.tensor([-1.0, 0.5, 2.0]), torch.uint8)
        tensor([  0, 191, 255], dtype=torch.uint8)
    """
    highest = HIGHEST_PIXEL[dtype]
    return values.float().add(1).mul_(highest / 2).round_().clamp_(0, highest).to(torch.int32).to(dtype)
