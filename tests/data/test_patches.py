"""The patch set, and the laws of its splits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.identity import find_recorded, pixel_hashes
from genmix_transforms.data.patches import PatchDataset, describe_counts
from genmix_transforms.data.readers import open_dataset
from genmix_transforms.data.splitting import assign_groups
from genmix_transforms.errors import InputError, MissingPathError, OverwriteError
from tests.data.made_groups import grouped, seeds


def patches(labels=(0, 0, 0, 1, 1, 1), *, classes=("cyst", "metastasis"), side=4, dtype=torch.uint8, **options):
    """Patches whose pixels are their own number, so that a patch can be told wherever it goes."""
    count = len(labels)
    images = torch.arange(count, dtype=torch.int64).view(-1, 1, 1, 1).expand(count, 1, side, side).to(dtype)
    return PatchDataset(images=images, labels=torch.tensor(labels), classes=classes, **options)


def who(part):
    return part.images[:, 0, 0, 0].to(torch.int64).tolist()


# --- the set


def test_counts_length_and_words():
    data = patches([1, 0, 1, 1], classes=["a", "b", "c"], name="set.npz")
    assert len(data) == 4
    assert data.class_counts == {"a": 1, "b": 3, "c": 0}
    assert data.classes == ("a", "b", "c")
    assert repr(data) == "set.npz: 4 patches, 1 x 4 x 4 (a 1, b 3, c 0)"
    assert describe_counts(data.class_counts) == "a 1, b 3, c 0"


def test_words_of_sixteen_bits():
    assert "1 x 4 x 4, 16 bit (" in repr(patches(dtype=torch.uint16))


def test_subset_takes_everything_along_in_the_order_asked():
    data = patches(groups=torch.tensor([5, 5, 6, 7, 8, 8]), official=torch.tensor([0, 0, 1, 1, 2, 2]), notes=("n",))
    part = data.subset(torch.tensor([4, 0, 0]), name="part")
    assert who(part) == [4, 0, 0]
    assert part.labels.tolist() == [1, 0, 0]
    assert part.groups.tolist() == [8, 5, 5]
    assert part.official.tolist() == [2, 0, 0]
    assert (part.name, part.notes, part.classes) == ("part", ("n",), data.classes)
    assert data.subset(np.array([1])).name == data.name


def test_subset_keeps_classes_that_have_no_patch_left():
    assert patches().subset(torch.tensor([0, 1])).class_counts == {"cyst": 2, "metastasis": 0}


def test_subset_of_sixteen_bits():
    part = patches(dtype=torch.uint16).subset(torch.tensor([5, 2]))
    assert part.images.dtype == torch.uint16
    assert who(part) == [5, 2]


def test_subset_by_mask_is_refused_not_misread():
    with pytest.raises(InputError, match=r"takes positions, got a mask; .*nonzero"):
        patches().subset(torch.tensor([True, False, True, False, False, False]))


def test_patches_of_one_class_are_a_set_of_one_class():
    data = patches([1, 0, 1, 1], classes=("a", "b"), groups=torch.tensor([4, 5, 6, 6]))
    part = data.of_class("b")
    assert who(part) == [0, 2, 3]
    assert part.class_counts == {"b": 3}
    assert part.groups.tolist() == [4, 6, 6]
    with pytest.raises(InputError, match="no class 'c'; the classes are a, b"):
        data.of_class("c")


def test_resized_says_so_once():
    data = patches(notes=("groups from 'patient': 3 groups",))
    bigger = data.resized(8)
    assert bigger.images.shape == (6, 1, 8, 8)
    assert who(bigger) == [0, 1, 2, 3, 4, 5]
    assert bigger.notes == (*data.notes, "4x4 pixels resized (bilinear, antialiased) to 8x8")
    assert bigger.resized(8) is bigger
    assert data.resized(8, fit="pad").notes[-1] == "4x4 pixels padded with zeros to 8x8"
    assert data.resized(2, fit="pad").notes[-1] == "4x4 pixels scaled down to 2x2"


@pytest.mark.parametrize("size", [4, 8])
def test_resized_by_an_unknown_fit(size):
    with pytest.raises(InputError, match="fit must be"):
        patches().resized(size, fit="stretch")


def test_fingerprint_is_of_pixels_labels_and_classes_only():
    data = patches()
    same = patches(name="other", notes=("n",), groups=torch.arange(6), official=torch.zeros(6, dtype=torch.int64))
    assert data.fingerprint == same.fingerprint
    pixels = data.images.clone()
    pixels[0, 0, 0, 0] += 1
    others = [
        PatchDataset(images=pixels, labels=data.labels, classes=data.classes),
        patches([0, 0, 1, 1, 1, 1]),
        patches(classes=("metastasis", "cyst")),
        patches(dtype=torch.uint16),
        data.subset(torch.arange(5)),
        data.resized(8),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_fingerprint_does_not_depend_on_the_layout_in_memory():
    data = patches([0, 1], side=6)
    transposed = PatchDataset(
        images=data.images.transpose(2, 3).contiguous().transpose(2, 3), labels=data.labels, classes=data.classes
    )
    assert transposed.fingerprint == data.fingerprint


def test_origins_are_those_of_the_source_whatever_was_done_since():
    data = patches(side=8)
    assert torch.equal(data.origins, pixel_hashes(data.images))
    order = torch.tensor([3, 1, 4])
    for same in (data, data.resized(16), data.resized(16).resized(8), data.with_channels(3).resized(4, fit="pad")):
        assert torch.equal(same.origins, data.origins)
        assert torch.equal(same.subset(order).origins, data.origins[order])
        assert torch.equal(same.of_class("metastasis").origins, data.origins[3:])
    parts = patches([0, 1] * 10, side=8).resized(4).split()
    assert sorted(torch.cat([part.origins for part in parts]).tolist()) == sorted(
        patches([0, 1] * 10, side=8).origins.tolist()
    )
    assert not torch.equal(pixel_hashes(data.resized(16).images), data.origins)


def test_other_pixels_without_a_source_are_other_patches():
    data = patches()
    assert not set(replace(data, images=data.images + 100).origins.tolist()) & set(data.origins.tolist())


def test_channels_of_grey_and_of_colour():
    data = patches()
    assert data.with_channels(1) is data
    assert data.with_channels(3).images.shape == (6, 3, 4, 4)
    assert torch.equal(data.with_channels(3).with_channels(1).images, data.images)
    with pytest.raises(InputError, match="channels must be 1"):
        data.with_channels(2)


def test_training_set_knows_its_patches_at_any_size():
    train, val, test = patches([0, 1] * 10, side=8).split()
    record = json.loads(json.dumps(train.resized(16).training_set()))
    assert record["fingerprint"] == train.resized(16).fingerprint
    assert record["class_counts"] == {"cyst": 5, "metastasis": 5}
    assert list(record) == ["fingerprint", "class_counts", "images"]
    assert find_recorded(train.origins, record).all()
    for part in (val, test):
        assert not find_recorded(part.origins, record).any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": torch.zeros(6, 4, 4, dtype=torch.uint8)}, r"\(N, C, H, W\), or .* got torch.uint8 of shape \(6, 4"),
        ({"images": torch.zeros(6, 1, 4, 4)}, "images must be uint8 or uint16 .* got torch.float32"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels must be int64 of shape \(6,\).* got .*\(5,\)"),
        ({"labels": torch.zeros(6, dtype=torch.int32)}, "labels must be int64 .* got torch.int32"),
        ({"labels": torch.zeros(6, 1, dtype=torch.int64)}, r"labels must be int64 .*\(6, 1\)"),
        ({"labels": torch.tensor([0, 1, 2, 0, 0, 0])}, "labels run from 0 to 2, but there are 2 classes"),
        ({"labels": torch.tensor([0, -1, 1, 0, 0, 0])}, "labels run from -1 to 1"),
        ({"groups": torch.zeros(6)}, "groups must be int64 .* got torch.float32"),
        ({"official": torch.zeros(7, dtype=torch.int64)}, "official must be int64"),
        ({"official": torch.tensor([0, 1, 2, 3, 0, 0])}, r"official must hold 0 \(train\), 1 \(val\) or 2 \(test\)"),
        ({"official": torch.tensor([0, 1, 2, -1, 0, 0])}, "official must hold"),
        ({"source_hashes": torch.zeros(6)}, "source_hashes must be int64"),
        ({"source_hashes": torch.arange(-1, 5)}, "source_hashes must be 0 or more, got -1"),
        ({"classes": ("cyst", "cyst")}, "class names must differ, got cyst, cyst"),
    ],
)
def test_what_does_not_fit_together(change, text):
    fields = {
        "images": torch.zeros(6, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 0, 0, 1, 1, 1]),
        "classes": ("cyst", "metastasis"),
        "name": "mine",
    }
    with pytest.raises(InputError, match=rf"^mine: .*{text}"):
        PatchDataset(**(fields | change))


# --- splits


@given(grouped(), seeds)
def test_split_has_every_patch_once_and_the_same_seed_the_same_split(data, seed):
    labels, groups = data
    whole = patches(labels.tolist(), classes=tuple("abcd"), dtype=torch.uint16, groups=torch.from_numpy(groups))
    assignment = assign_groups(labels, groups, fractions=(0.5, 0.25, 0.25), seed=seed)
    if len(set(assignment.tolist())) < 3:  # too few groups for three parts
        with pytest.raises(InputError, match="part is empty"):
            whole.split(seed=seed)
        return
    parts = whole.split(seed=seed)
    assert sorted(who(parts[0]) + who(parts[1]) + who(parts[2])) == list(range(len(labels)))
    for part, again in zip(parts, whole.split(seed=seed), strict=True):
        assert who(part) == who(again)
        assert part.labels.tolist() == labels[who(part)].tolist()
    assert not set(parts[0].groups.tolist()) & set(parts[1].groups.tolist())
    assert not set(parts[0].groups.tolist()) & set(parts[2].groups.tolist())
    assert not set(parts[1].groups.tolist()) & set(parts[2].groups.tolist())


def test_another_seed_another_split():
    whole = patches([0, 1] * 50)
    splits = {tuple(who(whole.split(seed=seed)[0])) for seed in range(10)}
    assert len(splits) == 10


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_are_placed_while_there_is_room(seed):
    groups = torch.tensor([0] * 8 + list(range(1, 9)))
    parts = patches([0] * 16, groups=groups).split(seed=seed)
    assert [len(part) for part in parts] == [8, 4, 4]
    assert set(parts[0].groups.tolist()) == {0}


def test_a_rare_class_gets_its_share_beside_a_common_one():
    whole = patches([0] * 400 + [1] * 8, dtype=torch.uint16)
    train, val, test = whole.split(seed=3)
    assert [part.class_counts["metastasis"] for part in (train, val, test)] == [4, 2, 2]


def test_a_split_keeps_exact_copies_together_where_nobody_names_groups():
    """48 files of 12 pictures: every picture of the test was in the training part."""
    pixels = torch.randint(0, 256, (12, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = torch.arange(48) % 2
    data = PatchDataset(images=pixels.repeat(4, 1, 1, 1), labels=labels, classes=("cyst", "metastasis"))
    for seed in range(5):
        parts = data.split(seed=seed, fractions=(0.5, 0.25, 0.25))
        seen = [set(part.origins.tolist()) for part in parts]
        assert sum(map(len, seen)) == len(set().union(*seen)) == 12


def test_parts_are_named_and_keep_the_notes():
    parts = patches([0, 1] * 10, name="set.csv", notes=("resized",)).split()
    assert [part.name for part in parts] == ["set.csv (train)", "set.csv (val)", "set.csv (test)"]
    assert all(part.notes == ("resized",) for part in parts)


def test_a_class_that_a_part_lacks_is_said():
    data = patches([0, 0, 0, 0, 1, 1], official=torch.tensor([0, 0, 1, 2, 0, 1]), name="set")
    with pytest.warns(UserWarning, match=r"set \(test\): no patch of metastasis to test with") as said:
        data.split()
    assert len(said) == 1
    with pytest.warns(UserWarning, match=r"set \(fold 0, val\): no patch of metastasis to validate with"):
        patches([0] * 8 + [1, 1], name="set").folds(2)


def test_a_class_that_no_patch_has_is_missing_nowhere(recwarn):
    patches([0, 1] * 4, classes=("a", "b", "c")).split()
    assert not recwarn.list


# --- dates


def dated(**options):
    return patches(
        [0, 1, 0, 1, 0, 1, 0, 1],
        groups=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]),
        dates=torch.tensor([30, 50, 10, 10, 40, 45, 20, 21]),
        **options,
    )


def test_a_split_by_date():
    """Whoever came first trains; a group counts by its first date, and the source's own split does not count."""
    data = dated(official=torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    train, val, test = data.split(by="date")
    assert (who(train), who(val), who(test)) == ([2, 3, 6, 7], [0, 1], [4, 5])
    assert data.assigned(by="date").official.tolist() == [1, 1, 0, 0, 2, 2, 0, 0]
    assert torch.equal(data.assigned().official, data.official)


def test_a_split_by_date_needs_dates(tmp_path):
    with pytest.raises(InputError, match="no dates to split by; expected an array or column date"):
        patches().split(by="date")
    data = dated()
    with pytest.raises(InputError, match="1 of 8 patches have no date"):
        replace(data, dates=data.dates.clone().index_fill_(0, torch.tensor([3]), -1)).split(by="date")
    with pytest.raises(InputError, match="a split is by group or date, got 'day'"):
        data.split(by="day")
    data.save_split(tmp_path / "split.csv", by="date")
    assert data.with_split(tmp_path / "split.csv").official.tolist() == [1, 1, 0, 0, 2, 2, 0, 0]


def test_dates_and_series_are_saved(tmp_path):
    data = replace(dated(), series=torch.arange(8) // 2)
    data.save_npz(tmp_path / "set.npz")
    read = open_dataset(tmp_path / "set.npz")
    assert torch.equal(read.dates, data.dates)
    assert torch.equal(read.series, data.series)
    assert read.subset(torch.tensor([5])).dates.tolist() == [45]


# --- windows


def stored(values, **options):
    """Patches of one pixel, 16 bits."""
    images = torch.tensor(values, dtype=torch.uint16).view(-1, 1, 1, 1)
    return PatchDataset(images=images, labels=torch.arange(len(values)) % 2, classes=("a", "b"), **options)


def test_a_window_shows_hounsfield_units_in_eight_bits():
    data = stored([0, 864, 865, 1064, 1263, 1264, 4095])
    windowed = data.with_window(40, 400)
    assert windowed.images.flatten().tolist() == [0, 0, 1, 128, 254, 255, 255]
    assert windowed.images.dtype == torch.uint8
    assert windowed.window == (-160, 240)
    assert torch.equal(windowed.origins, data.origins)
    assert windowed.notes == (
        "window of level 40 and width 400 HU: -160 HU is 0, 240 HU is 255; a stored 0 is -1024 HU (hu_of_zero)",
    )
    assert windowed.training_set()["window"] == [-160, 240]
    assert "window" not in data.training_set()
    shifted = stored([0, 840]).with_window(40, 400, hu_of_zero=-800)
    assert shifted.images.flatten().tolist() == [0, 128]


def test_a_window_of_patches_that_say_what_their_values_are():
    data = stored([0, 65535, 16384], window=(-1024, 3071))
    assert data.with_window(0, 400).images.flatten().tolist() == [0, 255, 127]
    with pytest.raises(InputError, match="these images say what their values mean; leave hu_of_zero out"):
        data.with_window(0, 400, hu_of_zero=0)


@pytest.mark.parametrize("window", [(40, 0), (40, -1), (float("nan"), 400), (40, float("inf"))])
def test_what_is_no_window(window):
    with pytest.raises(InputError, match="a level and a width above 0, in HU, such as 40,400"):
        stored([0, 1]).with_window(*window)


def test_eight_bits_have_no_window():
    with pytest.raises(InputError, match="a window is for 16-bit images of CT, and these have 8 bits"):
        patches().with_window(40, 400)


def test_a_window_is_saved(tmp_path):
    data = stored([0, 1064]).with_window(40, 400)
    data.save_npz(tmp_path / "set.npz")
    assert open_dataset(tmp_path / "set.npz").window == (-160, 240)
    assert open_dataset(tmp_path / "set.npz").subset(torch.tensor([1])).window == (-160, 240)


def test_official_split_is_kept_unless_told_not_to():
    data = patches(official=torch.tensor([2, 0, 1, 0, 1, 2]))
    assert [who(part) for part in data.split(seed=5, fractions=(0.9, 0.05, 0.05))] == [[1, 3], [2, 4], [0, 5]]
    anew = patches([0, 1] * 20, official=torch.zeros(40, dtype=torch.int64)).split(official=False)
    assert [len(part) for part in anew] == [20, 10, 10]


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.5, 0.3, 0.3), (1.2, -0.1, -0.1), (0.25, 0.25, 0.25, 0.25), (float("nan"), 0.5, 0.5)]
)
def test_fractions_that_are_no_shares(shares):
    with pytest.raises(InputError, match="fractions must be 3 shares that sum to 1, got"):
        patches().split(fractions=shares)


