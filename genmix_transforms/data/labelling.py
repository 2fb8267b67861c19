"""What a source says about its patches besides the pixels: class names, groups, the split it came with."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.data.splitting import count_parted
from genmix_transforms.errors import InputError

GROUP_KEYS = (
    "group",
    "groups",
    "group_id",
    "patient",
    "patients",
    "patient_id",
    "subject",
    "subject_id",
    "case",
    "case_id",
    "dup_group",
)
"""Where groups are looked for, in an ``.npz`` and in the header of a CSV file, when no ``group_key`` is given."""

UNLABELLED = "unlabelled"
"""The one class of patches whose labels nobody knows, or that are read without them."""

WITHOUT_LABELS = "images without labels are read with labelled=False (genmix train ... --unlabelled)"
"""The way out for who has a pool of images and no labels."""


def read_groups(
    path: Path, key: str, raw: NDArray[Any], count: int, official: Tensor | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Number the groups of a source: ``raw`` ``(N,)`` or ``(N, 1)``, integers or strings, for ``count`` patches.

    Returns:
        Group numbers ``(N,)``, int64, from 0; and notes: where they were found, and how many the official split parts.

    Raises:
        InputError: another shape or dtype, or an empty string (all patches of unknown origin would be one group).
    """
    values = raw.reshape(-1)
    if values.shape != (count,) or values.dtype.kind not in "iubUS":
        raise InputError(
            f"{path}: groups {key!r} are {raw.dtype} of shape {raw.shape}; expected integers or strings of shape "
            f"({count},), one for each image"
        )
    if values.dtype.kind in "US" and (empty := np.flatnonzero(values == values.dtype.type())).size:
        raise InputError(f"{path}: {key}[{empty[0]}] is empty; give each patch the name of its group")
    names, numbers = np.unique(values, return_inverse=True)
    groups = torch.from_numpy(numbers.reshape(-1).astype(np.int64, copy=False))
    notes = [f"groups from {key!r}: {len(names)} groups"]
    if official is not None and (parted := count_parted(groups.numpy(), official.numpy())):
        notes.append(f"groups that lie in more than one part of the source's own split: {parted}")
    return groups, tuple(notes)


def read_dates(columns: Mapping[str, NDArray[Any]], count: int) -> Tensor | None:
    """When each patch was acquired, int64 ``(N,)``: from ``date_rank``, or from ``date`` where all are dates; -1:
    unknown.

    Dates are 2024-03-01 or 20240301. What is there under these names and is none, such as a keyed hash, says nothing.
    """
    ranks = columns.get("date_rank")
    if ranks is not None and ranks.reshape(-1).shape == (count,):
        try:
            return torch.from_numpy(ranks.reshape(-1).astype(np.int64))
        except ValueError:
            return None
    dates = columns.get("date")
    if dates is None or dates.reshape(-1).shape != (count,):
        return None
    found = []
    for text in dates.reshape(-1).tolist():
        digits = re.fullmatch(r"(\d{4})-?(\d{2})-?(\d{2})", str(text))
        try:
            found.append(date(*map(int, digits.groups())).toordinal() if digits else -1)
        except ValueError:
            return None
    return torch.tensor(found) if max(found, default=-1) >= 0 else None


def read_series(columns: Mapping[str, NDArray[Any]], count: int) -> Tensor | None:
    """The number of the scan that each patch is of, int64 ``(N,)``, from ``series``; None: nobody says."""
    raw = columns.get("series")
    if raw is None or raw.reshape(-1).shape != (count,) or raw.dtype.kind not in "iuUS":
        return None
    return torch.from_numpy(np.unique(raw.reshape(-1), return_inverse=True)[1].reshape(-1).astype(np.int64))


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Different names in order: of the alphabet, or of numbers when all are whole numbers."""
    different = set(names)
    if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))


def read_targets(path: Path, what: str, rows: NDArray[Any], classes: Sequence[str]) -> Tensor:
    """Rows of 0 and 1, a column a class, as uint8 ``(N, K)``: an image has any number of labels.

    Args:
        path: of the source.
        what: the rows are, for messages.
        rows: ``(N, K)``, K at least 2, numbers or booleans.
        classes: the names of the K columns.

    Raises:
        InputError: another number of names, values other than 0 and 1, fewer than two classes, or exactly one label an
            image: then one number (or name) says it, and the data set has one label an image.
    """
    if rows.shape[1] != len(classes):
        raise InputError(f"{path}: {what} of {rows.shape[1]} columns, but there are {len(classes)} class names")
    if rows.dtype.kind not in "iubf" or not bool(((rows == 0) | (rows == 1)).all()):
        raise InputError(
            f"{path}: {what} are {rows.dtype} of shape {rows.shape}: several labels an image are 0 or 1 in each "
            "column; probabilities are not read"
        )
    targets = torch.from_numpy(rows.astype(np.uint8))
    if len(rows) and bool((targets.sum(dim=1) == 1).all()):
        raise InputError(
            f"{path}: {what} of shape {rows.shape}: every image has exactly one of {rows.shape[1]} labels (one-hot); "
            "expected one label each: in an .npz labels.argmax(axis=1), in a .csv a column label with the class's name"
        )
    refuse_single_class(path, [name for name, has in zip(classes, targets.any(dim=0).tolist(), strict=True) if has])
    return targets


def refuse_single_class(path: Path, present: Sequence[str]) -> None:
    """Raise InputError unless at least two classes are present: there would be nothing to tell apart."""
    if len(present) < 2:
        found = f"one class ({present[0]})" if present else "no class"
        raise InputError(f"{path}: {found}; a classifier needs at least two; {WITHOUT_LABELS}")
