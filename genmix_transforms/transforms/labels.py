"""Where the labels of a sample are: the rule of torchvision's ``v2.MixUp``."""

from collections.abc import Callable, Mapping
from typing import Any

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
