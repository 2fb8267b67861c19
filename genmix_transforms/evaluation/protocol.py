"""The protocol of all arms: the classifier, its schedule, and the options of the mixing arms; named presets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

from genmix_transforms.errors import InputError
from genmix_transforms.generators.settings import FAST_MATH_HELP, LARGEST_BATCH, LONGEST
from genmix_transforms.settings import Settings, option
from genmix_transforms.transforms.pairing_names import PairingName

SMALLEST_INPUT, LARGEST_INPUT = 16, 4096
BUDGET = 32
"""Trainings that a recipe is chosen by, unless somebody says otherwise."""

GRID = 5
"""Values that the tuned option of an arm may take, the same number for all arms."""

_ARMS = "Arms"
_ONLY_REAL_AT_0 = ("classical_strength", "blend_share", "repeat_share", "pretrain_part", "mixing_part")


@dataclass(frozen=True, kw_only=True)
class Protocol(Settings):
    """How every classifier of a comparison is trained. It is the same for all arms.

    The defaults suit a few hundred patches of 28 to 128 pixels on two CPU cores, not the paper's VGG-16.
    ``print(Protocol.table())`` lists the settings.

    Raises:
        InputError: a value out of its range; the message names it.

    Source: Lee, Lee, Hong (arXiv 2405.20650), section 3.1, for the shape of the experiment.

    Example:
        >>> Protocol(steps=100, blend_share=0.4).blend_share
        0.4
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    preset: str = option(
        "scratch",
        help="Named values: a small network from random weights; the paper's VGG-16 for 100 epochs; a small "
        "pre-trained network on a CPU; the paper's, made fast on a GPU; or a small one for 5 to 100 labels per class.",
    )
    classifier: str = option(
        "small",
        help="small, efficientnet_lite0, or the name of a torchvision classification model (resnet18, vgg16, ...).",
    )
    weights: str | None = option(
        None, help="imagenet, or a file of pre-trained weights; none: random weights, new for each seed."
    )
    input_size: int | None = option(
        None,
        help="Side in pixels to which the classifier enlarges patches, on the device; none: no resizing.",
        least=SMALLEST_INPUT,
        most=LARGEST_INPUT,
    )
    steps: int = option(600, help="Optimizer steps, the same number in every arm.", least=1, most=LONGEST)
    epochs: int | None = option(
        None,
        help="Passes over the real training set instead of steps: every arm takes the steps that the baseline needs "
        "for them, with a validation after each.",
        least=1,
        most=LONGEST,
        rare=True,
    )
    # Batch normalization needs two images.
    batch_size: int = option(32, help="Images in a step.", least=2, most=LARGEST_BATCH)
    learning_rate: float = option(1e-3, help="Peak learning rate of AdamW.", above=0, most=10)
    head_factor: float = option(
        1.0,
        help="Factor for the learning rate of the last layer, which is new while the others may be pre-trained.",
        above=0,
        rare=True,
    )
    schedule: Literal["cosine", "constant"] = option(
        "cosine", help="Schedule of the learning rate: it falls to 0, or stays constant.", rare=True
    )
    warmup: float = option(
        0.0, help="Share of the steps in which the learning rate rises to its peak.", least=0, most=1, rare=True
    )
    weight_decay: float = option(0.01, help="Weight decay of AdamW.", least=0, rare=True)
    clip_norm: float | None = option(
        None,
        help="The gradient of a step is clipped to this norm; none: never. Networks without "
        "batch normalization need it: one long step ends their training.",
        above=0,
        rare=True,
    )
    precision: Literal["float32", "bf16"] = option(
        "float32", help="Precision of the network's arithmetic; its weights stay in float32.", rare=True
    )
    fast_math: bool = option(True, help=FAST_MATH_HELP, rare=True)
    validate_every: int = option(
        25,
        help="Steps between two validations. The weights with the best macro F1 on the validation set are tested.",
        least=1,
        rare=True,
    )
    patience: int | None = option(
        None,
        help="Stop after this many validations in a row without improvement; none: never. Arms then take different "
        "numbers of steps, and a difference between them may come from the length of the training.",
        least=1,
        rare=True,
    )
    flips: bool = option(False, help="Mirror half of the training images, in every arm, including synthetic ones.")
    pool_weights: str | None = option(
        None,
        help="pool: the file of weights that the classifier starts from, such as genmix pretrain-classifier writes.",
        panel=_ARMS,
    )
    mixup_alpha: float = option(0.2, help="mixup: lambda ~ Beta(alpha, alpha).", above=0, panel=_ARMS)
    augmix_severity: int = option(
        3, help="augmix: severity of the operations.", least=1, most=10, rare=True, panel=_ARMS
    )
    classical_strength: float = option(
        0.6, help="classical: strength of flips, rotations and crops.", above=0, most=1, rare=True, panel=_ARMS
    )
    blend_share: float = option(
        0.5,
        help="blend: share of synthetic images in the training data, the bracketed percentage of the paper's Table 1.",
        above=0,
        most=1,
        panel=_ARMS,
    )
    repeat_share: float = option(
        0.5,
        help="repeat: share of repeated real images, where blend has synthetic ones.",
        above=0,
        most=1,
        rare=True,
        panel=_ARMS,
    )
    synthetic_weight: float = option(
        1.0,
        help="blend: weight of the loss of a synthetic image; a real one has 1.",
        above=0,
        most=100,
        rare=True,
        panel=_ARMS,
    )
    aux_norm: bool = option(
        False,
        help="blend: use separate batch normalization for synthetic images in training, which is dropped in the test.",
        rare=True,
        panel=_ARMS,
    )
    balance: Literal["off", "equal", "fill"] = option(
        "off",
        help="blend, blend-mixup, pretrain: classes of the bank are drawn as it has them (off), equally often (equal), "
        "or by what the training set lacks (fill).",
        rare=True,
        panel=_ARMS,
    )
    keep: float = option(
        1.0,
        help="Arms with a bank: share of each of its classes that is kept.",
        above=0,
        most=1,
        rare=True,
        panel=_ARMS,
    )
    keep_by: Literal["confidence", "random"] = option(
        "confidence",
        help="Which images keep keeps: those with the highest confidence of the baseline, trained on the training "
        "part; or, as a control, the same number at random.",
        rare=True,
        panel=_ARMS,
    )
    pretrain_part: float = option(
        0.5,
        help="pretrain, pretrain-repeat: share of the steps on synthetic (repeated) images only, before real ones.",
        above=0,
        below=1,
        rare=True,
        panel=_ARMS,
    )
    mixing_part: float = option(
        0.5,
        help="genmix-first: share of the steps that mix, before unmixed real images.",
        above=0,
        below=1,
        rare=True,
        panel=_ARMS,
    )
    alpha: float = option(0.3, help="genmix: lambda ~ Beta(alpha, 1).", above=0, panel=_ARMS)
    pairing: PairingName | Any = option(  # noqa: RUF009
        "any", help="genmix: which classes are paired; in Python also a matrix.", panel=_ARMS
    )
    real_partner: float = option(
        0.0, help="genmix: share of samples mixed with another real image.", least=0, most=1, panel=_ARMS
    )
    p: float = option(1.0, help="genmix: probability that a sample is mixed.", least=0, most=1, rare=True, panel=_ARMS)
    tune: int = option(
        0,
        help="Number of values of its option that every arm tries on the validation part, 2 to 5; 0: no tuning.",
        least=0,
        most=GRID,
        panel=_ARMS,
    )

    def __post_init__(self) -> None:
        for name in _ONLY_REAL_AT_0:
            if getattr(self, name) == 0:
                most = "below" if name.endswith("_part") else "at most"
                raise InputError(f"{name} must be above 0 and {most} 1, got 0: that is the arm 'baseline'")
        super().__post_init__()

    def check(self) -> None:
        """Check the tuning, and make plain numbers of a pairing matrix."""
        if self.tune == 1:
            raise InputError("tune must be 0 (nothing is tuned) or at least 2 values to choose from, got 1")
        if isinstance(self.pairing, str):
            if self.pairing not in get_args(PairingName):
                raise InputError(f"pairing must be one of {', '.join(get_args(PairingName))}, got {self.pairing!r}")
        else:
            object.__setattr__(self, "pairing", _as_tuples(self.pairing))

    @classmethod
    def of(cls, given: Mapping[str, Any], *, name: str) -> Self:
        """See :meth:`Settings.of`. Whoever gives steps wants steps, also where the preset counts epochs."""
        if "steps" in given and "epochs" not in given:
            given = {**given, "epochs": None}
        return super().of(given, name=name)

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
        """The settings as JSON can hold them, without the preset's name: what it sets says it all."""
        return {name: value for name, value in self.to_json().items() if name != "preset"}


