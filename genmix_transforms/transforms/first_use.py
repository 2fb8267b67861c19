"""A look at the first batch: do its values and the bank's mean the same? Once, and never waiting for a GPU."""

import math
import warnings

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL

_BEYOND = 0.25  # of the bank's width: less is interpolation's overshoot, noise, a jitter that was not clamped
_SAMPLE = 16


class FirstUse:
    """Compares the value range of the first floating-point batch with the bank's.

    The commonest mistake in mixing two sources is that one is normalised and the other is not. Nothing fails then: the
    classifier learns to tell the two apart by their brightness.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.pending = enabled
        self._measured: Tensor | None = None
        self._ready: torch.cuda.Event | None = None

    def __call__(self, images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> None:
        """Look, if it has not been done yet. On CUDA the first call measures, and a later one reads what it found.

        Raises:
            InputError: the batch reaches far beyond what any image of the bank can be.
        """
        if images.device.type == "cuda":
            self._look_later(images, bank, scale, shift)
        elif images.device.type != "meta" and images.is_floating_point() and images.numel():
            self.pending = False
            _compare(_measure(images, bank, scale, shift))

    def _look_later(self, images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():
            return
        if self._measured is None:
            if images.is_floating_point() and images.numel():
                self._measured = torch.empty(6, pin_memory=True)
                self._measured.copy_(_measure(images, bank, scale, shift), non_blocking=True)
                self._ready = torch.cuda.Event()
                self._ready.record()
        elif self._ready is not None and self._ready.query():
            self.pending = False
            _compare(self._measured)

    def __getstate__(self) -> dict[str, object]:
        return {"pending": self.pending, "_measured": None, "_ready": None}


@torch.no_grad()
def _measure(images: Tensor, bank: SyntheticBank, scale: Tensor, shift: Tensor) -> Tensor:
    """Lowest and highest value of the batch, of the pixels of a part of the bank, and of all a pixel can be."""
    images = images.as_subclass(Tensor).float()
    step = max(1, len(bank) // _SAMPLE)
    found = bank.images[::step].float() * scale + shift
    possible = torch.stack([shift, shift + scale * HIGHEST_PIXEL[bank.images.dtype]])
    return torch.stack([edge for values in (images, found, possible) for edge in values.aminmax()]).float()


def _compare(measured: Tensor) -> None:
    low, high, bank_low, bank_high, least, most = measured.tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        return  # NaN and infinity are the loss's to show
    says = (
        f"GenMix: the batch's values run from {low:.3g} to {high:.3g}, the bank's from {bank_low:.3g} to "
        f"{bank_high:.3g} (possible: {least:.3g} to {most:.3g})"
    )
    room = _BEYOND * (most - least)
    if low < least - room or high > most + room:
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
