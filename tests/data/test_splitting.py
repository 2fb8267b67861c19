"""The laws of splits and folds: groups whole, classes in proportion, all from the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.data.splitting import (
    assign_by_date,
    assign_groups,
    check_split,
    check_split_by,
    count_parted,
    fold_by_group,
    groups_of_copies,
)
from genmix_transforms.errors import InputError
from tests.data.made_groups import grouped, seeds

fractions = st.sampled_from(
    [(0.5, 0.25, 0.25), (0.53, 0.23, 0.24), (0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.6, 0.4, 0)]
)


@given(grouped(), fractions, seeds)
def test_groups_never_part(data, shares, seed):
    labels, groups = data
    parts = assign_groups(labels, groups, fractions=shares, seed=seed)
    assert parts.shape == labels.shape
    assert set(parts.tolist()) <= {0, 1, 2}
    for group in set(groups.tolist()):
        assert len(set(parts[groups == group].tolist())) == 1
    for part, share in enumerate(shares):
        assert share > 0 or not (parts == part).any()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=150), fractions, seeds)
def test_without_groups_each_class_is_shared_out_to_a_patch(labels, shares, seed):
    labels = np.array(labels)
    parts = assign_groups(labels, np.arange(len(labels)), fractions=shares, seed=seed)
    for label in set(labels.tolist()):
        amount = (labels == label).sum()
        for part, share in enumerate(shares):
            assert abs((labels[parts == part] == label).sum() - share * amount) < 1 + 1e-9


@given(grouped(homogeneous=True), fractions, seeds)
def test_with_groups_of_one_class_each_is_shared_out_to_a_group(data, shares, seed):
    labels, groups = data
    parts = assign_groups(labels, groups, fractions=shares, seed=seed)
    for label in set(labels.tolist()):
        largest = np.unique(groups[labels == label], return_counts=True)[1].max()
        for part, share in enumerate(shares):
            assert abs((labels[parts == part] == label).sum() - share * (labels == label).sum()) < largest + 1e-9


@given(grouped(), seeds)
def test_the_order_of_the_patches_changes_nothing(data, seed):
    labels, groups = data
    order = np.random.default_rng(1).permutation(len(labels))
    options = {"fractions": (0.5, 0.25, 0.25), "seed": seed}
    assert np.array_equal(
        assign_groups(labels[order], groups[order], **options), assign_groups(labels, groups, **options)[order]
    )


@given(grouped(), seeds)
def test_the_numbers_of_the_groups_mean_nothing_but_their_order(data, seed):
    labels, groups = data
    options = {"fractions": (0.5, 0.25, 0.25), "seed": seed}
    assert np.array_equal(
        assign_groups(labels, 3 * groups - 1_000_000, **options), assign_groups(labels, groups, **options)
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.permutations(range(4)), seeds)
def test_the_numbers_of_the_classes_mean_nothing(labels, renamed, seed):
    labels, renamed = np.array(labels), np.array(renamed)
    options = {"fractions": (0.5, 0.25, 0.25), "seed": seed}
    groups = np.arange(len(labels))
    assert np.array_equal(assign_groups(renamed[labels], groups, **options), assign_groups(labels, groups, **options))


def test_a_patch_is_as_often_in_training_as_its_share_says():
    """Over seeds: no patch is favoured (400 splits; 6 standard deviations of a share of one half are 0.15)."""
    labels, groups = np.array([0] * 12 + [1] * 8), np.arange(20)
    hits = sum(assign_groups(labels, groups, fractions=(0.5, 0.25, 0.25), seed=seed) == 0 for seed in range(400))
    assert np.abs(hits / 400 - 0.5).max() < 0.15


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.3, 0.3), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_fractions_that_are_no_shares(shares):
    with pytest.raises(InputError, match="fractions must be 3 shares that sum to 1, got"):
        check_split(seed=0, fractions=shares)


@given(grouped(), st.integers(2, 5), seeds)
def test_every_patch_is_tested_in_one_fold_and_groups_stay_together(data, count, seed):
    labels, groups = data
    folds = fold_by_group(labels, groups, count=count, validation=0.25, seed=seed)
    assert len(folds) == count
    assert (sum(parts == 2 for parts in folds) == 1).all()
    for parts in folds:
        assert set(parts.tolist()) <= {0, 1, 2}
        assert count_parted(groups, parts) == 0


def test_parted_groups_are_counted_once_each():
    groups = np.array([7, 7, 7, 3, 3, 5, 5])
    assert count_parted(groups, np.array([0, 1, 2, 0, 0, 1, 2])) == 2
    assert count_parted(groups, np.zeros(7, np.int64)) == 0
    assert count_parted(groups[:0], groups[:0]) == 0


def test_copies_of_one_image_are_a_group():
    assert groups_of_copies(np.array([90, 50, 90, 70, 50])).tolist() == [0, 1, 0, 2, 1]
    assert groups_of_copies(np.array([90, 50, 10])).tolist() == [0, 1, 2]


@given(grouped(), fractions, st.data())
def test_by_date_groups_are_whole_and_come_in_order(data, shares, draw):
    _, groups = data
    dates = np.array(draw.draw(st.lists(st.integers(0, 9), min_size=len(groups), max_size=len(groups))), dtype=np.int64)
    parts = assign_by_date(groups, dates, fractions=shares)
    first = np.array([dates[groups == group].min() for group in groups])
    for group in set(groups.tolist()):
        assert len(set(parts[groups == group].tolist())) == 1
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if (parts == earlier).any() and (parts == later).any():
            assert first[parts == earlier].max() < first[parts == later].min()


def test_by_date_each_part_has_its_share():
    dates = np.arange(100)[::-1]
    parts = assign_by_date(np.arange(100), dates, fractions=(0.53, 0.23, 0.24))
    assert np.bincount(parts).tolist() == [53, 23, 24]
    assert parts[-1] == 0


def test_what_a_split_goes_by():
    check_split_by("date")
    with pytest.raises(InputError, match="a split is by group or date, got 'day'"):
        check_split_by("day")