def test_empty_part_and_the_way_out():
    with pytest.raises(InputError, match=r"patches: the test part is empty; give fractions"):
        patches().split(fractions=(0.6, 0.4, 0))
    with pytest.raises(InputError, match=r"the val part is empty; give official=False"):
        patches(official=torch.tensor([0, 0, 0, 0, 2, 2])).split()


# --- without labels


def test_a_pool_has_one_class_and_is_saved_without_labels(tmp_path):
    data = patches(groups=torch.arange(6), official=torch.tensor([0, 0, 1, 1, 2, 2]))
    pool = data.without_labels()
    assert pool.class_counts == {"unlabelled": 6}
    assert data.class_counts == {"cyst": 3, "metastasis": 3}
    assert who(pool) == who(data)
    assert pool.fingerprint == replace(data, labels=1 - data.labels).without_labels().fingerprint
    pool.save_npz(tmp_path / "pool.npz")
    with np.load(tmp_path / "pool.npz") as archive:
        assert not {"labels", "label_names"} & set(archive)
    back = open_dataset(tmp_path / "pool.npz", labelled=False)
    assert torch.equal(back.origins, data.origins)
    assert torch.equal(back.official, data.official)
    with pytest.raises(InputError, match="at least two classes"):
        pool.subset(torch.empty(0, dtype=torch.int64)).save_npz(tmp_path / "none.npz")


