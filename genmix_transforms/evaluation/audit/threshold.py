"""How near is too near: a threshold from what real images of different patients are to each other."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.errors import InputError

_SURE = 10
"""So many images must lie above an order statistic for it to stand for itself; else the tail is drawn on."""

_BODY = (0.5, 0.05)
"""Shares of images above, between which the tail's law is fitted. Real sets have the same image under two patients'
names: up to one in twenty, and the law stays what it is."""


@dataclass(frozen=True)
class Scale:
    """Similarities of one kind on a scale on which those of real images of different patients lie about 0.

    Args:
        middle: the median of their Fisher transforms.
        spread: the distance from there to the value that one in six exceeds.
    """

    middle: float
    spread: float

    @classmethod
    def of(cls, similarity: Tensor) -> "Scale":
        """The scale of the similarities of real images to the most alike of another patient, ``(n,)``."""
        values = _fisher(similarity)
        middle, upper = torch.quantile(values, torch.tensor([0.5, 5 / 6], dtype=values.dtype)).tolist()
        return cls(middle, max(upper - middle, 1e-3))

    def standardized(self, similarity: Tensor) -> Tensor:
        """Float64, as the similarities' shape: how many spreads each lies above the middle."""
        return (_fisher(similarity) - self.middle) / self.spread

    def similarity(self, standardized: Tensor) -> Tensor:
        """The similarity that lies there."""
        return torch.tanh(standardized * self.spread + self.middle)


def _fisher(similarity: Tensor) -> Tensor:
    """Fisher's z, in which a correlation's chance scatter is even. Of 1 it would be infinite."""
    return torch.atanh(similarity.double().cpu().clamp(-0.999995, 0.999995))


def upper_threshold(values: Tensor, share: float) -> float:
    """The value that a share of new images exceeds.

    With images enough it is the order statistic of split conformal prediction: of n images and a new one, each is
    equally likely to be the k-th largest. With fewer the tail is extrapolated: each value is the largest of very many,
    so that it follows Gumbel's law, whose two parameters are fitted to the quantiles between a half and one in twenty.

    Args:
        values: ``(n,)``: each real image's standardized similarity to the most alike image of another patient.
        share: from 0 (no new image at all: above the largest) to below 1.

    Raises:
        InputError: fewer than 2 finite values.

    Source: Vovk et al., "Algorithmic learning in a random world" (2005), section 4; Gumbel, "Statistics of extremes"
    (1958).

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
    shares = torch.linspace(*_BODY, 19, dtype=torch.float64)
    reduced = -torch.log(-torch.log1p(-shares))
    quantiles = torch.quantile(known, 1 - shares)
    slope = float(((reduced - reduced.mean()) * (quantiles - quantiles.mean())).sum()) / float(
        (reduced - reduced.mean()).square().sum()
    )
    return float(quantiles.mean()) + slope * (-math.log(-math.log1p(-share)) - float(reduced.mean()))
