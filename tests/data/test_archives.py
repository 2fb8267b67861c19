"""MedMNIST and plain archives: every image with its own label, split and group, and every bad array refused."""

import numpy as np
import pytest
import torch

from genmix_transforms.data.archives import read_archive
from genmix_transforms.errors import InputError

COUNT = 6


def plain(**changes):
    """Six grey 9x10 images of two classes; a change of None takes the array out."""
    arrays = {
        "images": np.random.default_rng(0).integers(0, 256, (COUNT, 9, 10), dtype=np.uint8),
        "labels": np.array([0, 1, 0, 1, 1, 1]),
        "label_names": np.array(["cyst", "metastasis"]),
    } | changes
    return {key: array for key, array in arrays.items() if array is not None}


def medmnist(shape=(9, 10), dtype=np.uint8, classes=3, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 7), ("val", 3), ("test", 4)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, *shape)).astype(dtype)
        arrays[f"{part}_labels"] = (np.arange(count) % classes).reshape(-1, 1).astype(np.uint8)
    return {key: array for key, array in (arrays | changes).items() if array is not None}


@pytest.fixture
def read(tmp_path):
    def save_and_read(arrays, **options):
        np.savez(tmp_path / "set.npz", **arrays)
        return read_archive(tmp_path / "set.npz", **options)

    return save_and_read


# --- plain


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_pixels_come_through_channels_first(read, dtype, channels):
    shape = (COUNT, 9, 10) if channels is None else (COUNT, 9, 10, channels)
    images = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    data = read(plain(images=images))
    assert data.images.dtype == (torch.uint8 if dtype == np.uint8 else torch.uint16)
    assert data.images.is_contiguous()
    expected = images[..., None] if channels is None else images
    assert np.array_equal(data.images.numpy(), expected.transpose(0, 3, 1, 2))


def test_images_stored_by_columns(read):
    images = np.asfortranarray(plain()["images"])
    assert np.array_equal(read(plain(images=images)).images[:, 0].numpy(), images)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64, bool])
@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 1)])
def test_labels_and_names(read, dtype, shape):
    data = read(plain(labels=np.array([0, 1, 0, 1, 1, 1]).astype(dtype).reshape(shape)))
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [0, 1, 0, 1, 1, 1]
    assert data.classes == ("cyst", "metastasis")
    assert all(type(name) is str for name in data.classes)
    assert (data.name, data.groups, data.official) == ("set.npz", None, None)


def test_names_keep_the_order_of_the_file(read):
    data = read(plain(label_names=np.array(["normal", "benign", "malignant"])))
    assert data.class_counts == {"normal": 2, "benign": 4, "malignant": 0}


def test_names_as_bytes(read):
    assert read(plain(label_names=np.array([b"cyst", "hémangiome".encode()]))).classes == ("cyst", "hémangiome")


def test_numbers_without_names_name_themselves(read):
    data = read(plain(label_names=None, labels=np.array([1, 2, 10, 2, 1, 1])))
    assert data.classes == ("1", "2", "10")
    assert data.labels.tolist() == [0, 1, 2, 1, 0, 0]


def test_labels_that_are_names(read):
    texts = np.array(["b", "a", "b", "c", "a", "a"])
    data = read(plain(label_names=None, labels=texts))
    assert data.classes == ("a", "b", "c")
    assert [data.classes[label] for label in data.labels] == texts.tolist()
    ordered = read(plain(label_names=np.array(["c", "b", "a"]), labels=texts))
    assert ordered.labels.tolist() == [1, 2, 1, 0, 2, 2]


@pytest.mark.parametrize(
    "split",
    [
        np.array(["train", "Valid", "test", "train", "validation", "testing"]),
        np.array([0, 1, 2, 0, 1, 2]),
        np.array([[0], [1], [2], [0], [1], [2]], dtype=np.uint8),
    ],
)
def test_split(read, split):
    assert read(plain(split=split)).official.tolist() == [0, 1, 2, 0, 1, 2]