def test_patches_that_others_have_are_found_by_origin_or_by_pixels():
    data = patches(side=16)
    others = patches(labels=(0, 0, 0), side=16).resized(8)  # numbers 0 to 2, at another size
    assert data.found_in(others).tolist() == [True] * 3 + [False] * 3
    assert who(data.without(others)) == [3, 4, 5]
    # Somebody else's copies: of the pixels that the patches have at this size, and of no origin of ours.
    copies = replace(others, source_hashes=torch.tensor([7, 8, 9]))
    assert not data.found_in(copies).any()
    assert data.resized(8).found_in(copies).tolist() == [True] * 3 + [False] * 3
    assert len(data.without(data)) == 0
    assert not data.found_in().any()


# --- saved


@settings(max_examples=30)
@given(
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=9).filter(lambda labels: len(set(labels)) > 1),
    channels=st.sampled_from([1, 3, 7]),
    dtype=st.sampled_from([torch.uint8, torch.uint16]),
    grouped=st.booleans(),
    split=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_what_is_saved_is_read_again(tmp_path_factory, labels, channels, dtype, grouped, split, seed):
    path = tmp_path_factory.mktemp("saved") / "new" / "set.npz"
    rng, count = np.random.default_rng(seed), len(labels)
    images = rng.integers(0, torch.iinfo(dtype).max, (count, channels, 9, 10), endpoint=True)
    data = PatchDataset(
        images=torch.from_numpy(images.astype(np.uint8 if dtype == torch.uint8 else np.uint16)),
        labels=torch.tensor(labels),
        classes=("cyst", "hémangiome", "metastasis"),
        groups=torch.arange(count) // 2 if grouped else None,
        official=torch.from_numpy(rng.integers(0, 3, count)) if split else None,
    )
    data.save_npz(path)
    with np.load(path) as archive:
        assert "origin" not in archive  # the file is what the patches come from
    back = open_dataset(path)
    assert torch.equal(back.images, data.images)
    assert torch.equal(back.origins, data.origins)
    assert torch.equal(back.labels, data.labels)
    assert back.classes == data.classes
    for one, other in ((back.groups, data.groups), (back.official, data.official)):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_saved_patches_keep_where_they_come_from(tmp_path):
    data = patches(side=16)
    for number, changed in enumerate((data.resized(8), data.resized(8).with_channels(3))):
        changed.save_npz(tmp_path / f"{number}.npz")
        back = open_dataset(tmp_path / f"{number}.npz")
        assert torch.equal(back.images, changed.images)
        assert torch.equal(back.origins, data.origins)
        assert torch.equal(open_dataset(tmp_path / f"{number}.npz", size=32, channels=1).origins, data.origins)


