"""Brightness, contrast, histogram and noise of a bank's images, as a radiologist knows them, beside the real ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.evaluation.audit.halving import Halving
from genmix_transforms.evaluation.audit.measured import Better, Measured, bootstrap_mean, from_draws
from genmix_transforms.files.images import HIGHEST_PIXEL

PERCENTILES = (5, 50, 95)
FINE = 0.25
"""Cycles a pixel above which detail is fine: structures of less than 4 pixels. Noise lives there, anatomy hardly."""

Which = tuple[Tensor, Tensor]
"""Numbers of images of the bank, and of real ones."""

Distance = Callable[[Tensor, Tensor], float]
_BINS = 256
_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Intensities:
    """What is known of the pixels of images.

    Args:
        statistics: of each image, by name, float64 ``(N,)``: mean, standard deviation, percentiles.
        histogram: float64 ``(N, 256)``: shares of its pixels in equal steps of the range.
        spectrum: float64 ``(N, bins)``: see :func:`noise_power`.
        start: where the histogram starts, in the unit.
        step: of the histogram, in the unit.
        unit: "gray levels" or "HU".
    """

    statistics: dict[str, Tensor]
    histogram: Tensor
    spectrum: Tensor
    start: float
    step: float
    unit: str

    @classmethod
    def of(cls, images: Tensor, *, window: tuple[float, float] | None = None) -> "Intensities":
        """Of integer images ``(N, C, H, W)``.

        Args:
            images: all channels count.
            window: Hounsfield units of the lowest and the highest pixel value; None: gray levels.
        """
        highest = HIGHEST_PIXEL[images.dtype]
        low, high = window or (0.0, float(highest))
        statistics: dict[str, list[Tensor]] = {}
        histograms, spectra = [], []
        for part in images.split(_BATCH):
            pixels = part.flatten(1).double()
            values = low + pixels * ((high - low) / highest)
            statistics.setdefault("mean", []).append(values.mean(dim=1))
            statistics.setdefault("standard deviation", []).append(values.std(dim=1, correction=0))
            for percent, row in zip(
                PERCENTILES,
                torch.quantile(values, torch.tensor(PERCENTILES, dtype=torch.float64) / 100, dim=1),
                strict=True,
            ):
                statistics.setdefault(f"{percent}th percentile", []).append(row)
            bins = (pixels * (_BINS / (highest + 1))).long()
            counted = torch.zeros(len(part), _BINS, dtype=torch.float64)
            histograms.append(counted.scatter_add_(1, bins, torch.ones_like(pixels)) / pixels.shape[1])
            spectra.append(noise_power(part))
        return cls(
            statistics={name: torch.cat(values) for name, values in statistics.items()},
            histogram=torch.cat(histograms),
            spectrum=torch.cat(spectra),
            start=low,
            step=(high - low) / (highest / ((highest + 1) / _BINS)),
            unit="gray levels" if window is None else "HU",
        )


def histogram_distance(first: Tensor, second: Tensor) -> float:
    """The Wasserstein distance of two histograms, in bins: how far gray values must be moved to make one the other.

    Args:
        first: shares ``(bins,)`` that add up to 1.
        second: likewise.

    Example:
        >>> histogram_distance(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
        2.0
    """
    return float((first.double() - second.double()).cumsum(dim=0).abs().sum())


def noise_power(images: Tensor) -> Tensor:
    """The power spectrum of each image, averaged over all directions.

    Of the image less its mean, tapered at its border (Hann), so that opposite borders that do not fit make no power.

    Args:
        images: integers ``(N, C, H, W)``, square or not; the mean over the channels is taken.

    Returns:
        float64 ``(N, bins)``: squared gray levels (of a range of 1) times pixels, at :func:`frequencies`. White noise
        of variance v has v at each.

    Source: the noise power spectrum of ICRU report 87, section 4, radially averaged; of patches with their anatomy, not
        of a uniform phantom: only its fine end is noise.

    Example:
        >>> noise_power(torch.zeros(2, 1, 16, 16, dtype=torch.uint8)).shape
        torch.Size([2, 8])
    """
    values = images.double().mean(dim=1) / HIGHEST_PIXEL[images.dtype]
    height, width = values.shape[-2:]
    taper = _hann(height)[:, None] * _hann(width)[None]
    # The mean under the taper: otherwise brightness leaks into the first frequencies.
    centered = (values - (values * taper).sum(dim=(1, 2), keepdim=True) / taper.sum()) * taper
    power = torch.fft.fft2(centered).abs().square().flatten(1) / taper.square().sum()
    radius = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width)[None] ** 2).sqrt().flatten()
    bins = min(height, width) // 2
    place = (radius * 2 * bins).round().long() - 1
    inside = (place >= 0) & (place < bins)
    total = torch.zeros(len(values), bins, dtype=torch.float64).index_add_(1, place[inside], power[:, inside])
    return total / torch.bincount(place[inside], minlength=bins)


def frequencies(bins: int) -> Tensor:
    """Cycles a pixel of a spectrum's bins, float64 ``(bins,)``; the last is 0.5.

    Example:
        >>> frequencies(4).tolist()
        [0.125, 0.25, 0.375, 0.5]
    """
    return (torch.arange(bins, dtype=torch.float64) + 1) / (2 * bins)


def _hann(side: int) -> Tensor:
    return torch.hann_window(side + 2, periodic=False, dtype=torch.float64)[1:-1]


def fine_share(spectrum: Tensor) -> Tensor:
    """Share of the power that is fine detail, above a quarter cycle a pixel; of flat images 0.

    Each frequency counts as often as the plane has it: in proportion to itself. White noise has 0.75 (of a disk).

    Args:
        spectrum: ``(..., bins)``.

    Example:
        >>> round(fine_share(torch.ones(64)).item(), 2)
        0.75
    """
    at = frequencies(spectrum.shape[-1])
    power = spectrum.double() * at
    total = power.sum(dim=-1)
    return torch.where(total > 1e-12, power[..., at > FINE].sum(dim=-1) / total.clamp_min(1e-12), 0.0)


def spectral_difference(first: Tensor, second: Tensor) -> float:
    """How far two spectra lie apart, in decibels, mean over the frequencies of the size of the difference.

    Example:
        >>> round(spectral_difference(torch.tensor([1.0, 1.0]), torch.tensor([10.0, 0.1])), 3)
        10.0
    """
    return float((10 * (_known(first).log10() - _known(second).log10())).abs().mean())


def fine_noise(first: Tensor, second: Tensor) -> float:
    """By how many decibels the first spectrum's fine detail is stronger than the second's; below 0 it is smoother."""
    fine = frequencies(len(first)) > FINE
    return float(10 * (_known(first[fine].mean()).log10() - _known(second[fine].mean()).log10()))


def _known(power: Tensor) -> Tensor:
    return power.double().clamp_min(1e-12)  # of flat images: far below the rounding of gray levels


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve of the bank beside the real images', for a figure.

    Args:
        name: of what is drawn.
        x: where.
        x_name: what x is, with its unit.
        bank: the bank's values.
        real: the real images' values.
    """

    name: str
    x: tuple[float, ...]
    x_name: str
    bank: tuple[float, ...]
    real: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"name": self.name, "x_name": self.x_name} | {
            key: [float(f"{value:.5g}") for value in getattr(self, key)] for key in ("x", "bank", "real")
        }