def test_first_known_group_key_is_taken_and_said(read):
    arrays = plain(dup_group=np.arange(COUNT), patient=np.array([9, 9, 4, 4, 4, 5]), mask=np.zeros(3))
    data = read(arrays)
    assert data.groups.tolist() == [2, 2, 0, 0, 0, 1]
    assert data.notes == ("groups from 'patient': 3 groups",)
    asked = read(arrays, group_key="dup_group")
    assert asked.groups.tolist() == list(range(COUNT))
    assert asked.notes == ("groups from 'dup_group': 6 groups",)


def test_any_array_of_numbers_may_be_the_groups(read):
    data = read(plain(hospital=np.array(["x", "x", "y", "y", "x", "z"])), group_key="hospital")
    assert data.groups.tolist() == [0, 0, 1, 1, 0, 2]


def test_groups_that_the_split_parts_are_said(read):
    data = read(plain(split=np.array([0, 0, 1, 1, 2, 2]), group=np.array([1, 1, 1, 2, 3, 3])))
    assert data.notes[1] == "groups that lie in more than one part of the source's own split: 1"


# --- MedMNIST


def test_medmnist_parts_in_order(read):
    arrays = medmnist()
    data = read(arrays)
    assert data.official.tolist() == [0] * 7 + [1] * 3 + [2] * 4
    assert data.classes == ("0", "1", "2")
    for number, part in enumerate(("train", "val", "test")):
        there = data.official == number
        assert np.array_equal(data.images[there][:, 0].numpy(), arrays[f"{part}_images"])
        assert np.array_equal(data.labels[there].numpy(), arrays[f"{part}_labels"][:, 0])
    assert [len(part) for part in data.split(seed=4)] == [7, 3, 4]


def test_medmnist_in_colour(read):
    arrays = medmnist(shape=(9, 10, 3))
    data = read(arrays)
    assert data.images.shape == (14, 3, 9, 10)
    assert data.images.is_contiguous()
    assert np.array_equal(data.images[7:10].numpy(), arrays["val_images"].transpose(0, 3, 1, 2))


def test_medmnist_with_names(read):
    data = read(medmnist(classes=2, label_names=np.array(["normal", "pneumonia"])))
    assert data.class_counts == {"normal": 8, "pneumonia": 6}


def test_medmnist_with_two_parts(read):
    data = read(medmnist(val_images=None, val_labels=None))
    assert data.official.tolist() == [0] * 7 + [2] * 4


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"val_labels": None}, "val_images without val_labels"),
        ({"val_images": np.zeros((2, 9, 10), np.uint8)}, r"val_images of shape \(2, 9, 10\), but 3 val_labels"),
        (
            {"val_images": np.zeros((3, 8, 8), np.uint8)},
            r"val_images are uint8 of shape \(3, 8, 8\), train_images .*one kind",
        ),
        ({"test_images": np.zeros((4, 9, 10), np.uint16)}, "test_images are uint16 .*one kind"),
        (
            {"train_labels": np.zeros((7, 14), np.uint8)},
            r"val_labels of shape \(3,\), train_labels of shape \(7, 14\); expected as many labels an image",
        ),
    ],
)
def test_bad_medmnist(read, changes, error):
    with pytest.raises(InputError, match=rf"set\.npz: {error}"):
        read(medmnist(**changes))


