"""Class names, groups and splits as sources spell them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.data.labelling import read_dates, read_groups, read_series, refuse_single_class, sorted_names
from genmix_transforms.data.splitting import SPLIT_NAMES, SPLITS
from genmix_transforms.errors import InputError

HERE = Path("set.npz")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "1"], ("1", "9", "10")),
        (["10", "9", "none"], ("10", "9", "none")),
        (["-1", "+2", "0"], ("-1", "0", "+2")),
        (["01", "1"], ("01", "1")),
        (["1.5", "10.5"], ("1.5", "10.5")),
        ([], ()),
    ],
)
def test_names_sort_as_letters_or_as_numbers(names, expected):
    assert sorted_names(names) == expected


@given(st.lists(st.integers(-50, 50), min_size=1))
def test_whole_numbers_sort_as_numbers(numbers):
    assert [int(name) for name in sorted_names(map(str, numbers))] == sorted(set(numbers))


def test_split_names_lead_to_their_parts():
    for part, number in zip(SPLITS, range(3), strict=True):
        assert SPLIT_NAMES[part] == number
    assert {SPLIT_NAMES[name] for name in ("val", "valid", "validation")} == {1}


@pytest.mark.parametrize(
    "raw",
    [
        np.array([7, 7, 300, 2]),
        np.array([[7], [7], [300], [2]], dtype=np.uint16),
        np.array(["p7", "p7", "p9", "p2"]),
        np.array([b"p7", b"p7", b"p9", b"p2"]),
    ],
)
def test_groups_are_numbered_and_counted(raw):
    groups, notes = read_groups(HERE, "patient", raw, 4, None)
    assert groups.dtype == torch.int64
    assert groups.tolist() == [1, 1, 2, 0]
    assert notes == ("groups from 'patient': 3 groups",)


def test_groups_that_the_official_split_parts_are_counted():
    raw, official = np.array([1, 1, 2, 2, 3]), torch.tensor([0, 1, 0, 0, 2])
    assert read_groups(HERE, "patient", raw, 5, official)[1] == (
        "groups from 'patient': 3 groups",
        "groups that lie in more than one part of the source's own split: 1",
    )
    assert len(read_groups(HERE, "patient", raw, 5, torch.tensor([1, 1, 0, 0, 2]))[1]) == 1


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (np.array([1, 2, 3]), r"set\.npz: groups 'patient' are int64 of shape \(3,\); expected .* \(4,\)"),
        (np.array([1.0, np.nan, 3, 4]), "are float64"),
        (np.zeros((4, 2), int), r"shape \(4, 2\)"),
        (np.array(["a", "", "b", "c"]), r"patient\[1\] is empty; give each patch the name of its group"),
        (np.array([b"a", b"a", b"", b"c"]), r"patient\[2\] is empty"),
    ],
)
def test_groups_that_are_none(raw, text):
    with pytest.raises(InputError, match=text):
        read_groups(HERE, "patient", raw, 4, None)


def test_two_classes_at_least():
    refuse_single_class(HERE, ["a", "b"])
    with pytest.raises(InputError, match=r"set\.npz: one class \(a\); a classifier needs at least two"):
        refuse_single_class(HERE, ["a"])
    with pytest.raises(InputError, match=r"set\.npz: no class; a classifier needs at least two"):
        refuse_single_class(HERE, [])


def test_dates_as_they_are_written():
    dates = read_dates({"date": np.array(["2024-03-01", "20240302", ""])}, 3)
    assert dates[1] - dates[0] == 1
    assert dates[2] == -1
    assert read_dates({"date_rank": np.array(["3", "-1"]), "date": np.array(["2024-03-01"] * 2)}, 2).tolist() == [3, -1]
    assert read_dates({"date_rank": np.array([3, 0])}, 2).tolist() == [3, 0]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"date": np.array(["9f86d081884c7d65", "60303ae22b998861"])},  # keyed hashes
        {"date": np.array(["2024-13-01", "2024-01-01"])},
        {"date": np.array(["2024-01-01"])},
        {"date_rank": np.array(["first", "second"])},
    ],
)
def test_what_is_no_date_says_nothing(columns):
    assert read_dates(columns, 2) is None


def test_scans_are_numbered():
    assert read_series({"series": np.array(["b", "a", "b"])}, 3).tolist() == [1, 0, 1]
    assert read_series({"series": np.array([0.5, 1.5])}, 2) is None
    assert read_series({}, 2) is None
