"""How patches are split: by group, stratified, seeded; into train, validation and test, or into folds of them."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number

SplitName = Literal["train", "val", "test"]

SPLITS: tuple[SplitName, ...] = get_args(SplitName)

SPLIT_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
"""What the parts of a split may be called (in any case), and their numbers in :data:`SPLITS`."""

DEFAULT_FRACTIONS = (0.5, 0.25, 0.25)
"""Shares of train, validation and test; the paper's are 681, 302 and 307 of 1,290, that is 53, 23 and 24 per cent."""

DEFAULT_VALIDATION = 0.25
"""Share of what a fold does not test that validates."""

Numbers = NDArray[np.int64]

SplitBy = Literal["group", "date"]


def part_named(word: str, *, where: str) -> int:
    """The number in :data:`SPLITS` of the part that a word names; ``where`` says where it stands, for the message.

    Raises:
        InputError: a word that names none; the message proposes the nearest.
    """
    if word.lower() not in SPLIT_NAMES:
        nearest = get_close_matches(word.lower(), SPLIT_NAMES, n=1)
        proposal = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(SPLITS)}"
        raise InputError(f"{where} {word!r} is no part; {proposal}")
    return SPLIT_NAMES[word.lower()]


def check_split(*, seed: int, fractions: Sequence[float]) -> None:
    """Refuse a seed that is none, or fractions that are no shares of train, validation and test."""
    check_seed(seed, name="the split's seed")
    shares = np.asarray(fractions, dtype=np.float64)
    if len(shares) != len(SPLITS) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
        raise InputError(f"fractions must be {len(SPLITS)} shares that sum to 1, got {tuple(fractions)}")


def check_split_by(by: Any) -> None:
    """Refuse what no split goes by."""
    if by not in get_args(SplitBy):
        raise InputError(f"a split is by {' or '.join(get_args(SplitBy))}, got {by!r}")


def check_folds(count: int, *, seed: int, validation: float) -> None:
    """Refuse a seed that is none, fewer than two folds, or a share of validation that is none."""
    check_seed(seed, name="the folds' seed")
    whole_number(count, name="the number of folds", least=2)
    if not 0 < validation < 1:
        raise InputError(f"validation must be a share between 0 and 1, got {validation}")


def refuse_empty_parts(parts: Numbers, *, name: str, fault: str) -> None:
    """Refuse a split of which a part has no patch; ``fault`` is what the message says of that part."""
    for number, split in enumerate(SPLITS):
        if not (parts == number).any():
            raise InputError(f"{name}: the {split} {fault}")


def fold_by_group(labels: Numbers, groups: Numbers, *, count: int, validation: float, seed: int) -> list[Numbers]:
    """Split into the folds of a cross-validation: every patch is in one test part.

    Args:
        labels: ``(N,)`` class of each patch; or ``(N, K)``, 1 for each class that it has.
        groups: ``(N,)`` group of each patch.
        count: how many folds, at least 2.
        validation: share of a fold's patches outside the test part that validate.
        seed: another seed, other folds.

    Returns:
        For each fold ``(N,)``: of each patch the index of its part in :data:`SPLITS`.

    Raises:
        InputError: a seed or a count that is none, or a share that is none.
    """
    check_folds(count, seed=seed, validation=validation)
    train, val, test = range(len(SPLITS))
    tested_in = assign_groups(labels, groups, fractions=(1 / count,) * count, seed=seed)
    folds = []
    for fold in range(count):
        part = np.full(len(labels), test, dtype=np.int64)
        rest = np.flatnonzero(tested_in != fold)
        held_out = assign_groups(labels[rest], groups[rest], fractions=(1 - validation, validation), seed=seed)
        part[rest] = np.where(held_out == 0, train, val)
        folds.append(part)
    return folds


def assign_groups(labels: Numbers, groups: Numbers, *, fractions: Sequence[float], seed: int) -> Numbers:
    """Assign every patch to a part, whole groups at a time, each part with the class proportions of the whole.

    Greedy: groups in random order, larger ones first, each to the part whose class counts then miss their target least.

    Args:
        labels: ``(N,)`` class of each patch; or ``(N, K)``, 1 for each class that it has.
        groups: ``(N,)`` group of each patch.
        fractions: share of each part; they sum to 1.
        seed: of the random order.

    Returns:
        ``(N,)`` number of the part of each patch.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    _, group_of = np.unique(groups, return_inverse=True)
    several = labels.ndim == 2
    counts = np.zeros((group_of.max(initial=-1) + 1, labels.shape[1] if several else labels.max(initial=-1) + 1))
    np.add.at(counts, group_of if several else (group_of, labels), labels if several else 1)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    # What each part still lacks of each class, in units of that class: rare classes weigh as much as common ones.
    class_size = np.maximum(counts.sum(axis=0), 1)
    missing = shares[:, None] * np.ones_like(class_size)
    part_of_group = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        amount = counts[group] / class_size
        # Squared miss after minus before: |m - a|^2 - |m|^2, up to the part-independent |a|^2.
        part = int(np.argmin(np.where(shares > 0, -2 * missing @ amount, np.inf)))
        missing[part] -= amount
        part_of_group[group] = part
    return part_of_group[group_of]


def assign_by_date(groups: Numbers, dates: Numbers, *, fractions: Sequence[float]) -> Numbers:
    """Assign every patch to a part by its date: who trains came first, who tests last. Groups never part.

    A group counts by its first date. Groups of one date stay together, so that a part ends with a day.

    Args:
        groups: ``(N,)`` group of each patch.
        dates: ``(N,)``, in any unit that orders them, 0 or more.
        fractions: share of each part; they sum to 1.

    Returns:
        ``(N,)`` number of the part of each patch.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    first = np.full(group_of.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, group_of, dates)
    days, day_of, count = np.unique(first[group_of], return_inverse=True, return_counts=True)
    done = np.cumsum(count)
    # A day belongs to the part in which its middle lies.
    middle = (done - count / 2) / max(1, len(groups))
    part_of_day = np.searchsorted(np.cumsum(fractions)[:-1], middle, side="right")
    assert len(part_of_day) == len(days)
    return part_of_day[day_of].astype(np.int64)


def groups_of_copies(origins: Numbers) -> Numbers:
    """A group for each different image, ``(N,)``: copies of one image share theirs."""
    _, first, group = np.unique(origins, return_index=True, return_inverse=True)
    # Numbered by where they first occur, so that without copies every patch is the group of its own number.
    return np.argsort(np.argsort(first)).astype(np.int64)[group]


def count_parted(groups: Numbers, parts: Numbers) -> int:
    """How many groups have patches in more than one part; both arguments are ``(N,)``."""
    pairs = np.unique(np.stack([groups, parts], axis=1), axis=0)
    _, parts_of_group = np.unique(pairs[:, 0], return_counts=True)
    return int((parts_of_group > 1).sum())
