"""Where the labels of a sample are, by the rule of torchvision's ``v2.MixUp``, and their forms."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from genmix_transforms.errors import InputError

LabelsGetter = str | Callable[[Any], Any]


def find_labels(sample: Any) -> Any:
    """The labels in a sample: its second item, or what a dict (either of the two) has under a label-like key.

    Label-like is "labels" in any case, else the first key with "label" in it.
    """
    if isinstance(sample, Tensor):
        raise InputError("GenMix: expected a sample of images and labels, got one tensor: genmix(images, labels)")
    if isinstance(sample, (tuple, list)):
        if len(sample) < 2:
            raise InputError(f"GenMix: expected a sample of images and labels, got {len(sample)} item(s)")
        sample = sample[1]
    if isinstance(sample, Tensor):
        return sample
    if isinstance(sample, Mapping):
        names = [key for key in sample if isinstance(key, str)]
        for key in [*(n for n in names if n.lower() == "labels"), *(n for n in names if "label" in n.lower())]:
            return sample[key]
    if isinstance(sample, (tuple, list)):
        raise InputError(f"GenMix: the labels must be a tensor, got a {type(sample).__name__}")
    raise InputError(
        "GenMix: could not tell where the labels are in the sample: expected (images, labels) or a dict with a "
        f"label-like key, got {type(sample).__name__}; pass a callable as labels_getter"
    )


def parse_labels_getter(labels_getter: LabelsGetter) -> Callable[[Any], Any]:
    """The function that finds the labels."""
    if labels_getter == "default":
        return find_labels
    if callable(labels_getter):
        return labels_getter
    raise InputError(f"GenMix: labels_getter must be 'default' or a callable, got {labels_getter!r}")


def index_or_rows(labels: Tensor, *, num_classes: int) -> Tensor:
    """Labels in one of two forms: class indices, int64 ``(N,)``, or float32 rows ``(N, K)``. Values are not read.

    Raises:
        InputError: another shape, or floats ``(N,)``.
    """
    if labels.ndim == 2 and labels.shape[1] == 1 and num_classes != 1 and not labels.is_floating_point():
        labels = labels.squeeze(1)
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise InputError(
                f"GenMix: labels of shape (N, K) must have a column a class, got {tuple(labels.shape)} "
                f"for {num_classes} classes"
            )
        return labels.float()
    if labels.ndim != 1:
        raise InputError(f"GenMix: labels must be of shape (N,) or (N, {num_classes}), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"GenMix: labels of shape (N,) must be class indices, whole numbers, got {labels.dtype}; "
            f"give probabilities as (N, {num_classes})"
        )
    if labels.dtype == torch.bool and num_classes != 2:
        raise InputError(
            f"GenMix: booleans of shape (N,) can only be the labels of 2 classes, here are {num_classes}; "
            f"give class indices, or booleans of shape (N, {num_classes})"
        )
    return labels if labels.dtype == torch.int64 else labels.long()


def one_hot_table(num_classes: int) -> Tensor:
    """A row for each class, and a last one of NaN for what is no class: float32 ``(K + 1, K)``, on the CPU."""
    nothing = torch.full((1, num_classes), torch.nan, dtype=torch.float32, device="cpu")
    return torch.cat([torch.eye(num_classes, dtype=torch.float32, device="cpu"), nothing])


def one_hot(labels: Tensor, table: Tensor, classes: Tensor) -> Tensor:
    """The rows of class indices, float32 ``(N, K)``.

    Args:
        labels: int64 ``(N,)``.
        table: see :func:`one_hot_table`.
        classes: the same without the last row.

    Raises:
        InputError: on the CPU, an index out of range. Elsewhere it takes the table's last row, of NaN.
    """
    if not labels.is_cpu or torch.compiler.is_compiling():
        return table.index_select(0, no_class_last(labels, classes.shape[0]))
    try:
        return classes.index_select(0, labels)  # which reads the indices anyway
    except IndexError:
        refuse_out_of_range(labels, classes.shape[0])


def refuse_out_of_range(labels: Tensor, num_classes: int) -> NoReturn:
    """Say which indices there are, and which there may be."""
    low, high = (int(value) for value in labels.aminmax())
    raise InputError(
        f"GenMix: labels run from {low} to {high}, but there are {num_classes} classes (0 to {num_classes - 1})"
    ) from None


def no_class_last(labels: Tensor, num_classes: int) -> Tensor:
    """Indices that can be looked up in a table of K + 1 rows: -1 and K, and what lies beyond them, become K."""
    return labels.clamp(-1, num_classes).remainder(num_classes + 1)
