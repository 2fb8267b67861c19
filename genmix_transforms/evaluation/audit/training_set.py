"""Whether a bank is held against the images that its generator was trained on: against others, no copy is found."""

from dataclasses import replace

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import find_recorded, recorded_within
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.quality import together
from genmix_transforms.evaluation.checks import fitting_bank
from genmix_transforms.evaluation.leakage import foreign, trained_on_more, training_sets
from genmix_transforms.generators.pretraining import check_pool

LEAST_IMAGES = 10
"""Of fewer training images nobody can say what is near."""


def check_training_set(bank: SyntheticBank, train: PatchDataset, *, any_training_set: bool = False) -> tuple[str, ...]:
    """Refuse a training set that the bank's generator has not seen, or that cannot be compared with the bank.

    Args:
        bank: its sources say what its generator was trained on, if it was filled by this package.
        train: what it is to be compared with.
        any_training_set: compare with other images all the same, and say so.

    Returns:
        What whoever reads the result must know: a sentence each.

    Raises:
        InputError: no images, a fill that is not finished, other classes, sizes, channels or depth, fewer than 10
            training images, one group, or a generator that was trained on other images.
    """
    _check_shapes(bank, train)
    notes = []
    if foreign(bank, train):
        if not trained_on_more(bank, train):
            sentence = _seen(bank, train)
            if not any_training_set:
                raise InputError(
                    f"{sentence}: copies of the others would not be found; give the data, the split (--split) and the "
                    "seed that it was trained with, or compare all the same with any_training_set=True "
                    "(--any-training-set)"
                )
            notes.append(f"{sentence}; copies of the others are not found.")
        elif not all(recorded_within(train.origins, record) for record in training_sets(bank)):
            notes.append(
                "The bank's generator has also seen images that are not in this training set; copies of those are not "
                "found. If it was pre-trained on a pool, pass the pool too (--pool)."
            )
    elif not any(source.get("training_set") for source in bank.sources):
        notes.append(
            "The bank does not record what its generator was trained on; whether this is that training set, nobody can "
            "tell."
        )
    if train.groups is None:
        notes.append(
            "The data have no groups (patients): patients cannot be told apart, two images of one patient count as of "
            "two, and copies may slip through."
        )
    elif (groups := len(train.groups.unique())) < LEAST_IMAGES:
        notes.append(
            f"The training set has only {groups} groups (patients): how near images of different patients are "
            "is hardly known."
        )
    empty = [name for name, count in bank.class_counts.items() if not count]
    if empty:
        notes.append(f"The bank has no image of {', '.join(empty)}.")
    few = [name for name, count in bank.class_counts.items() if 0 < count < LEAST_IMAGES]
    if few:
        notes.append(f"The bank has fewer than {LEAST_IMAGES} images of {', '.join(few)}: shares of them say little.")
    return tuple(notes)


def with_pool(train: PatchDataset, pool: PatchDataset | None) -> PatchDataset:
    """The training set and the pool behind it: all that a generator has seen.

    Args:
        train: the training set.
        pool: images that the generator was pre-trained on; their labels do not count. None: none.

    Returns:
        The images of both. Groups of the pool are other groups than those of the training set; an image of a part
        without groups is a group of its own. The images of the pool have the label 0, which means nothing.

    Raises:
        InputError: a pool of another size, number of channels or depth.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> train, val, test = LesionPhantom(size=16, train=(4, 2, 3), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()
        >>> len(train), len(with_pool(train, val.without_labels()))
        (9, 12)
    """
    if pool is None:
        return train
    check_pool(pool, train)
    groups = None
    if train.groups is not None or pool.groups is not None:
        first, second = _groups(train), _groups(pool)
        groups = torch.cat([first, second + int(first.max()) + 1])
    return replace(together(train, replace(pool, labels=torch.zeros_like(pool.labels))), groups=groups)


def _groups(patches: PatchDataset) -> Tensor:
    """Numbers from 0 on."""
    if patches.groups is None:
        return torch.arange(len(patches))
    numbers: Tensor = patches.groups.unique(return_inverse=True)[1]
    return numbers


def _check_shapes(bank: SyntheticBank, train: PatchDataset) -> None:
    if not len(bank):
        raise InputError("find_copies: the bank is empty")
    if len(bank.image_shape) != 3:
        raise InputError(f"find_copies: images must be (C, H, W), the bank's are {bank.image_shape}")
    fitting_bank(bank, train)
    size = bank.image_shape[1:]
    if size[0] != size[1] or size[0] < 8:
        raise InputError(f"find_copies: images must be square, of 8 pixels or more, got {size[0]} x {size[1]}")
    if len(train) < LEAST_IMAGES:
        raise InputError(
            f"find_copies: {train.name} has {len(train)} images; how near images are to each other takes at least "
            f"{LEAST_IMAGES}"
        )
    groups = len(train) if train.groups is None else len(train.groups.unique())
    if groups < 2:
        raise InputError(
            f"find_copies: {train.name} has images of {groups} group; how near images of different ones are to each "
            "other takes at least 2"
        )


def _seen(bank: SyntheticBank, train: PatchDataset) -> str:
    known = [found for record in training_sets(bank) if (found := find_recorded(train.origins, record)) is not None]
    if not known:
        return "The bank's generator was trained on another set than this (the fingerprints differ)"
    shared = int(torch.stack(known).any(dim=0).sum())
    return f"The bank's generator was trained on another set than this: of its {len(train)} images it has seen {shared}"