def test_a_saved_file_is_replaced_only_if_told_to(tmp_path):
    path = tmp_path / "set.npz"
    patches().save_npz(path)
    first = path.read_bytes()
    with pytest.raises(OverwriteError, match="is there already; give another name, or overwrite=True"):
        patches(labels=(1, 0)).save_npz(path)
    assert path.read_bytes() == first
    patches(labels=(1, 0), side=8).save_npz(path, overwrite=True)
    assert len(open_dataset(path)) == 2
    assert [child.name for child in tmp_path.iterdir()] == ["set.npz"]


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "set.zip", "patches are saved as .npz"),
        ({"labels": (1, 1)}, "set.npz", "at least two classes"),
        ({"labels": ()}, "set.npz", "at least two classes"),
    ],
)
def test_what_would_not_be_read_is_not_saved(tmp_path, options, name, message):
    data = (
        patches(labels=(0, 1)).subset(torch.empty(0, dtype=torch.int64))
        if options.get("labels") == ()
        else patches(**options)
    )
    with pytest.raises(InputError, match=message):
        data.save_npz(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_more_channels_than_are_read_are_not_saved(tmp_path):
    wide = PatchDataset(
        images=torch.zeros(2, 8, 9, 9, dtype=torch.uint8), labels=torch.tensor([0, 1]), classes=("a", "b")
    )
    with pytest.raises(InputError, match="images of 8 channels would not be read; at most 7 are"):
        wide.save_npz(tmp_path / "set.npz")


# --- split files


def test_the_split_of_a_file_is_the_split_that_was_saved(tmp_path):
    data = patches([0, 1] * 12, groups=torch.arange(24) // 2, side=8)
    data.save_split(tmp_path / "new" / "split.csv", seed=4, fractions=(0.4, 0.3, 0.3))
    again = data.resized(16).with_split(tmp_path / "new" / "split.csv")
    for seed in (0, 1):
        assert [who(part) for part in again.split(seed=seed)] == [
            who(part) for part in data.split(seed=4, fractions=(0.4, 0.3, 0.3))
        ]


def test_the_sources_own_split_is_saved_unless_told_not_to(tmp_path):
    data = patches([0, 1] * 6, official=torch.tensor([2, 0, 1] * 4))
    data.save_split(tmp_path / "own.csv")
    assert torch.equal(data.with_split(tmp_path / "own.csv").official, data.official)
    data.save_split(tmp_path / "anew.csv", official=False)
    anew = data.with_split(tmp_path / "anew.csv").split()
    assert [who(part) for part in anew] == [who(part) for part in data.split(official=False)]


def test_folds_are_saved_as_a_file_each(tmp_path):
    data = patches([0, 1] * 12)
    data.save_split(tmp_path / "fold-{fold}" / "split.csv", folds=3, seed=2)
    for number, parts in enumerate(data.folds(3, seed=2)):
        again = data.with_split(tmp_path / f"fold-{number}" / "split.csv")
        assert [who(part) for part in again.split()] == [who(part) for part in parts]


def test_split_files_are_replaced_only_if_told_to(tmp_path):
    data = patches([0, 1] * 12)
    data.save_split(tmp_path / "0.csv")
    first = (tmp_path / "0.csv").read_bytes()
    with pytest.raises(OverwriteError, match=r"0\.csv is there already; .*--overwrite"):
        data.save_split(tmp_path / "{fold}.csv", folds=2)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("0.csv", first)]
    data.save_split(tmp_path / "{fold}.csv", folds=2, overwrite=True)
    assert (tmp_path / "0.csv").read_bytes() != first


def test_a_split_that_cannot_be_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="the test part is empty"):
        patches().save_split(tmp_path / "split.csv", fractions=(0.6, 0.4, 0))
    with pytest.raises(InputError, match="too few for 3 folds"):
        patches(groups=torch.tensor([0, 0, 0, 1, 1, 1])).save_split(tmp_path / "{fold}.csv", folds=3)
    assert not list(tmp_path.iterdir())


