"""The data of few_labels.py: an unlabelled pool, labels to draw from, and a large test set, no patient in two of them.

Every source is drawn or read once and kept as ``.npz`` files beside the results.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from genmix_transforms.data import LesionPhantom, LiverLesionSimulator, PatchDataset, open_dataset
from genmix_transforms.data.splitting import assign_groups
from genmix_transforms.errors import InputError

PAPER = "paper"
"""The counts of the paper's Table 1 instead of as many of each class."""

PAPER_TRAIN, PAPER_VALIDATION = (433, 70, 178), (115, 30, 157)

POOL = (3_178, 514, 1_308)
"""5,000 lesions in the paper's proportions."""

LABELLED, VALIDATION, TEST = (1_500, 700, 900), (800, 500, 700), (1_000, 1_000, 1_000)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The parts of an experiment; no group (patient) is in two of them.

    Args:
        pool: images whose labels nobody looks at.
        labelled: what labels for training are drawn from.
        validation: what labels for choosing are drawn from.
        test: what is tested.
    """

    pool: PatchDataset
    labelled: PatchDataset
    validation: PatchDataset
    test: PatchDataset


PARTS = ("pool", "labelled", "validation", "test")


def open_source(text: str, *, size: int | None, folder: Path, pool: Path | None = None) -> Source:
    """The source of a name or path, drawn anew where ``folder`` does not hold it yet.

    Args:
        text: ``phantom``, ``liver:CT.npz``, or an ``.npz`` of MedMNIST or with patients.
        size: side of the patches; None: 32, or the file's own if that is less.
        folder: where the parts are kept.
        pool: a file of other images, which are the pool instead of a part of these: knowledge of another place.

    Raises:
        InputError: what cannot be read or parted, or a pool that has images of another part.
    """
    paths = {part: folder / f"{part}.npz" for part in PARTS}
    if not all(path.exists() for path in paths.values()):
        made = _make(text, size=size)
        made = made if pool is None else replace(made, pool=_other_pool(pool, made))
        folder.mkdir(parents=True, exist_ok=True)
        for part, path in paths.items():
            # Of a part, what it was a part of says nothing.
            replace(getattr(made, part), official=None).save_npz(path, overwrite=True)
    opened = {part: open_dataset(path) for part, path in paths.items()}
    return Source(**_with_groups_apart(opened))


def _with_groups_apart(parts: Mapping[str, PatchDataset]) -> dict[str, PatchDataset]:
    """The parts with numbers of groups that no two of them share: each file counts its own from 0."""
    apart, used = {}, 0
    for name, part in parts.items():
        apart[name] = part if part.groups is None else replace(part, groups=part.groups + used)
        used += 0 if part.groups is None else int(part.groups.max()) + 1
    return apart


def _make(text: str, *, size: int | None) -> Source:
    kind, _, path = text.partition(":")
    if kind == "phantom":
        return _phantom(size or 32)
    if kind == "liver":
        return _liver(path, size or 32)
    return _file(text, size)


def _phantom(size: int) -> Source:
    patients = LesionPhantom(size=size, seed=0, train=LABELLED, val=VALIDATION, test=TEST)
    labelled, validation, test = patients.dataset().split()
    nothing = (0, 0, 0)
    others = LesionPhantom(size=size, seed=1, train=POOL, val=nothing, test=nothing).dataset()
    return Source(pool=others, labelled=labelled, validation=validation, test=test)


def _liver(path: str, size: int) -> Source:
    # The simulator parts its patients in three: of the pool, of the labels, and of the test.
    simulator = LiverLesionSimulator(
        path, size=size, train=POOL, val=tuple(np.add(LABELLED, VALIDATION).tolist()), test=TEST
    )
    pool, labels, test = simulator.dataset().split()
    labelled, validation = _parted(labels, 0.6, 0.4)
    return Source(pool=pool, labelled=labelled, validation=validation, test=test)


def _file(path: str, size: int | None) -> Source:
    patches = open_dataset(path, group_key=_group_key(path))
    side = min(32, patches.images.shape[-1]) if size is None else size
    if patches.images.shape[-1] != side:
        patches = patches.resized(side)
    patches = _without_copies(patches)
    if patches.official is None:
        pool, labelled, validation, test = _parted(patches, 0.4, 0.2, 0.1, 0.3)
        return Source(pool=pool, labelled=labelled, validation=validation, test=test)
    # Its authors' test set, and of their training part what is neither pool nor labels.
    train, validation, test = patches.split()
    pool, labelled, more = _parted(train, 0.4, 0.2, 0.4)
    return Source(pool=pool, labelled=labelled, validation=validation, test=_joined(test, more))


def _other_pool(path: Path, source: Source) -> PatchDataset:
    channels, side, _ = source.test.images.shape[1:]
    found = open_dataset(path, group_key=_group_key(str(path))).resized(side).with_channels(channels)
    for name in PARTS[1:]:
        if shared := int(found.found_in(getattr(source, name)).sum()):
            raise InputError(f"{path}: {shared} of its images are in the part '{name}'; a pool is of other images")
    return found


def _group_key(path: str) -> str | None:
    with np.load(path, allow_pickle=False) as arrays:
        return next((key for key in ("patient", "dup_group") if key in arrays), None)


def _without_copies(patches: PatchDataset) -> PatchDataset:
    """Of images that occur several times the last: where parts share one, it stays in the test."""
    origins = patches.origins.numpy()
    _, last = np.unique(origins[::-1], return_index=True)
    return patches.subset(np.sort(len(origins) - 1 - last))


def _parted(patches: PatchDataset, *shares: float) -> list[PatchDataset]:
    """Parts of those shares, by group and with the class proportions of the whole."""
    groups = np.arange(len(patches)) if patches.groups is None else patches.groups.numpy()
    parts = assign_groups(patches.labels.numpy(), groups, fractions=shares, seed=0)
    return [patches.subset(np.flatnonzero(parts == number)) for number in range(len(shares))]


def _joined(one: PatchDataset, other: PatchDataset) -> PatchDataset:
    return replace(
        one,
        images=torch.cat([one.images, other.images]),
        labels=torch.cat([one.labels, other.labels]),
        source_hashes=torch.cat([one.origins, other.origins]),
        official=None,
        paths=None,
    )
