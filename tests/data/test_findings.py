"""What is said of patches that were read: copies, contradictions, dark 16 bits, groups that nobody named."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genmix_transforms.data.findings import describe_findings, maybe_groups
from genmix_transforms.data.patches import PatchDataset


def patches(**fields):
    """Eight different images of noise, of two classes, each the group of its own."""
    pixels = torch.randint(0, 256, (8, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    known = {
        "images": pixels,
        "labels": torch.arange(8) % 2,
        "classes": ("cyst", "metastasis"),
        "groups": torch.arange(8),
    }
    return PatchDataset(**{**known, **fields})


def test_nothing_is_said_of_good_data():
    assert describe_findings(patches()) == ()


def test_copies_are_counted():
    data = patches()
    copied = replace(data, images=data.images[[0, 2, 2, 2, 4, 5, 6, 7]], labels=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    (note,) = describe_findings(copied)
    assert note == "8 images are 6 different ones: the others are exact copies"
    alone = describe_findings(replace(copied, groups=None))
    assert "the others are exact copies; a split keeps copies together" in alone[0]


def test_an_image_under_two_labels_is_named():
    data = patches()
    twice = replace(data, images=data.images[[0, 0, 2, 3, 4, 5, 6, 7]])
    assert "1 image is there under two labels or more (0, 1): one of them is wrong" in describe_findings(twice)
    named = replace(twice, paths=tuple(f"{number}.png" for number in range(8)))
    assert any("(0.png, 1.png)" in note for note in describe_findings(named))


def test_images_of_one_gray_level_are_counted():
    data = patches()
    flat = data.images.clone()
    flat[3], flat[5] = 7, 9
    assert describe_findings(replace(data, images=flat)) == ("2 of 8 images are of one gray level all over",)


@pytest.mark.parametrize(("highest", "said"), [(4095, True), (16383, True), (16384, False), (65535, False)])
def test_sixteen_bits_of_which_few_are_used(highest, said):
    data = patches()
    deep = data.images.to(torch.int32) * highest // int(data.images.max())
    notes = describe_findings(replace(data, images=deep.to(torch.uint16)))
    assert any(f"values up to {highest}, " in note and "the images are dark" in note for note in notes) == said
    if highest == 4095:
        assert "values up to 4095, 6 % of what 16 bits hold" in notes[0]


def test_groups_that_nobody_named():
    data = patches(groups=None)
    assert describe_findings(data) == (
        "no groups: if several patches are of one patient, say which (a column patient, or --group-key)",
    )
    (note,) = describe_findings(data, maybe_groups=("source_image", "scanner"))
    assert "'source_image' or 'scanner' might say which belong together" in note
    assert describe_findings(replace(data, official=torch.zeros(8, dtype=torch.int64))) == ()
    assert describe_findings(data.without_labels()) == ()


def test_a_group_has_a_name_that_repeats():
    columns = {
        "name": np.array(["a", "b", "c", "d"]),
        "patient_name": np.array(["a", "a", "b", "b"]),
        "visit": np.array([[1], [1], [2], [3]]),
        "all": np.array([1, 1, 1, 1]),
        "score": np.array([0.5, 0.5, 0.1, 0.2]),
        "other": np.array([1, 2]),
    }
    assert maybe_groups(columns, 4) == ("patient_name", "visit")
