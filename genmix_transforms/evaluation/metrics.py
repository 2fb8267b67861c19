"""The scores of a classifier on a test set, over all classes and for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores as fractions from 0 to 1; NaN where a score has no meaning.

    Args:
        accuracy: share of test images classified rightly.
        macro_f1: mean F1 over the classes, each counting the same; classes that occur neither in the test set nor among
            the predictions are left out.
        balanced_accuracy: mean sensitivity over the classes that the test set has.
        auc: area under the ROC curve of each class against the others, mean over the classes that the test set has
            (and has not only); NaN where no probabilities are known.
        sensitivity: of each class; NaN for a class that the test set does not have.
        specificity: of each class; NaN for a class that all of the test set has.
        confusion: images by true class (row) and predicted class (column); empty where an image has several labels.
        auc_by_class: where an image has several labels: the AUC of each; NaN for a class that all or none have.

    Where an image has several labels (:func:`score_several`), each class is a question of its own, yes or no:
    ``accuracy`` is the share of right answers, ``balanced_accuracy`` the mean over the classes of sensitivity and
    specificity.
    """

    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    auc: float = math.nan
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    auc_by_class: tuple[float, ...] = ()

    def by_name(self, classes: Sequence[str]) -> dict[str, float]:
        """Every score but the confusion, by a name: ``accuracy``, ... ``sensitivity_cyst``, ``specificity_cyst``."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "balanced_accuracy": self.balanced_accuracy,
            "auc": self.auc,
            **{
                f"{kind}_{name}": values[number]
                for number, name in enumerate(classes)
                for kind, values in (("sensitivity", self.sensitivity), ("specificity", self.specificity))
            },
            **{f"auc_{name}": value for name, value in zip(classes, self.auc_by_class, strict=False)},
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: NaN as None."""
        found: dict[str, Any] = plain_data(self)
        return found

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Scores":
        """The inverse of :meth:`to_dict`."""
        return cls(
            accuracy=float(content["accuracy"]),
            macro_f1=_or_nan(content["macro_f1"]),
            balanced_accuracy=_or_nan(content["balanced_accuracy"]),
            auc=_or_nan(content["auc"]),
            sensitivity=tuple(_or_nan(value) for value in content["sensitivity"]),
            specificity=tuple(_or_nan(value) for value in content["specificity"]),
            confusion=tuple(tuple(int(value) for value in row) for row in content["confusion"]),
            auc_by_class=tuple(map(_or_nan, content.get("auc_by_class", ()))),
        )