def measure_radiology(
    real: Intensities, bank: Intensities, halves: Sequence[Halving], *, groups: Tensor | None, which: Which, seed: int
) -> tuple[Measured, ...]:
    """Intensity statistics and noise of the bank's images, each beside the real images'.

    Args:
        real: of all real images.
        bank: of all images of the bank.
        halves: to compare histograms and spectra between.
        groups: of the real images; None: each by itself.
        which: the images that the statistics are of, such as those of a class.
        seed: of the bootstrap.
    """
    found = []
    ours, theirs = which
    fine = {"share of fine detail": None}
    for name in (*real.statistics, *fine):
        values = [
            (fine_share(side.spectrum) if name in fine else side.statistics[name])[rows]
            for side, rows in ((bank, ours), (real, theirs))
        ]
        of = None if groups is None else groups[theirs]
        first, second = bootstrap_mean(values[0], seed=seed), bootstrap_mean(values[1], groups=of, seed=seed)
        found.append(
            Measured(
                name=name,
                value=first[0],
                low=first[1],
                high=first[2],
                real=second[0],
                real_low=second[1],
                real_high=second[2],
                better="like real",
                unit="" if name in fine else real.unit,
            )
        )
    if min((len(half.bank) for half in halves), default=0) < 1:
        reason = "a half has no images"
        names = ("histogram distance", "spectrum difference", "fine noise")
        return (*found, *(Measured(name=name, refused=reason) for name in names))

    def over(name: str, unit: str, what: str, number: Distance, *, better: Better = "low") -> Measured:
        left = [getattr(real, what)[half.reference].mean(dim=0) for half in halves]
        ours = [number(getattr(bank, what)[half.bank].mean(dim=0), one) for half, one in zip(halves, left, strict=True)]
        theirs = [
            number(getattr(real, what)[half.real].mean(dim=0), one) for half, one in zip(halves, left, strict=True)
        ]
        return from_draws(name, ours, theirs, better=better, unit=unit)

    found.append(over("histogram distance", real.unit, "histogram", lambda a, b: real.step * histogram_distance(a, b)))
    found.append(over("spectrum difference", "dB", "spectrum", spectral_difference))
    found.append(over("fine noise", "dB", "spectrum", fine_noise, better="like real"))
    return tuple(found)


def curves(real: Intensities, bank: Intensities, which: Which) -> tuple[Curve, Curve]:
    """The histogram and the spectrum of some of the bank's images beside the real ones'."""
    ours, theirs = which
    bins = real.spectrum.shape[1]
    steps = tuple((real.start + real.step * torch.arange(_BINS, dtype=torch.float64)).tolist())
    return (
        Curve(
            name="histogram",
            x=steps,
            x_name=real.unit,
            bank=tuple(bank.histogram[ours].mean(dim=0).tolist()),
            real=tuple(real.histogram[theirs].mean(dim=0).tolist()),
        ),
        Curve(
            name="noise power",
            x=tuple(frequencies(bins).tolist()),
            x_name="cycles per pixel",
            bank=tuple(bank.spectrum[ours].mean(dim=0).tolist()),
            real=tuple(real.spectrum[theirs].mean(dim=0).tolist()),
        ),
    )