# Section 3.1 of Lee, Lee, Hong (arXiv 2405.20650): VGG-16 with ImageNet weights, 100 epochs of batches of 8 at 0.0002,
# stopped early after 20 epochs. The paper names neither optimizer nor schedule: here AdamW without weight decay, that
# is Adam, and a constant rate. It searches blend's share; here every arm searches its own option in as many values.
_PAPER: Mapping[str, Any] = {
    "classifier": "vgg16",
    "weights": "imagenet",
    "epochs": 100,
    "batch_size": 8,
    "learning_rate": 2e-4,
    "schedule": "constant",
    "weight_decay": 0.0,
    "patience": 20,
    "tune": GRID,
}
# One arm and seed in about half a minute of one core: EfficientNet-Lite0 with ImageNet weights.
_SMALL: Mapping[str, Any] = {
    "classifier": "efficientnet_lite0",
    "weights": "imagenet",
    "input_size": 96,
    "steps": 150,
    "batch_size": 16,
    "learning_rate": 3e-4,
    "head_factor": 10.0,
    "warmup": 0.1,
    "clip_norm": 1.0,
    "validate_every": 30,
    "tune": 3,
}
_FAST: Mapping[str, Any] = {**_PAPER, "precision": "bf16"}
# 5 to 100 labels a class on a CPU, with the small network. Chosen on validation images of the lesion phantom, 32 pixels
# (docs/how-to/compare.md): steps, batch size and weight decay make no difference there that chance does not, so batches
# fit 5 labels of each of two classes. Of a validation part that is as small as the training part the best of many looks
# is mostly luck: the last weights are better.
_FEW_LABELS: Mapping[str, Any] = {"steps": 400, "batch_size": 8, "validate_every": LONGEST}
_SCRATCH = {setting.name: setting.default for setting in Protocol.options() if setting.name in {**_SMALL, **_FAST}}
Protocol.PRESETS = {
    "scratch": _SCRATCH,
    "paper": _PAPER,
    "small": _SMALL,
    "fast": _FAST,
    "few-labels": {**_SCRATCH, **_FEW_LABELS},
}


def preset(name: str, **changes: Any) -> Protocol:
    """A protocol by name, with changes.

    Args:
        name: "paper", "small", "fast", "few-labels", or "scratch", the defaults of :class:`Protocol`.
        **changes: fields of :class:`Protocol`.

    Raises:
        InputError: no such preset or field, or a value out of its range.

    Example:
        >>> preset("paper", tune=0).epochs
        100
    """
    return Protocol.of({"preset": name, **changes}, name="preset")


def _as_tuples(matrix: Any) -> tuple[tuple[float, ...], ...]:
    """A pairing matrix as tuples: a frozen protocol can be hashed, and holds nothing that somebody else may change."""
    rows: Sequence[Sequence[float]] = matrix.tolist() if hasattr(matrix, "tolist") else matrix
    try:
        return tuple(tuple(float(value) for value in row) for row in rows)
    except (TypeError, ValueError) as error:
        raise InputError(f"pairing must be a name or a matrix of numbers, got {matrix!r}") from error
