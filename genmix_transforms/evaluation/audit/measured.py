"""A number of an audit beside what real images have among themselves, and its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Better = Literal["low", "high", "like real", "none"]
Array = NDArray[np.float64]

DRAWS = 1000
"""Resamples of a mean's interval."""

_COVERED = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number with its 95 % interval, and the same number of real images among themselves.

    Args:
        name: of the number, as tables show it.
        value: of the bank; NaN where it was refused.
        low: lower end of its 95 % interval.
        high: upper end.
        real: the same of real images against other patients' real images: what a perfect generator would reach.
        real_low: lower end of its interval.
        real_high: upper end.
        better: low: the lower the better; high: the higher; like real: the nearer to the real value; none: a fact.
        unit: of the value; empty for pure numbers.
        refused: why there is no number; empty where there is one.

    Example:
        >>> coverage = Measured(name="coverage", value=0.4, low=0.3, high=0.5, real=0.9, real_low=0.8, real_high=0.95)
        >>> coverage.text
        'coverage: 0.4 (0.3 to 0.5); real images among themselves 0.9 (0.8 to 0.95)'
        >>> coverage.differs
        True
    """

    name: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    real: float = math.nan
    real_low: float = math.nan
    real_high: float = math.nan
    better: Better = "high"
    unit: str = ""
    refused: str = ""

    @property
    def differs(self) -> bool:
        """Whether the two intervals lie apart."""
        return self.low > self.real_high or self.high < self.real_low

    @property
    def text(self) -> str:
        """The number in one sentence."""
        if self.refused:
            return f"{self.name}: not given: {self.refused}"
        unit = f" {self.unit}" if self.unit else ""
        ours = f"{self.name}: {self.value:.3g}{unit} ({self.low:.3g} to {self.high:.3g})"
        if math.isnan(self.real):
            return ours
        return (
            f"{ours}; real images among themselves {self.real:.3g}{unit} ({self.real_low:.3g} to {self.real_high:.3g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: NaN and infinities as None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


def from_draws(
    name: str, ours: Sequence[float], real: Sequence[float], *, better: Better = "high", unit: str = ""
) -> Measured:
    """A number from the values of many halvings: their means, and the middle 95 % of them.

    Half of the images without putting back vary, from draw to draw, as all of them would from one data set to the next.

    Args:
        name: of the number.
        ours: of the bank, a value a draw; NaN where a draw had none.
        real: of real images, a value a draw.
        better: see :class:`Measured`.
        unit: of the value.

    Example:
        >>> from_draws("KID", [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).value
        2.0
    """
    value, low, high = _spread(ours)
    real_value, real_low, real_high = _spread(real)
    if math.isnan(value):
        return Measured(name=name, better=better, unit=unit, refused="no draw had enough images")
    return Measured(
        name=name,
        value=value,
        low=low,
        high=high,
        real=real_value,
        real_low=real_low,
        real_high=real_high,
        better=better,
        unit=unit,
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return math.nan, math.nan, math.nan
    low, high = np.quantile(known, _COVERED)
    return float(known.mean()), float(low), float(high)


def bootstrap(
    count: int, statistic: Callable[[Array], Array], *, groups: Tensor | None, seed: int, draws: int = DRAWS
) -> tuple[float, float, float]:
    """A statistic and its 95 % bootstrap interval over groups, by the percentiles.

    Args:
        count: of images.
        statistic: of weights ``(draws, count)``, how often each image is drawn: a value a row ``(draws,)``.
        groups: int64 ``(count,)``: images of one group (a patient) are drawn together; None: each by itself.
        seed: of the draws.
        draws: how many.

    Returns:
        The value of the images as they are, and the interval's ends.

    Example:
        >>> values = np.array([1.0, 1.0, 1.0])
        >>> bootstrap(3, lambda weights: weights @ values / weights.sum(axis=1), groups=None, seed=0)
        (1.0, 1.0, 1.0)
    """
    of = np.arange(count) if groups is None else torch.unique(groups, return_inverse=True)[1].numpy()
    number = int(of.max()) + 1
    random = np.random.default_rng(seed)
    weights = random.multinomial(number, np.full(number, 1 / number), size=draws)[:, of].astype(np.float64)
    found = statistic(weights)
    low, high = np.quantile(found[np.isfinite(found)], _COVERED) if np.isfinite(found).any() else (math.nan, math.nan)
    return float(statistic(np.ones((1, count)))[0]), float(low), float(high)


def bootstrap_mean(values: Tensor, *, groups: Tensor | None = None, seed: int) -> tuple[float, float, float]:
    """The mean of values ``(N,)`` and its 95 % interval over groups, see :func:`bootstrap`; NaN where there are none.

    Example:
        >>> bootstrap_mean(torch.tensor([0.5, 0.5]), seed=0)
        (0.5, 0.5, 0.5)
    """
    if not len(values):
        return math.nan, math.nan, math.nan
    known = values.double().numpy()
    with np.errstate(invalid="ignore"):
        return bootstrap(len(known), lambda weights: (weights @ known) / weights.sum(axis=1), groups=groups, seed=seed)
