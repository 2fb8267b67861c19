"""What a reader should say of the patches it has read: copies, labels that contradict, groups that nobody named."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genmix_transforms.data.labelling import UNLABELLED
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.files.images import HIGHEST_PIXEL

_DARK = 0.25
"""Of the range that 16 bits have: images that use less of it look black to whatever takes it for 0 to 1."""


def describe_findings(patches: PatchDataset, *, maybe_groups: Sequence[str] = ()) -> tuple[str, ...]:
    """Notes on what is there, one sentence each; none where there is nothing to say.

    Args:
        patches: as they were read, before they are brought to another size.
        maybe_groups: arrays or columns that might say which patches belong together, see :func:`maybe_groups`.
    """
    notes = (_copies(patches), _contradictions(patches), _constant(patches))
    return (*(note for note in notes if note), *_groups(patches, maybe_groups))


def maybe_groups(columns: Mapping[str, NDArray[Any]], count: int) -> tuple[str, ...]:
    """The names of columns that might say which patches belong together: names or numbers that repeat.

    Args:
        columns: by name, without those that are known (images, labels, split, ...).
        count: of the patches.

    Example:
        >>> maybe_groups({"source_image": np.array(["a", "a", "b"]), "score": np.array([0.1, 0.2, 0.3])}, 3)
        ('source_image',)
    """
    found = []
    for name, column in columns.items():
        values = column.reshape(-1)
        if values.shape == (count,) and values.dtype.kind in "iuUS" and 1 < len(np.unique(values)) < count:
            found.append(name)
    return tuple(found)


def _copies(patches: PatchDataset) -> str:
    different = len(torch.unique(patches.origins))
    if different == len(patches):
        return ""
    kept = "" if patches.official is not None or patches.groups is not None else "; a split keeps copies together"
    return f"{len(patches)} images are {different} different ones: the others are exact copies{kept}"


def _contradictions(patches: PatchDataset) -> str:
    pairs = torch.unique(torch.stack([patches.origins, patches.label_keys]), dim=1)
    origins, labels_of = torch.unique(pairs[0], return_counts=True)
    contradicted = origins[labels_of > 1]
    if not len(contradicted):
        return ""
    where = torch.nonzero(patches.origins == contradicted[0]).flatten().tolist()
    named = [str(number) if patches.paths is None else patches.paths[number] for number in where[:2]]
    several = "1 image is there" if len(contradicted) == 1 else f"{len(contradicted)} images are there"
    return f"{several} under two labels or more ({', '.join(named)}): one of them is wrong"


def _constant(patches: PatchDataset) -> str:
    flat = patches.images.flatten(1).to(torch.int32)
    constant = int((flat.amin(1) == flat.amax(1)).sum()) if flat.numel() else 0
    return f"{constant} of {len(patches)} images are of one gray level all over" if constant else ""


def describe_range(patches: PatchDataset) -> tuple[str, ...]:
    """A note on images of 16 bits that use little of them; none where there is nothing to say."""
    if patches.images.dtype != torch.uint16 or not len(patches):
        return ()
    highest, possible = int(patches.images.to(torch.int32).max()), HIGHEST_PIXEL[torch.uint16]
    if highest >= _DARK * possible:
        return ()
    return (
        f"values up to {highest}, {100 * highest / possible:.0f} % of what 16 bits hold, and all of that counts as 0 "
        "to 1: the images are dark; for CT, --window 40,400 (window=(40, 400)) shows soft tissue in 8 bits; bring "
        "others to 8 bits, or to all of 16, before",
    )


def _groups(patches: PatchDataset, candidates: Sequence[str]) -> tuple[str, ...]:
    if patches.groups is not None or patches.classes == (UNLABELLED,):
        return ()
    if candidates:
        return (
            f"no groups: patches of one patient can come to lie in several parts; {' or '.join(map(repr, candidates))} "
            "might say which belong together (group_key, --group-key)",
        )
    if patches.official is None:
        return ("no groups: if several patches are of one patient, say which (a column patient, or --group-key)",)
    return ()
