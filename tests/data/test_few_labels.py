"""The laws of draws of few labels: counts kept, nested, from many groups, all from the seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data import PatchDataset, few_labels
from genmix_transforms.errors import InputError
from tests.data.made_groups import grouped, seeds


def patches_of(labels: np.ndarray, groups: np.ndarray | None = None) -> PatchDataset:
    """Patches whose pixels tell their place."""
    count = len(labels)
    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(count) % 256, torch.arange(count) // 256
    classes = tuple(f"class {number}" for number in range(max(2, labels.max() + 1)))
    return PatchDataset(
        images=images,
        labels=torch.from_numpy(labels.astype(np.int64)),
        classes=classes,
        groups=None if groups is None else torch.from_numpy(groups.astype(np.int64)),
    )


def places(part: PatchDataset) -> list[int]:
    return (part.images[:, 0, 0, 0].int() + 256 * part.images[:, 0, 0, 1].int()).tolist()


@settings(max_examples=30, deadline=None)
@given(grouped(), seeds, st.integers(1, 6))
def test_a_draw_and_the_rest_are_the_whole_and_a_larger_draw_contains_it(data, seed, count):
    patches = patches_of(*data)
    counts = {name: min(count, of_class) for name, of_class in patches.class_counts.items()}
    larger = {name: min(count + 2, of_class) for name, of_class in patches.class_counts.items()}
    few, rest = few_labels(patches, counts, seed=seed)
    assert few.class_counts == counts
    assert sorted(places(few) + places(rest)) == list(range(len(patches)))
    assert places(few) == sorted(places(few))
    assert places(rest) == sorted(places(rest))
    assert set(places(few)) <= set(places(few_labels(patches, larger, seed=seed)[0]))


@settings(max_examples=30, deadline=None)
@given(grouped(), seeds, st.integers(1, 6))
def test_no_group_of_a_class_gives_two_before_every_one_has_given_one(data, seed, count):
    patches = patches_of(*data)
    counts = {name: min(count, of_class) for name, of_class in patches.class_counts.items()}
    few, _ = few_labels(patches, counts, seed=seed)
    for label, name in enumerate(patches.classes):
        groups = len(patches.groups[patches.labels == label].unique())
        assert len(few.groups[few.labels == label].unique()) == min(counts[name], groups)


def test_another_seed_draws_others_and_every_patch_is_drawn_as_often():
    patches = patches_of(np.repeat([0, 1], 10))
    drawn = [places(few_labels(patches, 3, seed=seed)[0]) for seed in range(400)]
    assert drawn[0] == places(few_labels(patches, 3, seed=0)[0])
    assert len({tuple(one) for one in drawn}) > 300
    often = np.bincount(np.concatenate(drawn), minlength=20)
    # Binomial(400, 0.3): mean 120, sd 9.2; five of them either way.
    assert often.min() > 74
    assert often.max() < 166


@pytest.mark.parametrize(
    ("per_class", "seed", "message"),
    [
        (11, 0, r"11 labels of 'class 0' are asked for, but only 10 patches are of that class; ask for fewer"),
        (0, 0, "no labels are asked for"),
        (-1, 0, "the number of labels of 'class 0' must be"),
        (2.5, 0, "the number of labels of 'class 0' must be"),
        ({"cyst": 1, "class 1": 1}, 0, "asked for the classes cyst, class 1; its classes are class 0, class 1"),
        (3, -1, "the draw's seed"),
    ],
)  # fmt: skip
def test_draws_that_cannot_be(per_class, seed, message):
    with pytest.raises(InputError, match=message):
        few_labels(patches_of(np.repeat([0, 1], 10)), per_class, seed=seed)