def test_labels_that_are_missing_or_bad_do_not_matter_to_a_pool(read):
    pool = read(medmnist(val_labels=None, train_labels=np.zeros((7, 14), np.uint8)), labelled=False)
    assert pool.class_counts == {"unlabelled": 14}
    assert torch.bincount(pool.official).tolist() == [7, 3, 4]
    arrays = plain(labels=np.array(["", "x"] * (COUNT // 2)))
    del arrays["label_names"]
    assert read(arrays, labelled=False).class_counts == {"unlabelled": COUNT}
    del arrays["labels"]
    assert read(arrays, labelled=False).class_counts == {"unlabelled": COUNT}
    with pytest.raises(InputError, match=r"no labels in it.*images without labels are read with labelled=False"):
        read(arrays)
    with pytest.raises(
        InputError, match=r"no images in it; expected images, or the MedMNIST keys train_images, \.\.\."
    ):
        read({"pictures": np.zeros(3)}, labelled=False)


def test_medmnist_volumes(read):
    arrays = medmnist(shape=(28, 28, 28))
    data = read(arrays)
    assert data.images.shape == (14, 1, 28, 28, 28)
    assert np.array_equal(data.images[:7, 0].numpy(), arrays["train_images"])
    assert repr(data).startswith("set.npz: 14 patches, 1 x 28 x 28 x 28 (")


@pytest.mark.parametrize("channels", [None, 2])
def test_volumes_come_through_channels_first(read, channels):
    shape = (COUNT, 8, 9, 10) if channels is None else (COUNT, 8, 9, 10, channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    data = read(plain(images=images))
    assert data.images.is_contiguous()
    expected = images[..., None] if channels is None else images
    assert np.array_equal(data.images.numpy(), expected.transpose(0, 4, 1, 2, 3))


def test_medmnist_has_no_groups(read):
    with pytest.raises(InputError, match=r"MedMNIST files hold no groups; leave group_key out \(got 'patient'\)"):
        read(medmnist(), group_key="patient")


def test_medmnist_has_no_masks(read):
    with pytest.raises(InputError, match="MedMNIST files hold no masks; leave masks out, or save images, labels and"):
        read(medmnist(), masks=True)


# --- bad input


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"labels": None}, "no labels in it; .* it has images, label_names"),
        ({"images": None}, "no images in it; expected images and labels, or the MedMNIST keys train_images"),
        ({"images": np.zeros((COUNT, 9, 10))}, r"images are float64, whose range is not known: .* \(images \* 255\)"),
        ({"images": np.zeros((COUNT, 9, 10), np.float16)}, "images are float16, whose range is not known"),
        ({"images": np.zeros((COUNT, 9, 10), np.int16)}, "images are int16; expected uint8 or uint16"),
        ({"images": np.zeros((COUNT, 9, 10), bool)}, "images are bool; expected uint8 or uint16"),
        ({"images": np.zeros((COUNT, 90), np.uint8)}, r"images of shape \(6, 90\); expected \(N, H, W\) or"),
        (
            {"images": np.zeros((COUNT, 3, 9, 10), np.uint8)},
            r"images of shape \(6, 3, 9, 10\); .*channels come last: images.transpose",
        ),
        (
            {"images": np.zeros((COUNT, 1, 9, 9, 3), np.uint8)},
            r"images of shape \(6, 1, 9, 9, 3\); .*volumes more than 7 pixels along each axis",
        ),
        (
            {"images": np.zeros((COUNT, 2, 9, 9, 9), np.uint8)},
            r"channels come last: images.transpose\(0, 2, 3, 4, 1\)",
        ),
        (
            {"images": np.zeros((0, 9, 9), np.uint8), "labels": np.zeros(0, int)},
            r"no images in it \(shape \(0, 9, 9\)\)",
        ),
        ({"images": np.zeros((5, 9, 9), np.uint8)}, "5 images but 6 labels; each image needs one"),
        (
            {"labels": np.eye(2, dtype=int)[[0, 1] * 3]},
            r"labels of shape \(6, 2\): every image has exactly one .*argmax",
        ),
        ({"labels": np.full((COUNT, 2), 0.5)}, r"labels are float64 of shape \(6, 2\): .*probabilities are not read"),
        ({"labels": np.zeros((COUNT, 2), int)}, "no class; a classifier needs at least two"),
        ({"labels": np.ones((COUNT, 3), int)}, "labels of 3 columns, but there are 2 class names"),
        ({"labels": np.zeros((COUNT, 1, 1), int)}, r"labels of shape \(6, 1, 1\); expected \(N,\) or \(N, 1\)"),
        ({"labels": np.array(3)}, r"labels of shape \(\); expected"),
        ({"labels": np.zeros(COUNT)}, "labels are float64; expected class numbers .* or class names"),
        ({"labels": np.array([0, 1, -1, 0, 0, 0])}, "labels go down to -1; class numbers are 0 or more"),
        ({"labels": np.array([0, 1, 2, 0, 0, 0])}, r"labels go up to 2, but label_names has 2 \(cyst, metastasis\)"),
        ({"labels": np.array(list("abcabc"))}, "labels that label_names has not: a, b, c"),
        ({"labels": np.array(["a", "", "b", "a", "a", "a"]), "label_names": None}, r"labels\[1\] is empty"),
        ({"labels": np.ones(COUNT, int)}, r"one class \(metastasis\); a classifier needs at least two"),
        ({"labels": np.ones(COUNT, int), "label_names": None}, r"one class \(1\)"),
        ({"label_names": np.array(["a", "a"])}, "class names must differ, got a, a"),
        ({"split": np.array([0, 1, 2, 3, 0, 0])}, r"split\[3\] '3' is no part; expected one of train, val, test"),
        (
            {"split": np.array(["train", "hold", "", "test", "test", "test"])},
            r"split\[2\] is empty",
        ),
        ({"split": np.array([0, 1, 2])}, r"split of shape \(3,\); expected \(6,\)"),
        ({"patient": np.array([0, 1, 2])}, r"groups 'patient' are int64 of shape \(3,\); .*\(6,\)"),
    ],
)
def test_bad_arrays(read, changes, error):
    with pytest.raises(InputError, match=rf"set\.npz: ({error})"):
        read(plain(**changes))


