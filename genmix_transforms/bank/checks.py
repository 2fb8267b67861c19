"""What a bank is made of, checked before it becomes one."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.bank.manifest import PIXEL_DTYPES
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import name_fault


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names as a tuple.

    Raises:
        InputError: no list of different names.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"SyntheticBank: classes must be a list of names, got {classes!r}")
    classes = tuple(classes)
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"SyntheticBank: classes must be different names, at least one, got {classes!r}")
    for name in classes:
        if fault := name_fault(name):
            raise InputError(f"SyntheticBank: class name {name!r}: {fault}")
    return classes


def places_by_name(bank: Sequence[str], data: Sequence[str], *, counts: Sequence[int] | None) -> list[int]:
    """For each class of the data its number in the bank; -1: the bank does not know it.

    Args:
        bank: its class names.
        data: those of the data.
        counts: the bank's images of each class: one of which it has none need not be among the data's. None: labels
            are probabilities, and any image may have some of any class.

    Raises:
        InputError: the bank has a class that the data has not.
    """
    unknown = [name for place, name in enumerate(bank) if name not in data and (counts is None or counts[place])]
    if unknown:
        raise InputError(
            f"the bank's classes are {', '.join(bank)}, the data's {', '.join(data)}: "
            f"{', '.join(unknown)} is no class of the data; rename the bank's classes or take another bank"
        )
    return [bank.index(name) if name in bank else -1 for name in data]


def check_tensors(images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Check images and labels against each other, and return the labels as int64 ``(N,)`` or float32 ``(N, K)``.

    Raises:
        InputError: not so; the message says how.
    """
    if not isinstance(images, Tensor) or images.dtype not in PIXEL_DTYPES.values() or images.ndim < 3:
        raise InputError(
            "SyntheticBank: images must be a uint8 or uint16 tensor of shape (N, C, *spatial), got "
            + (
                f"{images.dtype} of shape {tuple(images.shape)}"
                if isinstance(images, Tensor)
                else type(images).__name__
            )
            + "; bring floats in [0, 1] there with (images * 255).round().to(torch.uint8)"
        )
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise InputError(
            f"SyntheticBank: labels must be a tensor of shape ({len(images)},) or ({len(images)}, {len(classes)}), got "
            + (f"{tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__)
        )
    if labels.device != images.device:
        raise InputError(
            f"SyntheticBank: images are on {images.device}, labels on {labels.device}: bring them together"
        )
    if labels.ndim == 1:
        if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
            raise InputError(f"SyntheticBank: labels of shape (N,) must be whole numbers, got {labels.dtype}")
        labels = labels.long()
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise InputError(
                f"SyntheticBank: labels run from {int(labels.min())} to {int(labels.max())}, "
                f"but there are {len(classes)} classes ({', '.join(classes)})"
            )
        return labels
    if labels.shape[1] != len(classes):
        raise InputError(
            f"SyntheticBank: labels of shape (N, K) need a column a class, got {labels.shape[1]} columns "
            f"for {len(classes)} classes ({', '.join(classes)})"
        )
    labels = labels.float()
    if not bool(torch.isfinite(labels).all()) or bool((labels < 0).any()):
        raise InputError("SyntheticBank: label probabilities must be finite and not negative")
    return labels


def check_window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    """The window as two floats.

    Raises:
        InputError: not two finite numbers, the lower first.
    """
    if window is None:
        return None
    try:
        low, high = map(float, window)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            "SyntheticBank: window must be the Hounsfield units of the lowest and the highest pixel value, "
            f"such as (-100.0, 200.0), got {window!r}"
        )
    return low, high


def check_sources(provenance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> tuple[dict[str, Any], ...]:
    """The provenance as a tuple of dicts, one a source.

    Raises:
        InputError: something that JSON cannot hold, which would only show when the bank is saved.
    """
    several = [provenance or {}] if provenance is None or isinstance(provenance, Mapping) else list(provenance)
    try:
        sources = tuple(json.loads(json.dumps(dict(source), allow_nan=False)) for source in several)
        json.dumps(sources, ensure_ascii=False).encode()  # a file name that is not Unicode
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"SyntheticBank: provenance must be a dict of what JSON can hold: texts, numbers, lists, dicts ({error})"
        ) from error
    if not sources:
        raise InputError("SyntheticBank: a list of provenances needs at least one")
    return sources
