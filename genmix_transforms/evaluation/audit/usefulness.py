"""What a bank teaches: train on synthetic images and test on real ones, and the reverse."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_kinds import Setting
from genmix_transforms.evaluation.audit.measured import Array, Measured, bootstrap
from genmix_transforms.evaluation.confidence import judge_of
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.training import Trained, class_probabilities

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Usefulness:
    """What classifiers of each kind of image know of the other.

    Args:
        overall: balanced accuracies: mean sensitivity over the classes.
        by_class: sensitivities.
    """

    overall: tuple[Measured, ...]
    by_class: Mapping[str, tuple[Measured, ...]]

    @property
    def text(self) -> str:
        """Both numbers in one sentence."""
        return "Balanced accuracy, " + "; ".join(one.text for one in self.overall) + "."

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "overall": [one.to_dict() for one in self.overall],
            "by_class": {name: [one.to_dict() for one in several] for name, several in self.by_class.items()},
        }


def as_patches(bank: SyntheticBank) -> PatchDataset:
    """A bank's images as a data set; of soft labels the most probable class."""
    labels = bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)
    return PatchDataset(images=bank.images.cpu(), labels=labels.cpu(), classes=bank.classes, name="the bank")


def measure_usefulness(
    bank: SyntheticBank,
    splits: Splits,
    *,
    protocol: Protocol,
    judge: tuple[Trained, Setting] | None = None,
    device: torch.device = CPU,
    seed: int = 0,
) -> Usefulness:
    """Train one classifier on the bank and one on the real training part, and test each on the other kind.

    Both are trained for as many steps from the same weights, however many images there are. The real value of both
    numbers is that of real images for real ones: trained on the training part, tested on the test part.

    Args:
        bank: with the classes and the size of the real images.
        splits: train, validation (which chooses the step in both) and test.
        protocol: how; the audit's is ``preset("few-labels")``.
        judge: the classifier of real images, if there is one already, see :func:`judge_of`.
        device: where to train.
        seed: of the bootstrap over test patients and over synthetic images.

    Raises:
        InputError: parts that do not fit together, or a bank of fewer than two classes.
    """
    train, validation, test = splits
    made = as_patches(bank.with_classes(train.classes))
    if made.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"usefulness: the bank's images are {tuple(made.images.shape[1:])}, the real ones "
            f"{tuple(train.images.shape[1:])}: bring them to one size"
        )
    real = judge or judge_of(splits, protocol, device=device)
    synthetic = judge_of((made, validation, test), protocol, device=device)
    answers = {
        "real": _right(real, test),
        "TSTR": _right(synthetic, test),
        "TRTS": _right(real, made),
    }
    sets = {"real": test, "TSTR": test, "TRTS": made}
    names = {"TSTR": "train on synthetic, test on real", "TRTS": "train on real, test on synthetic"}

    def one(key: str, classes: tuple[int, ...]) -> Measured:
        ours, theirs = (
            mean_sensitivity(answers[which], sets[which].labels, sets[which].groups, classes=classes, seed=seed)
            for which in (key, "real")
        )
        return Measured(
            name=names[key], value=ours[0], low=ours[1], high=ours[2],
            real=theirs[0], real_low=theirs[1], real_high=theirs[2],
        )  # fmt: skip

    everything = tuple(range(len(train.classes)))
    return Usefulness(
        overall=tuple(one(key, everything) for key in names),
        by_class={name: tuple(one(key, (number,)) for key in names) for number, name in enumerate(train.classes)},
    )


def mean_sensitivity(
    right: Tensor, labels: Tensor, groups: Tensor | None, *, classes: tuple[int, ...], seed: int
) -> tuple[float, float, float]:
    """Mean over classes of the share that is right, with its 95 % interval over groups.

    Args:
        right: bool ``(N,)``.
        labels: int64 ``(N,)``.
        groups: int64 ``(N,)``, or None.
        classes: those that count; one without images is left out.
        seed: of the bootstrap.

    Example:
        >>> right, labels = torch.tensor([True, True, False, False]), torch.tensor([0, 0, 0, 1])
        >>> round(mean_sensitivity(right, labels, None, classes=(0, 1), seed=0)[0], 3)
        0.333
    """
    here = torch.isin(labels, torch.tensor(classes))
    if not bool(here.any()):
        return float("nan"), float("nan"), float("nan")
    is_right, of = right[here].double().numpy(), labels[here]
    of_class = torch.stack([(of == number).double() for number in classes if bool((of == number).any())], dim=1).numpy()

    def statistic(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            found = (weights * is_right) @ of_class / (weights @ of_class)
        # A draw without any image of a class says nothing of that class.
        known = np.isfinite(found)
        mean: Array = np.where(known, found, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return mean

    return bootstrap(len(of), statistic, groups=None if groups is None else groups[here], seed=seed)


def _right(trained: tuple[Trained, Setting], images: PatchDataset) -> Tensor:
    network, setting = trained
    device = next(network.network.parameters()).device
    return class_probabilities(network.network, images.images.to(device), setting).argmax(dim=1).cpu() == images.labels