def test_group_key_that_is_not_there(read):
    with pytest.raises(InputError, match=r"no array 'patient' to take the groups from; it has labels, label_names"):
        read(plain(), group_key="patient")


def test_objects(read, tmp_path):
    with pytest.raises(InputError, match=r"set\.npz: array 'label_names' holds Python objects"):
        read(plain(label_names=np.array(["cyst", "metastasis"], dtype=object)))


@pytest.mark.parametrize(
    "origin", [np.arange(5), np.arange(6.0), np.arange(6).reshape(6, 1), np.arange(-1, 5), np.array(list("abcdef"))]
)
def test_origins_that_are_another_programs(tmp_path, origin):
    np.savez(tmp_path / "set.npz", images=np.zeros((6, 8, 8), np.uint8), labels=[0, 0, 0, 1, 1, 1], origin=origin)
    with pytest.raises(InputError, match=r"set\.npz: origin is .*expected int64 of shape \(6,\), .* remove the array"):
        read_archive(tmp_path / "set.npz")


# Several labels an image

SEVERAL = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 1], [0, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float32])
def test_several_labels_an_image(read, dtype):
    patches = read(plain(labels=SEVERAL.astype(dtype)))
    assert patches.targets.dtype == torch.uint8
    assert patches.targets.tolist() == SEVERAL.tolist()
    assert patches.class_counts == {"cyst": 3, "metastasis": 3}


def test_without_names_the_classes_are_the_columns(read):
    assert read(plain(labels=SEVERAL, label_names=None)).classes == ("0", "1")


def test_medmnist_with_several_labels(read):
    labels = {f"{part}_labels": np.random.default_rng(1).integers(0, 2, (count, 14)) for part, count in PARTS.items()}
    patches = read(medmnist(**labels))
    assert patches.targets.tolist() == np.concatenate(list(labels.values())).tolist()
    assert [len(part) for part in patches.split()] == [7, 3, 4]


PARTS = {"train": 7, "val": 3, "test": 4}
