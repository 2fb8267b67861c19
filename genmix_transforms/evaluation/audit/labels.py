"""Whether a bank's labels are honest, and whether they give away which images are synthetic."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.arm_kinds import Setting
from genmix_transforms.evaluation.audit.measured import Measured, bootstrap_mean
from genmix_transforms.evaluation.audit.usefulness import as_patches, mean_sensitivity
from genmix_transforms.evaluation.confidence import own_confidence
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.training import Trained, class_probabilities
from genmix_transforms.files.atomic import write_text

UNEVEN = 0.25
"""Classes whose shares of synthetic images differ by so much are told by the source: a shortcut."""

TELLING = 0.3
"""Cramér's V above which two things are more than weakly related (Cohen's medium effect)."""

_SOME = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelHonesty:
    """What a classifier of real images says of a bank's labels.

    Args:
        confidence: float64 ``(N,)``: the probability that it gives each image's own label, in the bank's order.
        overall: mean confidence of the own label, and the share of images whose likeliest class it is, mean over the
            classes; the real values are those of the test part.
        by_class: the same of each class.
        predicted: images by their label (row) and the classifier's class (column).
        real_predicted: the same of the test part.
        warnings: one sentence each.
    """

    confidence: Tensor
    overall: tuple[Measured, Measured]
    by_class: Mapping[str, tuple[Measured, Measured]]
    predicted: tuple[tuple[int, ...], ...]
    real_predicted: tuple[tuple[int, ...], ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        """How often the classifier agrees, in one sentence."""
        share = self.overall[1]
        return (
            f"A classifier of the real images agrees with {100 * share.value:.0f} % of the labels "
            f"({100 * share.low:.0f} to {100 * share.high:.0f}), with {100 * share.real:.0f} % of those of real images."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; the confidence of each image is in the file of :meth:`save`."""
        return {
            "overall": [one.to_dict() for one in self.overall],
            "by_class": {name: [one.to_dict() for one in both] for name, both in self.by_class.items()},
            "predicted": [list(row) for row in self.predicted],
            "real_predicted": [list(row) for row in self.real_predicted],
            "warnings": list(self.warnings),
        }

    def save(self, path: str | Path, bank: SyntheticBank) -> None:
        """Write the confidences for ``genmix bank select --confidence``, whole or not at all.

        Args:
            path: a JSON file.
            bank: that was measured.

        Raises:
            InputError: a bank with another number of images.
        """
        if len(bank) != len(self.confidence):
            raise InputError(f"{path}: {len(self.confidence)} images were measured, and this bank has {len(bank)}")
        values = [float(f"{value:.6g}") for value in self.confidence.tolist()]
        write_text(Path(path), json.dumps({"bank": bank_key(bank), "confidence": values}) + "\n")


def bank_key(bank: SyntheticBank) -> str:
    """A checksum of a bank's images and labels in their order: confidences are those of one bank.

    Example:
        >>> one = SyntheticBank(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), classes=["cyst"])
        >>> bank_key(one) == bank_key(one.replace(flags=torch.ones(1, dtype=torch.uint8)))
        True
    """
    digest = xxhash.xxh3_64(repr((bank.classes, bank.image_shape)).encode())
    digest.update(bank.labels.cpu().numpy().tobytes())
    for numbers in torch.arange(len(bank)).split(_SOME):
        digest.update(bank.rows(numbers.to(bank.device)).cpu().numpy().tobytes())
    return digest.hexdigest()


