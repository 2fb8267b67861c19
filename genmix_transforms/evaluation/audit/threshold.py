"""How near is too near: a threshold from what real images of different patients are to each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from genmix_transforms.errors import InputError

_SURE = 10
"""So many images must lie above an order statistic for it to stand for itself; else the tail is drawn on."""

_BODY = (0.5, 0.05)
"""Shares of images above, between which the tail's law is fitted."""

_MIDDLE = (0.8, 0.2)
"""The same where some of the images may be doubles of others."""

_SELDOM = 1e-3
"""What one of so many real images would exceed, or one of two sets of their size, is no image of another patient."""

_NOTHING = -1e6
"""How far an image stands out that is like nothing, in whatever family: its distance is the largest."""

_FOLDS = 20
"""Parts of the real images, each of which is measured on a scale that the others set."""

_SIMULATED = 2000
"""Sets of values, drawn from Gumbel's law, that say how far its fitted parameters are off."""

_LEAST_USUAL = 0.5
"""Of what is usual among real images: an image that is like nothing is not held against less."""


@dataclass(frozen=True)
class Scale:
    """How far an image stands out: how much more like one reference it is than it is like others by chance.

    A search gives each image's likeness to the most alike reference, and its usual likeness to others, both as Fisher's
    z. Their quotient is the same for smooth and rough, dark and noisy images. It is brought to a scale on which real
    images of different patients lie about 0.

    Args:
        usual: the median of the usual likeness of real images.
        middle: the median of their quotients.
        spread: the distance from there to the value that one in six exceeds.

    Source: as scores of speakers are made comparable (Auckenthaler et al., "Score normalization for text-independent
    speaker verification systems", 2000), by what a query is to a cohort of others.
    """

    usual: float
    middle: float
    spread: float

    @classmethod
    def of(cls, likeness: Tensor, usual: Tensor) -> "Scale":
        """The scale of real images that were held against those of other patients.

        Args:
            likeness: ``(n,)``: to the most alike image of another patient; -1: there was none.
            usual: ``(n,)``: to others.
        """
        there = (likeness >= 0) & (usual > 0)
        usually = float(usual[there].double().median()) if there.any() else 1.0
        values = _quotient(likeness, usual, usually)[there if there.any() else likeness >= 0]
        if not len(values):
            return cls(usually, 0.0, 1.0)
        middle, upper = torch.quantile(values, torch.tensor([0.5, 5 / 6], dtype=values.dtype)).tolist()
        return cls(usually, middle, max(upper - middle, 1e-3))

    def standardized(self, likeness: Tensor, usual: Tensor) -> Tensor:
        """Float64 ``(N,)``: how many spreads each quotient lies above the middle; -inf: there was nothing like it."""
        found = (_quotient(likeness, usual, self.usual) - self.middle) / self.spread
        found = found.masked_fill(likeness.cpu() == 0, _NOTHING)
        return found.masked_fill(likeness.cpu() < 0, -torch.inf)

    def similarity(self, standardized: Tensor) -> Tensor:
        """The correlation that stands out so far from what is usual, from 0 to 1; of -inf it is -1."""
        likeness = (standardized * self.spread + self.middle).clamp_min(0) * self.usual
        return torch.tanh(likeness).masked_fill(standardized == -torch.inf, -1.0)


def _quotient(likeness: Tensor, usual: Tensor, usually: float) -> Tensor:
    beside = torch.where(usual > 0, usual, torch.full_like(usual, usually)).cpu().double()
    return likeness.cpu().double().clamp_min(0) / beside.clamp_min(max(_LEAST_USUAL * usually, 1e-3))


def doubles(values: Tensor) -> Tensor:
    """Which real images are the same as one of another patient: real sets have one image under two patients' names.

    Args:
        values: ``(n,)``: each real image's standardized likeness to the most alike image of another patient.

    Returns:
        Bool ``(n,)``: those beyond what the law of the others would give one of 1,000 images, or one of two such sets.

    Source: BUSI is such a set (Pawlowska et al., "Letter to the Editor. Re: Dataset of breast ultrasound images", Data
    in Brief, 2023).
    """
    known = values[values.isfinite()].double()
    if len(known) < 2:
        return torch.zeros_like(values, dtype=torch.bool)
    middle, spread = _law(known, _MIDDLE)
    # Of few images the law is hardly known: by two standard errors of its spread the benefit of the doubt is theirs.
    spread *= 1 + 2 / math.sqrt(len(known))
    return (values > _tail(middle, spread, min(_SELDOM, 0.5 / len(known)))) & values.isfinite()


def _law(values: Tensor, body: tuple[float, float]) -> tuple[float, float]:
    """Gumbel's two parameters, fitted to quantiles."""
    middle, spread = _laws(values[None], body)
    return float(middle), float(spread)


