"""Whether a bank is held against the images that its generator was trained on: against others, no copy is found."""

import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import find_recorded
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.checks import fitting_bank
from genmix_transforms.evaluation.leakage import foreign, trained_on_more

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
        else:
            notes.append(
                "The bank's generator has also seen images that are not in this training set; copies of those are not "
                "found."
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
    records = [source["training_set"] for source in bank.sources if source.get("training_set")]
    known = [found for record in records if (found := find_recorded(train.origins, record)) is not None]
    if not known:
        return "The bank's generator was trained on another set than this (the fingerprints differ)"
    shared = int(torch.stack(known).any(dim=0).sum())
    return f"The bank's generator was trained on another set than this: of its {len(train)} images it has seen {shared}"
