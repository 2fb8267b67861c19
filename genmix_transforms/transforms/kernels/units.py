"""From the bank's pixels to the batch's values."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Units(NamedTuple):
    """``value = pixel * scale + shift``, a scale and a shift for each channel: for the device, and for the host."""

    scale: Tensor
    """float32 ``(C, 1, ...)``, on the images' device."""
    shift: Tensor
    """Likewise."""
    host: tuple[NDArray[Any], NDArray[Any]]
    """The same, float32 ``(C,)``: on the CPU an array is at hand in a third of the time of a tensor's view."""

    @classmethod
    def between_integers(cls, like: Tensor, levels: float) -> "Units":
        """For integer batches: ``pixel * levels``; ``like`` is the scale of the floating-point ones."""
        channels = like.shape[0]
        arrays = np.full(channels, levels, dtype=np.float32), np.zeros(channels, dtype=np.float32)
        return cls(like.new_full(like.shape, levels), like.new_zeros(like.shape), arrays)
