"""How sure a classifier of the real images is of a bank's labels: what ``keep`` goes by."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.evaluation.arms import TUNING_SEED, Setting
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.runs import read_finished, write_finished
from genmix_transforms.evaluation.training import Trained, class_probabilities, train_network
from genmix_transforms.transforms import functional

JUDGE = "baseline"
"""The arm whose classifier is asked."""


def train_judge(splits: Splits, setting: Setting, *, device: torch.device) -> Trained:
    """Train the classifier that is asked: the baseline's, on the training part alone, with the seed of the tuning.

    The validation part chooses the step whose weights are taken, as it does in the arm "baseline"; the test part is
    not looked at.
    """
    return train_network(
        JUDGE, splits, replace(setting, protocol=replace(setting.protocol, tune=0)), TUNING_SEED, device=device
    )


def judge_of(splits: Splits, protocol: Protocol, *, device: torch.device) -> tuple[Trained, Setting]:
    """Train the small classifier on the real training part.

    Args:
        splits: train, validation and test.
        protocol: how.
        device: where.

    Returns:
        The classifier, and the setting that it was trained in.
    """
    setting = prepare((JUDGE,), splits, {}, protocol, device=device)
    return train_judge(splits, setting, device=device), setting


def measure_confidence(judge: Trained, bank: SyntheticBank, setting: Setting) -> Tensor:
    """The probability that a classifier gives each image's own label; of soft labels, their mean by the label.

    Args:
        judge: a classifier of the bank's classes.
        bank: with the training set's classes.
        setting: that the classifier was trained in.

    Returns:
        float64 ``(N,)``, in the bank's order, on the CPU.
    """
    return own_confidence(class_probabilities(judge.network, bank.images, setting), bank.labels)


def own_confidence(probabilities: Tensor, labels: Tensor) -> Tensor:
    """What a classifier gives each image's own label; of soft labels, the mean by the label.

    Args:
        probabilities: float64 ``(N, K)``.
        labels: int64 ``(N,)`` or float32 ``(N, K)``.

    Returns:
        float64 ``(N,)``, on the CPU.

    Example:
        >>> own_confidence(torch.tensor([[0.25, 0.75]], dtype=torch.float64), torch.tensor([1])).item()
        0.75
    """
    own = functional.soft_labels(labels, num_classes=probabilities.shape[1]).double()
    return (probabilities * own).sum(dim=1).cpu()


def remembered(file: Path, measure: Callable[[], Tensor], *, key: str) -> Tensor:
    """Confidences from their file, or measured and written there, whole or not at all.

    Args:
        file: JSON.
        measure: gives float64 ``(N,)``.
        key: a hash of all that they depend on, see :func:`genmix_transforms.evaluation.runs.run_key`.

    Returns:
        float64 ``(N,)``, to six significant digits: a run is the same whoever measured.
    """
    values = read_finished(file, lambda content: [float(value) for value in content["confidence"]], key=key)
    if values is None:
        values = [float(f"{value:.6g}") for value in measure().tolist()]
        write_finished(file, {"confidence": values}, key=key)
    return torch.tensor(values, dtype=torch.float64)
