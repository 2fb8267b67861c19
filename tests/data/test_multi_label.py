"""Patches with several labels each: what works as with one, and what says that it needs one."""

import numpy as np
import pytest
import torch

from genmix_transforms.data import MultiLabelPatches, few_labels, open_dataset
from genmix_transforms.errors import InputError

CLASSES = ("effusion", "mass", "nodule")


def make(count=60, *, seed=0, **options):
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (count, 1, 9, 9), dtype=np.uint8))
    targets = torch.from_numpy((random.random((count, 3)) < [0.5, 0.3, 0.2]).astype(np.uint8))
    return MultiLabelPatches(images=images, targets=targets, classes=CLASSES, **options)


def test_counts_and_words():
    patches = make()
    assert list(patches.class_counts.values()) == patches.targets.sum(0).tolist()
    assert "several labels an image" in repr(patches)
    assert torch.equal(patches.label_rows, patches.targets.float())


def test_keys_are_equal_for_equal_labels():
    patches = make()
    keys, rows = patches.label_keys, patches.targets
    same = (rows[:, None] == rows[None]).all(dim=2)
    assert torch.equal(keys[:, None] == keys[None], same)


@pytest.mark.parametrize("groups", [None, torch.arange(60) // 3])
def test_splits_and_folds_are_stratified_by_every_class(groups):
    """And by having no class at all; groups never part."""
    patches = make(groups=groups)
    parts = patches.split(seed=1)
    assert sum(map(len, parts)) == 60
    for number, share in enumerate((0.5, 0.25, 0.25)):
        rows = torch.cat([parts[number].targets, (parts[number].targets.sum(1, keepdim=True) == 0).byte()], dim=1)
        whole = torch.cat([patches.targets, (patches.targets.sum(1, keepdim=True) == 0).byte()], dim=1)
        assert (rows.sum(0) - share * whole.sum(0)).abs().max() <= 3
    if groups is not None:
        assert not set(parts[0].groups.tolist()) & set(parts[2].groups.tolist())
    assert sorted(torch.cat([test.origins for _, _, test in patches.folds(3)]).tolist()) == sorted(
        patches.origins.tolist()
    )


def test_rows_go_along():
    patches = make()
    part = patches.subset(torch.tensor([5, 3])).resized(16).with_channels(3)
    assert torch.equal(part.targets, patches.targets[[5, 3]])
    assert torch.equal(part.origins, patches.origins[[5, 3]])


def test_dates_and_scans_go_along_and_a_pool_keeps_the_window():
    days = torch.arange(60) * 7
    patches = make(dates=days, series=days // 14, window=(-100.0, 155.0))
    some = patches.subset([5, 2])
    assert (some.dates.tolist(), some.series.tolist()) == ([35, 14], [2, 1])
    pool = some.without_labels()
    assert (pool.dates.tolist(), pool.window) == ([35, 14], (-100.0, 155.0))


def test_saved_and_read_again(tmp_path):
    patches = make(groups=torch.arange(60) // 2)
    patches.save_npz(tmp_path / "set.npz")
    again = open_dataset(tmp_path / "set.npz")
    assert torch.equal(again.targets, patches.targets)
    assert (again.classes, again.fingerprint) == (CLASSES, patches.fingerprint)


def test_other_labels_are_another_set():
    patches = make()
    other = MultiLabelPatches(images=patches.images, targets=1 - patches.targets, classes=CLASSES)
    assert patches.fingerprint != other.fingerprint


def test_a_split_file(tmp_path):
    patches = make()
    patches.save_split(tmp_path / "split.csv", seed=4)
    expected = patches.split(seed=4)
    for found, part in zip(patches.with_split(tmp_path / "split.csv").split(), expected, strict=True):
        assert torch.equal(found.targets, part.targets)
    assert "|" in (tmp_path / "split.csv").read_text()


def test_as_a_pool():
    pool = make().without_labels()
    assert pool.class_counts == {"unlabelled": 60}
    assert torch.equal(pool.images, make().images)


@pytest.mark.parametrize("ask", [lambda p: p.labels, lambda p: few_labels(p, 2, seed=0)])
def test_what_needs_one_label_says_so(ask):
    with pytest.raises(
        InputError, match="have several labels each .*this needs one label an image; GenMix, splits and"
    ):
        ask(make())


def test_no_class_stands_alone():
    with pytest.raises(InputError, match="none are of 'mass' alone"):
        make().of_class("mass")


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lables'"):
        make().lables  # noqa: B018


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (torch.zeros(4, 3), r"targets must be uint8 of shape \(4, 3\), .*got torch.float32"),
        (torch.zeros(4, 2, dtype=torch.uint8), r"got torch.uint8 of shape \(4, 2\)"),
        (torch.full((4, 3), 2, dtype=torch.uint8), "targets must be 0 or 1, got 2"),
    ],
)
def test_refused(targets, text):
    with pytest.raises(InputError, match=text):
        MultiLabelPatches(images=torch.zeros(4, 1, 9, 9, dtype=torch.uint8), targets=targets, classes=CLASSES)
