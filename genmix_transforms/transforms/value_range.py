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
_BLACK = 1e-5
_DARK = 1 / 8
"""Of what is possible, up from its lower end. 12 bits in 16 are half of that."""
_BRIGHT = 1 / 2
_VALUES = 1 << 16
_SAMPLE = 16
_DEEP = torch.uint16


class RangeCheck:
    """Compares the value range of the first floating-point batch with the bank's.

    The commonest mistake in mixing two sources is that one is normalized and the other is not. Nothing fails then: the
    classifier learns to tell the two apart by their brightness.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.pending: bool = enabled
        self._measured: Tensor | None = None
        self._ready: torch.cuda.Event | None = None

    def __call__(self, images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> None:
        """Look, if it has not been done yet. On CUDA the first call measures, and a later one reads what it found.

        Of integers only those of 16 bits are looked at: the others have the bank's own units.

        Raises:
            InputError: a part of the values, not single ones, lies far beyond what any pixel of the bank can be; or
                some are no numbers.
        """
        if images.device.type == "cuda":
            with torch.cuda.device_of(images):
                self._look_later(images, bank, scale, shift)
        elif _has_values(images) and _has_range(images):
            _compare(_measure(images, bank, scale, shift))
            self.pending = False

    def _look_later(self, images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():
            return
        if self._measured is None:
            if _has_values(images) and _has_range(images):
                self._measured = torch.empty(10, pin_memory=True)
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


def _has_range(images: Tensor) -> bool:
    """Return whether somebody may have brought the values to another range than the bank's."""
    return images.is_floating_point() or images.dtype == _DEEP


@torch.no_grad()
def _measure(images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> Tensor:
    """Measure the lowest and highest value of the batch, of most of it, of some of the bank, and of all possible.

    Last, how far up what is possible batch and bank reach, from 0 to 1: of their channels, that which does most.
    """
    if images.dtype == _DEEP:  # mixed in their own units, whatever the mean and std
        scale, shift = torch.full_like(scale, 1 / HIGHEST_PIXEL[bank.pixel_dtype]), torch.zeros_like(shift)
        images = images.as_subclass(Tensor).float() / HIGHEST_PIXEL[_DEEP]
    images = images.as_subclass(Tensor).float()
    step = max(1, len(bank) // _SAMPLE)
    found = bank.rows(torch.arange(0, len(bank), step, device=bank.device)).float() * scale + shift
    possible = torch.stack([shift, shift + scale * HIGHEST_PIXEL[bank.pixel_dtype]])
    ends = [images.aminmax(), _most(images), found.aminmax(), possible.aminmax()]
    reached = [((values - shift) / (possible[1] - shift)).amax() for values in (images, found)]
    return torch.stack([*(end for both in ends for end in both), *reached]).float()


def _most(values: Tensor) -> tuple[Tensor, Tensor]:
    """Find what all but ``_TAIL`` of the values at either end lie between, by a sample: noise reaches anywhere."""
    values = values.flatten()
    some = values[:: max(1, len(values) // _VALUES) | 1].sort().values  # an odd step, so as not to walk down a column
    left_out = int(_TAIL * (len(some) - 1))
    return some[left_out], some[len(some) - 1 - left_out]


def _compare(measured: Tensor) -> None:
    low, high, lower, upper, bank_low, bank_high, least, most, reached, bank_reached = measured.tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            "GenMix: the batch has NaN or infinite values, and mixing spreads them: look for a "
            "division by zero or a logarithm in what comes before, or for damaged files; if they are meant, "
            "GenMix(bank, check_range=False)"
        )
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
    sides = ((reached, bank_reached, "batch", "bank"), (bank_reached, reached, "bank", "batch"))
    for dark, bright, who, other in sides:
        if _BLACK < dark < _DARK and bright > _BRIGHT:
            warnings.warn(
                f"{says}: the {who} is dark beside the {other}, as 12-bit CT is that was taken for 16 bits; bring its "
                "values to the whole range first (open_dataset(..., window=(40, 400)), --window 40,400)",
                stacklevel=2,
            )
    if low >= 0 and high <= 1 and least < -_BEYOND and bank_low < low - room:
        warnings.warn(
            f"{says}: the batch looks as if it had not gone through the v2.Normalize whose mean and std GenMix was "
            "given; then leave them out, or put the v2.Normalize before GenMix",
            stacklevel=2,
        )
