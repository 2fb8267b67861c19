"""Images as the page shows them: PNG, eight bits, a volume as all its slices."""

import math

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.images import encode_png, to_picture


def check_showable(shape: tuple[int, ...], *, name: str) -> None:
    """Refuse images that are no pictures.

    Args:
        shape: ``(C, *spatial)``.
        name: what they are of, for the message.

    Raises:
        InputError: neither ``(C, H, W)`` nor ``(C, D, H, W)``.
    """
    if len(shape) not in (3, 4):
        raise InputError(f"{name}: images of shape {shape} cannot be shown; review takes (C, H, W) or (C, D, H, W)")


def to_png(image: Tensor, *, low: int = 0, high: int = 255) -> bytes:
    """Encode an image.

    Args:
        image: ``(C, H, W)``, or ``(C, D, H, W)``, whose slices are laid out in rows; uint8 or uint16. Three channels
            are colors; of another number the first is shown.
        low: the pixel value that is black.
        high: the one that is white.

    Returns:
        The content of a PNG file. It says nothing of where the image comes from.

    Example:
        >>> to_png(torch.zeros(1, 8, 8, dtype=torch.uint8))[1:4]
        b'PNG'
    """
    if image.ndim == 4:
        image = _montage(image)
    if image.dtype != torch.uint8 or (low, high) != (0, 255):
        scaled = (image.to(torch.float32) - low) * (255 / max(1, high - low))
        image = scaled.round().clamp(0, 255).to(torch.uint8)
    return encode_png(to_picture(image))


def _montage(volume: Tensor) -> Tensor:
    """The slices ``(C, D, H, W)`` of a volume beside and below each other."""
    channels, depth, height, width = volume.shape
    columns = math.ceil(math.sqrt(depth))
    rows = math.ceil(depth / columns)
    out = torch.zeros(channels, rows * height, columns * width, dtype=volume.dtype)
    for number in range(depth):
        y, x = divmod(number, columns)
        out[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = volume[:, number]
    return out