def test_no_split_file(tmp_path):
    with pytest.raises(MissingPathError, match=r"nope\.csv: no such file; expected a CSV with a header \(path,split\)"):
        patches().with_split(tmp_path / "nope.csv")


def test_paths_go_along():
    data = patches(paths=tuple(f"{number}.png" for number in range(6)))
    assert data.subset(torch.tensor([4, 0])).paths == ("4.png", "0.png")
    assert data.resized(8).paths == data.paths
    assert "png" not in repr(data)
    with pytest.raises(InputError, match="paths must be 6, one for each image, got 1"):
        patches(paths=("a.png",))


# --- folds


def folds_or_refusal(whole, count, seed):
    try:
        return whole.folds(count, seed=seed), ""
    except InputError as error:
        return (), str(error)


def numbers(part):
    """Patches of more than 256 numbers: the two halves of 16 bits."""
    return part.images[:, 0, 0, 0].to(torch.int64).tolist()


@given(grouped(), st.integers(2, 4), seeds)
def test_folds_test_every_patch_once_and_part_no_group(data, count, seed):
    labels, groups = data
    whole = patches(labels.tolist(), classes=tuple("abcd"), dtype=torch.uint16, groups=torch.from_numpy(groups))
    folds, refusal = folds_or_refusal(whole, count, seed)
    if refusal:  # too few groups: an empty part is refused, and not filled from elsewhere
        assert "part of fold" in refusal
        assert max(np.bincount(labels, minlength=4).min(), len(set(groups.tolist()))) < 10 * count
        return
    assert len(folds) == count
    assert sorted(number for _, _, test in folds for number in numbers(test)) == list(range(len(labels)))
    for parts in folds:
        assert sorted(number for part in parts for number in numbers(part)) == list(range(len(labels)))
        owners = [set(part.groups.tolist()) for part in parts]
        assert not owners[0] & owners[1]
        assert not owners[0] & owners[2]
        assert not owners[1] & owners[2]
        for part in parts:
            assert part.labels.tolist() == labels[numbers(part)].tolist()


