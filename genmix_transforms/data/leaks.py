"""What a split lets through: patients, scans, copies and near-duplicates that lie in more than one of its parts."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.splitting import SPLITS, Numbers, count_parted
from genmix_transforms.errors import InputError

NEAR = 0.9
"""Correlation of two patches' fine structure (32 x 32 pixels, less the mean of 5 x 5 around each) from which on they
count as near-duplicates. Of different patches of the phantom none reaches 0.5, of chest X-rays 1 % 0.87; pairs that
BUSI's ``dup_group`` names have 0.9 to 0.98."""

MOST_COMPARED = 30_000
"""Patches; of more, near-duplicates are not looked for: each would be compared with all others."""

_SIDE = 32
_AT_ONCE = 2048


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """How many of each lie in more than one part of a split.

    Args:
        groups: groups (patients).
        series: scans.
        copies: images that are there more than once, to the pixel.
        near: patches of the validation and test parts that a part before theirs has a near-duplicate of (volumes are
            compared by their middle slices); None: not looked for.
        example: the numbers of such a pair.
    """

    groups: int = 0
    series: int = 0
    copies: int = 0
    near: int | None = 0
    example: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return bool(self.groups or self.series or self.copies or self.near)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to say of them; nothing where there is nothing."""
        found = []
        if self.groups:
            found.append(f"{self.groups} groups (patients) have patches in more than one part")
        if self.series:
            found.append(f"{self.series} scans have patches in more than one part")
        if self.copies:
            found.append(
                f"{self.copies} images are in more than one part as exact copies (the same origin in the file)"
            )
        if self.near:
            pair = "" if self.example is None else f", such as patches {self.example[0]} and {self.example[1]}"
            found.append(f"{self.near} patches have a near-duplicate in another part{pair}")
        if self.near is None:
            found.append(f"near-duplicates were not looked for: more than {MOST_COMPARED:,} patches")
        return tuple(found)


def find_leaks(patches: PatchDataset) -> Leaks:
    """Find what lies in more than one part of the split that patches come with.

    Args:
        patches: with :attr:`PatchDataset.official`, as :meth:`PatchDataset.assigned` and
            :meth:`PatchDataset.with_split` return them.

    Raises:
        InputError: patches without a split.

    Example:
        >>> images = torch.arange(8, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
        >>> patches = PatchDataset(images=images, labels=torch.arange(8) % 2, classes=("cyst", "metastasis"))
        >>> find_leaks(patches.assigned()).sentences
        ()
    """
    if patches.official is None:
        raise InputError(f"{patches.name}: no split to look at; give patches.assigned() or patches.with_split(file)")
    parts = patches.official.numpy()
    near, example = _near_duplicates(patches, parts)
    return Leaks(
        groups=0 if patches.groups is None else count_parted(patches.groups.numpy(), parts),
        series=0 if patches.series is None else count_parted(patches.series.numpy(), parts),
        copies=count_parted(patches.origins.numpy(), parts),
        near=near,
        example=example,
    )


def _near_duplicates(patches: PatchDataset, parts: Numbers) -> tuple[int | None, tuple[int, int] | None]:
    if len(patches) > MOST_COMPARED:
        return None, None
    structure = _fine_structure(patches.images)
    origins = patches.origins
    found, example = 0, None
    for part in range(1, len(SPLITS)):
        later, before = np.flatnonzero(parts == part), np.flatnonzero(parts < part)
        if not len(before):
            continue
        for numbers in torch.from_numpy(later).split(_AT_ONCE):
            likeness = structure[numbers] @ structure[before].T
            likeness.masked_fill_(origins[numbers][:, None] == origins[before][None], 0)  # exact copies are told apart
            best, place = likeness.max(dim=1)
            near = torch.nonzero(best >= NEAR).flatten()
            found += len(near)
            if len(near) and example is None:
                example = (int(before[place[near[0]]]), int(numbers[near[0]]))
    return found, example


def _fine_structure(images: Tensor) -> Tensor:
    """``(N, 1024)``, of norm 1; 0 for patches that have none."""
    rows = []
    for part in images.split(_AT_ONCE):
        if part.ndim == 5:  # a near-duplicate of a volume has a near-duplicate of its middle slice
            part = part[:, :, part.shape[2] // 2]
        small = F.interpolate(part.float().mean(1, keepdim=True), (_SIDE, _SIDE), mode="bilinear", antialias=True)
        fine = (small - F.avg_pool2d(small, 5, 1, 2, count_include_pad=False)).flatten(1)
        norm = fine.norm(dim=1, keepdim=True)
        rows.append(torch.where(norm > 1e-3, fine / norm.clamp_min(1e-6), 0))
    return torch.cat(rows) if rows else torch.zeros(0, _SIDE * _SIDE)
