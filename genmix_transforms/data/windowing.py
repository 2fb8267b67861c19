"""Windows: which Hounsfield units the lowest and the highest gray value of 8 bits show."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL

Window = tuple[float, float]
"""Hounsfield units of the lowest and of the highest pixel value there can be, as a bank has them."""

HU_OF_ZERO = -1024
"""Hounsfield units of a stored 0 where nobody says: 12-bit scanners store HU + 1024."""

_AT_ONCE = 256


def check_level_width(window: Any) -> tuple[float, float]:
    """A window as radiologists say it, level and width in HU, as two floats.

    Raises:
        InputError: not two finite numbers, or a width that is not above 0.
    """
    try:
        level, width = map(float, window)
    except (TypeError, ValueError):
        level = width = math.nan
    if not (math.isfinite(level) and math.isfinite(width) and width > 0):
        raise InputError(f"window must be a level and a width above 0, in HU, such as 40,400; got {window!r}")
    return level, width


def window_ends(level: float, width: float) -> Window:
    """The Hounsfield units at the ends of a window.

    Example:
        >>> window_ends(40, 400)
        (-160.0, 240.0)
    """
    return level - width / 2, level + width / 2


def to_gray(hounsfield: NDArray[Any], ends: Window) -> NDArray[np.uint8]:
    """Hounsfield units through a window: 0 at its lower end and below, 255 at its upper end and above, rounded."""
    low, high = ends
    return np.rint(np.clip((hounsfield - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


def stored_to_gray(images: Tensor, stored: Window, ends: Window) -> Tensor:
    """Images of 16 bits through a window, as 8 bits.

    Args:
        images: uint16, any shape with the images first.
        stored: Hounsfield units of the stored values 0 and 65535.
        ends: of the window.

    Returns:
        uint8, of the same shape.
    """
    low, high = stored
    unit = (high - low) / HIGHEST_PIXEL[torch.uint16]
    gray = np.empty(tuple(images.shape), dtype=np.uint8)
    for start in range(0, len(images), _AT_ONCE):  # as floats, a large data set would take four times its memory
        part = images[start : start + _AT_ONCE].numpy()
        gray[start : start + _AT_ONCE] = to_gray(low + part.astype(np.float32) * np.float32(unit), ends)
    return torch.from_numpy(gray)