# 30: with three or more of some class outside a test part, none of the parts stays empty.
@given(st.lists(st.integers(0, 3), min_size=30, max_size=150), st.integers(2, 5), seeds)
def test_folds_without_groups_share_each_class_out_to_a_patch(labels, count, seed):
    whole = patches(labels, classes=tuple("abcd"), dtype=torch.uint16)
    for train, val, test in whole.folds(count, seed=seed, validation=0.25):
        for name, amount in whole.class_counts.items():
            assert abs(test.class_counts[name] - amount / count) < 1 + 1e-9
            rest = amount - test.class_counts[name]
            assert abs(val.class_counts[name] - 0.25 * rest) < 1 + 1e-9
            assert train.class_counts[name] + val.class_counts[name] == rest


def test_folds_follow_from_the_seed():
    whole = patches([0, 1] * 30)
    first, again, other = (whole.folds(3, seed=seed) for seed in (1, 1, 2))
    assert [[who(part) for part in fold] for fold in first] == [[who(part) for part in fold] for fold in again]
    assert [who(test) for *_, test in first] != [who(test) for *_, test in other]


def test_copies_of_one_patch_stay_together_where_nobody_has_said_what_belongs_together():
    images = torch.arange(20, dtype=torch.uint8).repeat(3).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    whole = PatchDataset(images=images, labels=torch.arange(60) % 2, classes=("a", "b"))
    for parts in whole.folds(4):
        pictures = [set(who(part)) for part in parts]
        assert not pictures[0] & pictures[1]
        assert not pictures[0] & pictures[2]
        assert not pictures[1] & pictures[2]
    # Somebody has said that every patch is by itself.
    apart = PatchDataset(images=images, labels=torch.arange(60) % 2, classes=("a", "b"), groups=torch.arange(60))
    assert any(set(who(train)) & set(who(test)) for train, _, test in apart.folds(4))