def plain_data(value: Any) -> Any:
    """What JSON can hold of a dataclass and all that is in it: its fields by name, tuples as lists, NaN as None."""
    if is_dataclass(value):
        found = {field.name: plain_data(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Scores) and not value.auc_by_class:  # of one label an image, as earlier releases write it
            del found["auc_by_class"]
        return found
    if isinstance(value, Mapping):
        return {name: plain_data(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def score(predictions: Tensor, labels: Tensor, *, num_classes: int, probabilities: Tensor | None = None) -> Scores:
    """Compare predicted classes with the true ones.

    Args:
        predictions: int64 ``(N,)``, in 0 to ``num_classes`` - 1.
        labels: likewise.
        num_classes: K, at least 2.
        probabilities: of the classes, floats ``(N, K)``, for the AUC; None: it is NaN.

    Raises:
        InputError: nothing to compare, values that are no classes, or probabilities that are none.

    Source of the AUC: Mann and Whitney (1947), the share of pairs in which the image of the class is ranked higher;
    ties count as a half.

    Example:
        >>> scores = score(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]), num_classes=2)
        >>> scores.accuracy, scores.sensitivity[1], scores.confusion
        (0.75, 1.0, ((2, 1), (0, 1)))
    """
    _check(predictions, labels, num_classes)
    if probabilities is not None:
        _check_probabilities(probabilities, len(labels), num_classes)
    confusion = torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).cpu()
    confusion = confusion.reshape(num_classes, num_classes)
    counts = confusion.double()
    hits, support, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    others = len(labels) - support
    sensitivity = hits / support  # 0 / 0 is NaN: no score of a class that is not there
    specificity = (others - (predicted - hits)) / others
    f1 = 2 * hits / (support + predicted)
    return Scores(
        accuracy=float(hits.sum() / len(labels)),
        macro_f1=float(f1.nanmean()),
        balanced_accuracy=float(sensitivity.nanmean()),
        sensitivity=tuple(sensitivity.tolist()),
        specificity=tuple(specificity.tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        auc=math.nan if probabilities is None else _auc(probabilities, labels, num_classes),
    )


def score_several(predictions: Tensor, targets: Tensor, *, probabilities: Tensor | None = None) -> Scores:
    """Compare predicted labels with the true ones, where an image has any number of them.

    Args:
        predictions: ``(N, K)``, 0 or 1, any integer type.
        targets: likewise.
        probabilities: floats ``(N, K)``, for the AUC; None: it is NaN.

    Raises:
        InputError: nothing to compare, values other than 0 and 1, or probabilities that are none.

    Example:
        >>> scores = score_several(torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([[1, 0], [0, 1], [0, 0]]))
        >>> round(scores.macro_f1, 3), scores.sensitivity, scores.specificity
        (0.833, (1.0, 1.0), (0.5, 1.0))
    """
    if predictions.shape != targets.shape or targets.ndim != 2 or not targets.numel():
        raise InputError(
            f"predictions and targets must be of one shape (N, K), not empty, got {tuple(predictions.shape)} and "
            f"{tuple(targets.shape)}"
        )
    predictions, targets = predictions.long(), targets.long()
    for name, tensor in (("predictions", predictions), ("targets", targets)):
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            raise InputError(f"{name} must be 0 or 1, got {int(tensor.min())} to {int(tensor.max())}")
    count, classes = targets.shape
    if probabilities is not None:
        _check_probabilities(probabilities, count, classes)
    right = predictions == targets
    # Doubles, in which a share without a denominator is NaN: a score that has no meaning.
    hits, misses = ((targets == 1) & right).sum(dim=0).double(), ((targets == 1) & ~right).sum(dim=0).double()
    passes, alarms = ((targets == 0) & right).sum(dim=0).double(), ((targets == 0) & ~right).sum(dim=0).double()
    sensitivity = (hits / (hits + misses)).cpu()
    specificity = (passes / (passes + alarms)).cpu()
    f1 = (2 * hits / (2 * hits + misses + alarms)).cpu()
    auc = [math.nan] * classes
    if probabilities is not None:
        auc = [_auc_of(probabilities[:, number], targets[:, number] == 1) for number in range(classes)]
    return Scores(
        accuracy=float(right.double().mean()),
        macro_f1=float(f1.nanmean()),
        balanced_accuracy=float(((sensitivity + specificity) / 2).nanmean()),
        sensitivity=tuple(sensitivity.tolist()),
        specificity=tuple(specificity.tolist()),
        confusion=(),
        auc=float(torch.tensor(auc, dtype=torch.float64).nanmean()),
        auc_by_class=tuple(auc),
    )


def _auc_of(probabilities: Tensor, is_class: Tensor) -> float:
    """Of one class against the others, bool ``(N,)``; NaN where all images have it, or none."""
    positives = int(is_class.sum())
    if not 0 < positives < len(is_class):
        return math.nan
    _, place, ties = probabilities.unique(return_inverse=True, return_counts=True)
    rank = ties.cumsum(0).double() - (ties.double() - 1) / 2  # from 1; images of one value share the mean rank
    wins = rank[place[is_class]].sum() - positives * (positives + 1) / 2
    return float(wins) / (positives * (len(is_class) - positives))


def _auc(probabilities: Tensor, labels: Tensor, num_classes: int) -> float:
    """Of each class against the others, mean over the classes that have both."""
    each = [_auc_of(probabilities[:, number], labels == number) for number in range(num_classes)]
    known = [value for value in each if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _check_probabilities(probabilities: Tensor, count: int, num_classes: int) -> None:
    if probabilities.shape != (count, num_classes) or not probabilities.is_floating_point():
        raise InputError(
            f"probabilities must be floats of shape ({count}, {num_classes}), a row an image, got "
            f"{probabilities.dtype} of shape {tuple(probabilities.shape)}"
        )
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise InputError("probabilities must be from 0 to 1; take the softmax of the network's output")


def _check(predictions: Tensor, labels: Tensor, num_classes: int) -> None:
    if num_classes < 2:
        raise InputError(f"scores need at least 2 classes, got {num_classes}")
    if predictions.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise InputError(
            f"predictions and labels must be of one shape (N,), N at least 1, got {tuple(predictions.shape)} and "
            f"{tuple(labels.shape)}"
        )
    for name, tensor in (("predictions", predictions), ("labels", labels)):
        if tensor.dtype != torch.int64:
            raise InputError(f"{name} must be int64 class indices, got {tensor.dtype}")
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or high >= num_classes:
            raise InputError(f"{name} run from {low} to {high}, but there are {num_classes} classes")
