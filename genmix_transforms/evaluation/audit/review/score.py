"""The score of a visual Turing test, with its interval."""

import math
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054
"""The 0.975 quantile of the normal distribution."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, JASA 22, 1927, 209-212), also for few trials or near 0 and 1.

    Args:
        successes: from 0 to ``trials``.
        trials: at least 1.

    Example:
        >>> low, high = wilson_interval(50, 100)
        >>> round(low, 4), round(high, 4)
        (0.4038, 0.5962)
    """
    share, z2 = successes / trials, Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # At the ends the formula gives exactly 0 and 1, but for the rounding.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == trials else middle + half)


@dataclass(frozen=True, kw_only=True)
class TuringScore:
    """What a reader has taken for real.

    Args:
        real: real images shown.
        synthetic: synthetic images shown.
        real_called_real: of the real ones.
        synthetic_called_real: of the synthetic ones: those that deceived.

    Example:
        >>> score = TuringScore(real=50, synthetic=50, real_called_real=30, synthetic_called_real=22)
        >>> score.right, round(score.accuracy, 2), score.is_better_than_chance
        (58, 0.58, False)
    """

    real: int
    synthetic: int
    real_called_real: int
    synthetic_called_real: int

    @property
    def shown(self) -> int:
        """All images."""
        return self.real + self.synthetic

    @property
    def right(self) -> int:
        """Answers that were true."""
        return self.real_called_real + self.synthetic - self.synthetic_called_real

    @property
    def accuracy(self) -> float:
        """Share of true answers, 0 to 1; whoever guesses has 0.5 of as many real as synthetic images."""
        return self.right / self.shown

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval, see :func:`wilson_interval`."""
        return wilson_interval(self.right, self.shown)

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the interval lies above 0.5."""
        return self.interval[0] > 0.5

    @property
    def text(self) -> str:
        """The score in a sentence."""
        low, high = self.interval
        if self.is_better_than_chance:
            meaning = "real and synthetic were told apart"
        elif high < 0.5:
            meaning = "they were told apart, and taken for each other"
        else:
            meaning = f"that is not distinguishable from guessing (50 %) with {self.shown} images"
        return (
            f"{self.right} of {self.shown} right, {_percent(self.accuracy)} "
            f"(95 % interval {_percent(low)} to {_percent(high)}): {meaning}; "
            f"{self.real_called_real} of {self.real} real and {self.synthetic_called_real} of {self.synthetic} "
            "synthetic images were called real"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "real": self.real,
            "synthetic": self.synthetic,
            "real_called_real": self.real_called_real,
            "synthetic_called_real": self.synthetic_called_real,
            "right": self.right,
            "accuracy": self.accuracy,
            "accuracy_interval_95": list(self.interval),
        }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