def test_folds_leave_the_sources_own_split_aside():
    data = patches([0, 1] * 20, official=torch.zeros(40, dtype=torch.int64), name="set.npz", notes=("n",))
    folds = data.folds(2)
    assert [len(test) for *_, test in folds] == [20, 20]
    assert all(part.official is None for parts in folds for part in parts)
    assert [part.name for part in folds[1]] == [f"set.npz (fold 1, {split})" for split in ("train", "val", "test")]
    assert folds[0][0].notes == ("n",)


@pytest.mark.parametrize("count", [1, 0, -2, 2.5, True, "3"])
def test_numbers_of_folds_that_are_none(count):
    with pytest.raises(InputError, match="the number of folds must be a whole number, at least 2"):
        patches([0, 1] * 20).folds(count)


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_of_validation_that_is_none(share):
    with pytest.raises(InputError, match="validation must be a share between 0 and 1"):
        patches([0, 1] * 20).folds(3, validation=share)


def test_too_few_groups_for_the_folds():
    with pytest.raises(InputError, match=r"part of fold \d is empty: 2 groups are too few for 3 folds"):
        patches(groups=torch.tensor([0, 0, 0, 1, 1, 1])).folds(3)


def test_folds_of_real_images_with_near_duplicates(real_data):
    from genmix_transforms.data import open_dataset

    whole = open_dataset(real_data / "busi_128.npz", size=16)
    folds = whole.folds(3)
    assert sum(len(test) for *_, test in folds) == 780
    for train, val, test in folds:
        assert (len(train), len(val), len(test)) == (390, 130, 260)
        for name, amount in whole.class_counts.items():
            assert abs(test.class_counts[name] - amount / 3) <= 1


