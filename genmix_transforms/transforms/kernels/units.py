"""From the bank's pixels to the batch's values."""

from typing import NamedTuple

from torch import Tensor


class Units(NamedTuple):
    """``value = pixel * scale + shift``, a scale and a shift for each channel."""

    scale: Tensor
    """float32 ``(C, 1, ...)``, on the images' device."""
    shift: Tensor
    """Likewise."""

    @classmethod
    def between_integers(cls, like: Tensor, levels: float) -> "Units":
        """For integer batches: ``pixel * levels``; ``like`` is the scale of the floating-point ones."""
        return cls(like.new_full(like.shape, levels), like.new_zeros(like.shape))
