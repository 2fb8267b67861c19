"""What all arms share: the classifier, its schedule, and the options of the mixing arms."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from genmix_transforms.errors import InputError

SCHEDULES = ("cosine", "constant")
PRECISIONS = ("float32", "bf16")
SMALLEST_INPUT = 16
GRID = 5
"""Values that the tuned option of an arm may take, the same number for all arms."""

_POSITIVE = ("learning_rate", "head_factor", "mixup_alpha", "alpha")
_NOT_NEGATIVE = ("weight_decay",)
_COUNTS = {"steps": 1, "batch_size": 2, "validate_every": 1}  # batch normalisation needs two images
_MAYBE_COUNTS = {"patience": 1, "epochs": 1, "input_size": SMALLEST_INPUT}
_SHARES = ("warmup", "real_partner", "p")
_POSITIVE_SHARES = {"blend_share": "baseline", "repeat_share": "baseline", "classical_strength": "baseline"}
_CHOICES = {"schedule": SCHEDULES, "precision": PRECISIONS}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every classifier of a comparison is trained: the same for all arms.

    The defaults suit a few hundred patches of 28 to 128 pixels on two CPU cores, not the paper's VGG-16.

    Args:
        classifier: "small", "efficientnet_lite0", or a classification model of torchvision, see
            :func:`genmix_transforms.evaluation.classifiers.build_classifier`.
        weights: "imagenet", or a file of pre-trained weights; None: random ones.
        input_size: side in pixels to which the classifier enlarges what it is given, on the device; None: as it is.
        steps: optimiser steps, the same number in every arm.
        epochs: passes over the real training set instead of ``steps``: as many steps in every arm as the baseline
            needs for them. There is then a validation after each, and ``validate_every`` does nothing.
        batch_size: images in a step, at least 2.
        learning_rate: of AdamW, the highest.
        head_factor: the last layer's learning rate is so many times that: it is new, the rest may be pre-trained.
        schedule: of the learning rate: "cosine" falls to 0, "constant" stays.
        warmup: share of the steps in which it rises to its highest.
        weight_decay: of AdamW.
        clip_norm: the gradient of a step is shortened to this length where it is longer; None: never. Networks without
            batch normalisation need it: one long step ends their training.
        precision: "float32", or "bf16" arithmetic of the network (weights stay in float32).
        validate_every: steps between two looks at the validation set. The weights with the best macro F1 there are
            tested.
        patience: stop after this many validations in a row without a better one; None: never. Arms then take different
            numbers of steps, and a difference between them may be one of training length.
        flips: flip every training image left to right with probability 0.5, in every arm, synthetic ones included.
        mixup_alpha: of Beta(alpha, alpha), arm "mixup".
        augmix_severity: of the operations, 1 to 10, arm "augmix".
        classical_strength: of flips, rotations and crops, above 0 and at most 1, arm "classical".
        blend_share: the share of synthetic images in the training data, arm "blend": the bracketed percentage of the
            paper's Table 1.
        repeat_share: the share of repeated real images where arm "blend" has synthetic ones, arm "repeat".
        alpha: of Beta(alpha, 1), the arms "genmix"; with the next three see :class:`genmix_transforms.GenMix`.
        pairing: which classes partner which.
        real_partner: share of samples whose partner is a real image.
        p: probability that a sample is mixed.
        tune: values of its one tuned option that every arm tries on the validation part (see
            :mod:`genmix_transforms.evaluation.tuning`), 2 to 5; 0: nothing is tuned.

    Raises:
        InputError: a value out of its range; the message names it.

    Source: Lee, Lee, Hong (arXiv 2405.20650), section 3.1, for the shape of the experiment.

    Example:
        >>> Protocol(steps=100, blend_share=0.4).blend_share
        0.4
    """

    classifier: str = "small"
    weights: str | None = None
    input_size: int | None = None
    steps: int = 600
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    head_factor: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.0
    weight_decay: float = 0.01
    clip_norm: float | None = None
    precision: str = "float32"
    validate_every: int = 25
    patience: int | None = None
    flips: bool = False
    mixup_alpha: float = 0.2
    augmix_severity: int = 3
    classical_strength: float = 0.6
    blend_share: float = 0.5
    repeat_share: float = 0.5
    alpha: float = 0.3
    pairing: str | tuple[tuple[float, ...], ...] = "any"
    real_partner: float = 0.0
    p: float = 1.0
    tune: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.weights, Path):
            object.__setattr__(self, "weights", str(self.weights))
        for name, least in {
            **_COUNTS,
            **{name: least for name, least in _MAYBE_COUNTS.items() if getattr(self, name) is not None},
        }.items():
            _check_count(name, getattr(self, name), least=least)
        _check_count("augmix_severity", self.augmix_severity, least=1, most=10)
        _check_count("tune", self.tune, least=0, most=GRID)
        if self.tune == 1:
            raise InputError("Protocol: tune must be 0 (nothing is tuned) or at least 2 values to choose from, got 1")
        for name in (*_POSITIVE, *_NOT_NEGATIVE, *_SHARES, *_POSITIVE_SHARES):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise InputError(f"Protocol: {name} must be a number, got {value!r}")
        if self.clip_norm is not None and not (
            isinstance(self.clip_norm, (int, float)) and 0 < self.clip_norm < float("inf")
        ):
            raise InputError(f"Protocol: clip_norm must be a positive number or None, got {self.clip_norm!r}")
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
        for name, without in _POSITIVE_SHARES.items():
            if not 0 < getattr(self, name) <= 1:
                raise InputError(
                    f"Protocol: {name} must be above 0 and at most 1, got {getattr(self, name)}; "
                    f"0 is the arm {without!r}"
                )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"Protocol: {name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not isinstance(self.pairing, str):
            object.__setattr__(self, "pairing", _as_tuples(self.pairing))

    def for_training_set(self, images: int) -> "Protocol":
        """The same in steps, for so many real training images; without ``epochs``, itself.

        Example:
            >>> Protocol(epochs=100, batch_size=8).for_training_set(681).steps
            8600
        """
        if self.epochs is None:
            return self
        steps = math.ceil(images / self.batch_size)
        return replace(self, epochs=None, steps=self.epochs * steps, validate_every=steps)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON can hold them."""
        return {
            **asdict(self),
            "pairing": self.pairing if isinstance(self.pairing, str) else [list(row) for row in self.pairing],
        }


def _check_count(name: str, value: object, *, least: int, most: int | None = None) -> None:
    allowed = f"at least {least}" if most is None else f"from {least} to {most}"
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        raise InputError(f"Protocol: {name} must be a whole number, {allowed}, got {value!r}")


def _as_tuples(matrix: Tensor | Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """A pairing matrix as tuples: a frozen protocol can be hashed, and holds nothing that somebody else may change."""
    rows = matrix.tolist() if isinstance(matrix, Tensor) else matrix
    try:
        return tuple(tuple(float(value) for value in row) for row in rows)
    except (TypeError, ValueError) as error:
        raise InputError(f"Protocol: pairing must be a name or a matrix of numbers, got {matrix!r}") from error