# --- volumes


def cubes(*sides, channels=1, count=6):
    """Volumes whose voxels all differ, as far as eight bits let them."""
    shape = (count, channels, *sides)
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return PatchDataset(images=pixels, labels=torch.arange(count) % 2, classes=("cyst", "metastasis"))


def test_volumes_in_words():
    assert (patches().dimensions, cubes(8, 9, 10).dimensions) == (2, 3)
    assert repr(cubes(8, 9, 10, channels=2)) == "patches: 6 patches, 2 x 8 x 9 x 10 (cyst 3, metastasis 3)"


def test_volumes_of_another_size_and_other_channels():
    data = cubes(8, 12, 10)
    bigger = data.resized(16)
    assert bigger.images.shape == (6, 1, 16, 16, 16)
    assert bigger.notes == ("8x12x10 pixels resized (trilinear, antialiased) to 16x16x16",)
    assert torch.equal(bigger.origins, data.origins)
    assert cubes(16, 16, 16).resized(16).notes == ()
    assert data.with_channels(1) is data
    colored = data.with_channels(3)
    assert colored.images.shape == (6, 3, 8, 12, 10)
    assert torch.equal(colored.with_channels(1).images, data.images)


@pytest.mark.parametrize("channels", [1, 2])
def test_saved_volumes_are_read_again(tmp_path, channels):
    data = cubes(8, 9, 10, channels=channels)
    data.save_npz(tmp_path / "set.npz")
    again = open_dataset(tmp_path / "set.npz")
    assert torch.equal(again.images, data.images)
    assert torch.equal(again.origins, data.origins)
    assert again.fingerprint == data.fingerprint


def test_volumes_as_thin_as_channels_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="volumes of 7x9x9 would not be read, .* more than 7 along each"):
        cubes(7, 9, 9).save_npz(tmp_path / "set.npz")
    assert not list(tmp_path.iterdir())


def test_a_window_shows_volumes_in_eight_bits():
    pixels = torch.full((2, 1, 8, 8, 8), 1064).to(torch.uint16)
    data = PatchDataset(images=pixels, labels=torch.tensor([0, 1]), classes=("a", "b"))
    shown = data.with_window(40, 400)
    assert shown.images.unique().tolist() == [128]
    assert shown.images.shape == pixels.shape


def test_masks_of_volumes_go_along():
    data = cubes(8, 8, 8, count=4)
    masks = torch.zeros(4, 8, 8, 8, dtype=torch.uint8)
    masks[:, :4] = 2
    halved = replace(data, masks=masks).resized(4)
    assert halved.images.shape == (4, 1, 4, 4, 4)
    assert torch.equal(halved.masks, masks[:, ::2, ::2, ::2])


def test_volumes_are_split_and_chosen_like_images():
    parts = cubes(8, 8, 8, count=20).split()
    assert sum(len(part) for part in parts) == 20
    assert all(part.dimensions == 3 for part in parts)
    assert cubes(8, 8, 8).of_class("cyst").images.shape == (3, 1, 8, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"masks": torch.zeros(2, 8, 9, dtype=torch.uint8)},
            r"masks must be uint8 of shape \(2, 8, 8\), .*\(2, 8, 9\)",
        ),
        (
            {"masks": torch.zeros(1, 8, 8, dtype=torch.uint8)},
            r"masks must be .* one for each image, got torch.uint8 of shape \(1, 8, 8\)",
        ),
        ({"masks": torch.zeros(2, 8, 8)}, "masks must be .* got torch.float32"),
        ({"mask_classes": ("a", "b")}, "mask_classes name the pixel values of masks; give masks as well"),
        (
            {"masks": torch.full((2, 8, 8), 2, dtype=torch.uint8), "mask_classes": ("a", "b")},
            r"masks run up to 2, but mask_classes has 2 names \(a, b\)",
        ),
    ],
)
def test_masks_that_do_not_fit(options, message):
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match=f"^patches: {message}"):
        PatchDataset(images=images, labels=torch.tensor([0, 1]), classes=("a", "b"), **options)
