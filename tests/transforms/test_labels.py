"""Where labels are looked for: the same places as torchvision's MixUp looks."""

import pytest
import torch
from torchvision.transforms.v2._utils import _parse_labels_getter

from genmix_transforms.errors import InputError
from genmix_transforms.transforms.labels import find_labels, parse_labels_getter

IMAGES, LABELS = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])

KEYS = ["labels", "Labels", "LABELS", "label", "label_ids", "my_Label", "gt_labels"]
BOTH_FIND = [
    (IMAGES, LABELS),
    [IMAGES, LABELS],
    (IMAGES, LABELS, torch.zeros(2)),
    *({"image": IMAGES, key: LABELS} for key in KEYS),
    *((IMAGES, {"path": "a", key: LABELS}) for key in KEYS),
    {"label": IMAGES, "labels": LABELS},  # "labels" before what only contains "label"
    {"label": LABELS, "other_label": IMAGES},  # of several, the first
]


@pytest.mark.parametrize("sample", BOTH_FIND)
def test_finds_what_torchvision_finds(sample):
    assert find_labels(sample) is LABELS
    assert _parse_labels_getter("default")(sample) is LABELS


def test_keys_need_not_be_strings():
    assert find_labels({3: IMAGES, None: 1, "labels": LABELS}) is LABELS


def test_a_value_that_is_no_tensor_is_handed_on():
    """What it is, GenMix says: it knows what it expects."""
    assert find_labels({"labels": [0, 1]}) == [0, 1]


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (IMAGES, r"expected a sample of images and labels, got one tensor: genmix\(images, labels\)"),
        ((IMAGES,), r"expected a sample of images and labels, got 1 item"),
        ((), r"expected a sample of images and labels, got 0 item"),
        ({"image": IMAGES, "target": LABELS}, r"could not tell where the labels are.*pass a callable as labels_getter"),
        ({3: LABELS}, "could not tell where the labels are"),
        ((IMAGES, "cyst"), "could not tell where the labels are.*got str"),
        ("images", "could not tell where the labels are.*got str"),
        ((IMAGES, [0, 1]), "the labels must be a tensor, got a list"),
        ((IMAGES, (LABELS,)), "the labels must be a tensor, got a tuple"),
    ],
)
def test_not_found(sample, text):
    with pytest.raises(InputError, match=f"GenMix: {text}"):
        find_labels(sample)


def test_the_getter():
    def getter(sample):
        return sample["y"]

    assert parse_labels_getter("default") is find_labels
    assert parse_labels_getter(getter) is getter


@pytest.mark.parametrize("wrong", ["labels", None, 1, ("default",)])
def test_a_getter_that_is_none(wrong):
    with pytest.raises(InputError, match=r"labels_getter must be 'default' or a callable, got"):
        parse_labels_getter(wrong)
