"""The look at the first batch: do its values and the bank's mean the same? Once, and never waiting for a GPU."""

import math
import warnings

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL

_BEYOND = 0.25
"""Of the width of what is possible. Less is interpolation's overshoot, noise, a jitter that was not clamped."""
_TAIL = 0.02
_VALUES = 1 << 16
_SAMPLE = 16


class RangeCheck:
    """Compares the value range of the first floating-point batch with the bank's.

    The commonest mistake in mixing two sources is that one is normalised and the other is not. Nothing fails then: the
    classifier learns to tell the two apart by their brightness.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.pending: bool = enabled
        self._measured: Tensor | None = None
        self._ready: torch.cuda.Event | None = None

    def __call__(self, images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> None:
        """Look, if it has not been done yet. On CUDA the first call measures, and a later one reads what it found.

        Raises:
            InputError: a part of the values, not single ones, lies far beyond what any pixel of the bank can be.
        """
        if images.device.type == "cuda":
            with torch.cuda.device_of(images):
                self._look_later(images, bank, scale, shift)
        elif _has_values(images) and images.is_floating_point():
            _compare(_measure(images, bank, scale, shift))
            self.pending = False

    def _look_later(self, images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():
            return
        if self._measured is None:
            if _has_values(images) and images.is_floating_point():
                self._measured = torch.empty(8, pin_memory=True)
                self._measured.copy_(_measure(images, bank, scale, shift), non_blocking=True)
                self._ready = torch.cuda.Event()
                self._ready.record()
        elif self._ready is not None and self._ready.query():
            measured, self._measured = self._measured, None
            _compare(measured)
            self.pending = False

    def __getstate__(self) -> dict[str, object]:
        return {"pending": self.pending, "_measured": None, "_ready": None}


def _has_values(images: Tensor) -> bool:
    """Return whether a tensor is neither empty nor one that only says what it would be."""
    return images.numel() > 0 and images.device.type != "meta" and not isinstance(images, FakeTensor)


@torch.no_grad()
def _measure(images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> Tensor:
    """Measure the lowest and highest value of the batch, of most of it, of some of the bank, and of all possible."""
    images = images.as_subclass(Tensor).float()
    step = max(1, len(bank) // _SAMPLE)
    found = bank.rows(torch.arange(0, len(bank), step, device=bank.device)).float() * scale + shift
    possible = torch.stack([shift, shift + scale * HIGHEST_PIXEL[bank.pixel_dtype]])
    ends = [images.aminmax(), _most(images), found.aminmax(), possible.aminmax()]
    return torch.stack([end for both in ends for end in both]).float()


def _most(values: Tensor) -> tuple[Tensor, Tensor]:
    """Find what all but ``_TAIL`` of the values at either end lie between, by a sample: noise reaches anywhere."""
    values = values.flatten()
    some = values[:: max(1, len(values) // _VALUES) | 1].sort().values  # an odd step, so as not to walk down a column
    left_out = int(_TAIL * (len(some) - 1))
    return some[left_out], some[len(some) - 1 - left_out]


def _compare(measured: Tensor) -> None:
    low, high, lower, upper, bank_low, bank_high, least, most = measured.tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        return  # NaN and infinity are the loss's to show
    says = (
        f"GenMix: the batch's values run from {low:.3g} to {high:.3g}, the bank's from {bank_low:.3g} to "
        f"{bank_high:.3g} (possible: {least:.3g} to {most:.3g})"
    )
    room = _BEYOND * (most - least)
    if lower < least - room or upper > most + room:
        raise InputError(
            f"{says}: they are not in the same units. If the batch went through v2.Normalize(mean, std), give "
            "GenMix(bank, mean=mean, std=std); if it is in [0, 255], divide it by 255 or leave it uint8; "
            "if it is as it should be, GenMix(bank, check_range=False)"
        )
    if low >= 0 and high <= 1 and least < -_BEYOND and bank_low < low - room:
        warnings.warn(
            f"{says}: the batch looks as if it had not gone through the v2.Normalize whose mean and std GenMix was "
            "given; then leave them out, or put the v2.Normalize before GenMix",
            stacklevel=2,
        )