def read_confidence(path: str | Path, bank: SyntheticBank) -> Tensor:
    """The confidences that :meth:`LabelHonesty.save` wrote for this bank: float64 ``(N,)``.

    Raises:
        MissingPathError: no such file.
        InputError: another kind of file, or one of another bank.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        key, values = content["bank"], torch.tensor([float(value) for value in content["confidence"]]).double()
    except OSError as error:
        raise MissingPathError(f"{path}: no file of confidences can be read there ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a file of confidences, as an audit writes it") from error
    if key != bank_key(bank) or len(values) != len(bank):
        raise InputError(f"{path}: the confidences belong to a different bank; audit this one")
    return values


def measure_labels(
    bank: SyntheticBank, splits: Splits, *, judge: tuple[Trained, Setting], seed: int = 0
) -> LabelHonesty:
    """Ask a classifier of the real training part what it thinks of every synthetic image.

    Args:
        bank: with the classes and the size of the real images.
        splits: train, validation and test; the real values are those of the test part, which the classifier has not
            seen either.
        judge: of :func:`genmix_transforms.evaluation.confidence.judge_of`.
        seed: of the bootstrap over test patients and over synthetic images.
    """
    train, _, test = splits
    bank = bank.with_classes(train.classes)
    made = as_patches(bank)
    trained, setting = judge
    device = next(trained.network.parameters()).device
    answers = []
    for images, labels in ((made.images, bank.labels.cpu()), (test.images, test.labels)):
        found = class_probabilities(trained.network, images.to(device), setting).cpu()
        answers.append((own_confidence(found, labels), found.argmax(dim=1)))
    sets = (made, test)

    def of(classes: tuple[int, ...]) -> tuple[Measured, Measured]:
        means: list[float] = []
        shares: list[float] = []
        for (confidence, predicted), images in zip(answers, sets, strict=True):
            here = torch.isin(images.labels, torch.tensor(classes))
            groups = None if images.groups is None else images.groups[here]
            means += bootstrap_mean(confidence[here], groups=groups, seed=seed)
            right = predicted == images.labels
            shares += mean_sensitivity(right, images.labels, images.groups, classes=classes, seed=seed)
        return _measured("confidence of the own label", means), _measured("own label is the likeliest", shares)

    number = len(train.classes)
    return LabelHonesty(
        confidence=answers[0][0],
        overall=of(tuple(range(number))),
        by_class={name: of((place,)) for place, name in enumerate(train.classes)},
        predicted=_crossed(made.labels, answers[0][1], number),
        real_predicted=_crossed(test.labels, answers[1][1], number),
        warnings=shortcuts(bank, train.class_counts),
    )


def _measured(name: str, values: Sequence[float]) -> Measured:
    value, low, high, real, real_low, real_high = values
    return Measured(name=name, value=value, low=low, high=high, real=real, real_low=real_low, real_high=real_high)


def _crossed(rows: Tensor, columns: Tensor, number: int, width: int | None = None) -> tuple[tuple[int, ...], ...]:
    width = number if width is None else width
    counts = torch.bincount(rows * width + columns, minlength=number * width).view(number, width)
    return tuple(tuple(row) for row in counts.tolist())


# Shortcuts


def shortcuts(bank: SyntheticBank, real_counts: Mapping[str, int]) -> tuple[str, ...]:
    """Warn where the source of an image tells its label: a classifier may learn the generator instead of the disease.

    Args:
        bank: that is to be added to the real images.
        real_counts: of the training part, by class.

    Returns:
        One sentence each.

    Example:
        >>> bank = SyntheticBank(torch.zeros(90, 1, 8, 8, dtype=torch.uint8), torch.ones(90, dtype=torch.int64),
        ...     classes=["benign", "malignant"])
        >>> print(shortcuts(bank, {"benign": 100, "malignant": 10})[0])
        Beside the real images, 90 % of malignant would be synthetic and 0 % of benign: a classifier may take traces of the generator for signs of malignant; fill the classes in the real proportions, or draw them so.
    """  # noqa: E501
    made = dict(zip(bank.classes, bank.class_count.tolist(), strict=True))
    shares = {
        name: made.get(name, 0) / (made.get(name, 0) + real)
        for name, real in real_counts.items()
        if made.get(name, 0) + real
    }
    found = []
    if len(shares) > 1:
        most, least = max(shares, key=lambda name: shares[name]), min(shares, key=lambda name: shares[name])
        if shares[most] - shares[least] >= UNEVEN:
            found.append(
                f"Beside the real images, {100 * shares[most]:.0f} % of {most} would be synthetic and "
                f"{100 * shares[least]:.0f} % of {least}: a classifier may take traces of the generator for signs of "
                f"{most}; fill the classes in the real proportions, or draw them so."
            )
    if len(bank.sources) > 1:
        labels = (bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)).cpu()
        table = _crossed(labels, bank.column("source").long(), len(bank.classes), len(bank.sources))
        strength = cramers_v(np.array(table))
        if strength >= TELLING:
            found.append(
                f"The bank's {len(bank.sources)} sources do not make the same classes (Cramér's V {strength:.2f}): "
                "which generator an image comes from tells its label; fill every class from every source alike."
            )
    return tuple(found)


def cramers_v(table: NDArray[Any]) -> float:
    """How strongly the rows and the columns of a table of counts go together: 0 not at all, 1 wholly.

    Args:
        table: counts ``(rows, columns)``; empty rows and columns do not count.

    Source: Cramér, "Mathematical Methods of Statistics" (1946), section 21.9.

    Example:
        >>> cramers_v(np.array([[5, 0], [0, 5]])), cramers_v(np.array([[5, 5], [5, 5]]))
        (1.0, 0.0)
    """
    counts = np.asarray(table, dtype=np.float64)
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    least = min(counts.shape) - 1
    if least < 1:
        return 0.0
    total = counts.sum()
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / total
    return float(np.sqrt(((counts - expected) ** 2 / expected).sum() / (total * least)))