def _laws(values: Tensor, body: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The same of several sets of values ``(sets, n)`` at a time."""
    shares = torch.linspace(*body, 19, dtype=torch.float64)
    reduced = -torch.log(-torch.log1p(-shares))
    quantiles = torch.quantile(values, 1 - shares, dim=1)
    away = reduced - reduced.mean()
    spread = away @ (quantiles - quantiles.mean(dim=0)) / away.square().sum()
    return quantiles.mean(dim=0) - spread * reduced.mean(), spread


def _tail(middle: float, spread: float, share: float) -> float:
    return middle - spread * math.log(-math.log1p(-share))


@lru_cache(maxsize=64)
def _spreads_above(n: int, share: float) -> float:
    """How many fitted spreads above the fitted middle a share of new values lies, on average over sets of n values."""
    random = torch.Generator().manual_seed(0)
    uniform = torch.rand(_SIMULATED, n, generator=random, dtype=torch.float64).clamp_min(1e-12)
    middle, spread = _laws(-torch.log(-torch.log(uniform)), _BODY)

    def beyond(spreads: float) -> float:
        return float(-torch.expm1(-torch.exp(-(middle + spreads * spread))).mean())

    low, high = 0.0, 1.0
    while beyond(high) > share:
        low, high = high, 2 * high
    for _ in range(40):
        half = (low + high) / 2
        low, high = (half, high) if beyond(half) > share else (low, half)
    return high


def upper_threshold(values: Tensor, share: float) -> float:
    """The value that a share of new images exceeds, on average over sets of real images of this size.

    With images enough it is the order statistic of split conformal prediction: of n images and a new one, each is
    equally likely to be the k-th largest. With fewer the tail is extrapolated: each value is the largest of very many,
    so that it follows Gumbel's law, whose two parameters are fitted to the quantiles between a half and one in twenty.
    Parameters that are fitted to few images are off, and would let too many new images exceed the law's own quantile;
    the threshold is therefore that of prediction, higher by what simulated sets of n values ask for.

    Args:
        values: ``(n,)``: each real image's standardized similarity to the most alike image of another patient.
        share: from 0 (no new image at all: above the largest) to below 1.

    Raises:
        InputError: fewer than 2 finite values.

    Source: Vovk et al., "Algorithmic learning in a random world" (2005), section 4; Gumbel, "Statistics of extremes"
    (1958); limits of prediction as in Lawless, "Statistical models and methods for lifetime data" (2003).

    Example:
        >>> upper_threshold(torch.arange(999.0), 0.05)
        949.0
    """
    known = values[values.isfinite()].double().sort().values
    n = len(known)
    if n < 2:
        raise InputError(f"a threshold takes the distances of at least 2 real images, got {n}")
    if share == 0:
        return math.nextafter(float(known[-1]), math.inf)
    above = math.floor(share * (n + 1))
    if above >= _SURE:
        return float(known[n - above])
    middle, spread = _law(known, _BODY)
    return middle + spread * _spreads_above(n, share)


@dataclass(frozen=True)
class Law:
    """What real images of different patients are to each other.

    Args:
        scales: of each family of parts, and of features.
        among_real: float64 ``(n,)``: how far each training image stands out, in the family where it does most, on
            scales that it had no part in, as a new image has none.
        double: bool ``(n,)``: which of them are the same as one of another patient.
    """

    scales: tuple[Scale, ...]
    among_real: Tensor
    double: Tensor

    @classmethod
    def of(cls, own: Sequence[tuple[Tensor, Tensor]]) -> "Law":
        """From likeness and usual likeness of training images, of each family, to those of other patients."""
        apart = torch.ones(len(own[0][0]), dtype=torch.bool)
        for _ in range(2):  # what doubles are is known better once they do not count
            scales = _scales(own, apart)
            among = _standing_of_others(own, apart)
            apart = ~doubles(among)
        return cls(scales, among, ~apart)

    def limit(self, share: float) -> float:
        """How far a share of new patients' images stand out, or further."""
        return upper_threshold(self.among_real[~self.double], share)

    def standing(self, found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """How far images stand out, from their likeness and usual likeness in each family; ``(families, N)``."""
        return _standing(self.scales, found)

    def distance(self, standing: Tensor) -> Tensor:
        """From how far images stand out to distances, float32; infinite where there was nothing to compare with."""
        similarity = self.scales[0].similarity(standing)
        distance = (2 - 2 * similarity.clamp(0, 1)).sqrt()
        # What rounding makes of 1 + 1 - 2 is no distance.
        distance = torch.where(distance < 4e-3, torch.zeros_like(distance), distance)
        return distance.masked_fill(similarity < 0, torch.inf).float()


def _scales(own: Sequence[tuple[Tensor, Tensor]], some: Tensor) -> tuple[Scale, ...]:
    return tuple(Scale.of(likeness[some], usual[some]) for likeness, usual in own)


def _standing_of_others(own: Sequence[tuple[Tensor, Tensor]], apart: Tensor) -> Tensor:
    """How far each image stands out on scales that the other folds set (cross-fitting).

    On a scale that an image helped to set it stands out less than a new one would, in whatever family.
    """
    count = len(apart)
    # Neighbors stay together: a patient's images stand side by side.
    fold = torch.arange(count) * _FOLDS // count
    among = torch.empty(count, dtype=torch.float64)
    for number in fold.unique().tolist():
        here = fold == number
        scales = _scales(own, apart & ~here)
        among[here] = _standing(scales, [(likeness[here], usual[here]) for likeness, usual in own]).amax(dim=0)
    return among


def _standing(scales: Sequence[Scale], found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How far images stand out in each family, float64 ``(families, N)``."""
    return torch.stack(
        [scale.standardized(likeness, usual) for scale, (likeness, usual) in zip(scales, found, strict=True)]
    )
