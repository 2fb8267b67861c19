"""What all arms share: the classifier, its schedule, and the options of the mixing arms."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from genmix_transforms.errors import InputError

_POSITIVE = ("learning_rate", "mixup_alpha", "alpha")
_NOT_NEGATIVE = ("weight_decay",)
_COUNTS = {"steps": 1, "batch_size": 2, "validate_every": 1}  # batch normalisation needs two images
_SHARES = ("real_partner", "p")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every classifier of a comparison is trained: the same for all arms.

    The defaults suit a few hundred patches of 28 to 128 pixels on two CPU cores, not the paper's VGG-16.

    Args:
        classifier: "small", or a classification model of torchvision, see
            :func:`genmix_transforms.evaluation.classifiers.build_classifier`.
        steps: optimiser steps, the same number in every arm.
        batch_size: images in a step, at least 2.
        learning_rate: of AdamW at the first step; it falls to 0 along a cosine.
        weight_decay: of AdamW.
        validate_every: steps between two looks at the validation set. The weights with the best macro F1 there are
            tested.
        patience: stop after this many validations in a row without a better one; None: never. Arms then take different
            numbers of steps, and a difference between them may be one of training length.
        flips: flip every training image left to right with probability 0.5, in every arm, synthetic ones included.
        mixup_alpha: of Beta(alpha, alpha), arm "mixup".
        blend_share: the share of synthetic images in the training data, arm "blend": the bracketed percentage of the
            paper's Table 1.
        alpha: of Beta(alpha, 1), arm "genmix"; with the next three see :class:`genmix_transforms.GenMix`.
        pairing: which classes partner which.
        real_partner: share of samples whose partner is a real image.
        p: probability that a sample is mixed.

    Raises:
        InputError: a value out of its range; the message names it.

    Source: Lee, Lee, Hong (arXiv 2405.20650), section 3.1, for the shape of the experiment.

    Example:
        >>> Protocol(steps=100, blend_share=0.4).blend_share
        0.4
    """

    classifier: str = "small"
    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    validate_every: int = 25
    patience: int | None = None
    flips: bool = False
    mixup_alpha: float = 0.2
    blend_share: float = 0.5
    alpha: float = 0.3
    pairing: str | tuple[tuple[float, ...], ...] = "any"
    real_partner: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        for name, least in {**_COUNTS, **({} if self.patience is None else {"patience": 1})}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"Protocol: {name} must be a whole number, at least {least}, got {value!r}")
        for name in (*_POSITIVE, *_NOT_NEGATIVE, *_SHARES, "blend_share"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise InputError(f"Protocol: {name} must be a number, got {value!r}")
        # Written so that NaN fails every one of them.
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"Protocol: {name} must be positive, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"Protocol: {name} must not be negative, got {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Protocol: {name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.blend_share <= 1:
            raise InputError(
                f"Protocol: blend_share must be above 0 and at most 1, got {self.blend_share}; "
                "a share of 0 is the arm 'baseline'"
            )
        if not isinstance(self.pairing, str):
            object.__setattr__(self, "pairing", _as_tuples(self.pairing))

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON can hold them."""
        return {
            **asdict(self),
            "pairing": self.pairing if isinstance(self.pairing, str) else [list(row) for row in self.pairing],
        }


def _as_tuples(matrix: Tensor | Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """A pairing matrix as tuples: a frozen protocol can be hashed, and holds nothing that somebody else may change."""
    rows = matrix.tolist() if isinstance(matrix, Tensor) else matrix
    try:
        return tuple(tuple(float(value) for value in row) for row in rows)
    except (TypeError, ValueError) as error:
        raise InputError(f"Protocol: pairing must be a name or a matrix of numbers, got {matrix!r}") from error
