"""Masks in files: which belongs to which image, what their pixels mean, and what is refused by its name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.mask_files import (
    as_class_numbers,
    folder_of_images,
    mask_class_names,
    masks_beside,
    names_of_array,
    read_mask_array,
    read_mask_files,
    read_mask_names,
)

NUMBERS = np.arange(30, dtype=np.uint8).reshape(6, 5)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(path, **options)
    return path


@pytest.fixture
def image(tmp_path):
    return save(tmp_path / "images" / "a" / "x.jpg", np.zeros((6, 5), np.uint8))


# Which is whose


def test_masks_mirror_the_images(tmp_path, image):
    deep = save(tmp_path / "images" / "b" / "c" / "y.png", NUMBERS)
    assert folder_of_images(tmp_path) == tmp_path
    expected = [
        save(tmp_path / "masks" / "a" / "x.png", NUMBERS),
        save(tmp_path / "masks" / "b" / "c" / "y.png", NUMBERS),
    ]
    save(tmp_path / "masks" / "a" / "of nobody.png", NUMBERS)
    assert folder_of_images(tmp_path) == tmp_path / "images"
    assert masks_beside(tmp_path, [image, deep]) == expected


def test_masks_that_are_missing_are_counted(tmp_path, image):
    other = save(tmp_path / "images" / "b" / "x.png", NUMBERS)
    with pytest.raises(InputError, match="no masks in it; expected the folders images and masks"):
        masks_beside(tmp_path, [image])
    save(tmp_path / "masks" / "a" / "x.png", NUMBERS)
    with pytest.raises(MissingPathError, match=r"1 of 2 images have no mask; expected such a file as .*masks/b/x\.png"):
        masks_beside(tmp_path, [image, other])


def test_of_two_masks_none_is_taken(tmp_path, image):
    for suffix in ("png", "bmp"):
        save(tmp_path / "masks" / "a" / f"x.{suffix}", NUMBERS)
    with pytest.raises(InputError, match=r"x\.jpg: several files could be its mask: x\.bmp, x\.png"):
        masks_beside(tmp_path, [image])


# Files


def test_gray_palette_and_one_bit_files(tmp_path, image):
    palette = Image.fromarray(NUMBERS % 3)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [0] * 759)
    files = [
        save(tmp_path / "gray.png", NUMBERS % 3),
        save(tmp_path / "palette.png", palette),
        save(tmp_path / "bits.png", Image.fromarray(NUMBERS % 2 == 1)),
    ]
    masks = read_mask_files(files, [image] * 3, size=None, fit="resize")
    assert masks.dtype == torch.uint8
    for mask, expected in zip(masks, (NUMBERS % 3, NUMBERS % 3, NUMBERS % 2), strict=True):
        assert np.array_equal(mask.numpy(), expected)


def test_masks_go_to_a_size_without_new_values(tmp_path, image):
    file = save(tmp_path / "m.png", np.where(NUMBERS < 15, 0, 7).astype(np.uint8))
    for fit in ("resize", "pad", "crop"):
        (mask,) = read_mask_files([file], [image], size=16, fit=fit)
        assert mask.shape == (16, 16)
        assert set(mask.unique().tolist()) == {0, 7}


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("m.jpg", NUMBERS, "m.jpg: JPEG files do not keep class numbers to the digit; save masks as PNG"),
        ("m.png", np.zeros((6, 5, 3), np.uint8), "m.png: a mask must be gray, 8 bits or 1, .* this image is in color"),
        ("m.png", np.zeros((6, 5), np.uint16), "m.png: a mask must be gray, 8 bits or 1, .*mode 'I;16'"),
        ("m.png", np.zeros((5, 6), np.uint8), r"m.png: a mask of 5x6 pixels, but its image .*x\.jpg has 6x5"),
    ],
)
def test_files_that_are_no_masks(tmp_path, image, name, picture, message):
    with pytest.raises(InputError, match=message):
        read_mask_files([save(tmp_path / name, picture)], [image], size=8, fit="resize")


def test_damaged_missing_and_several(tmp_path, image):
    with pytest.raises(MissingPathError, match=r"no\.png: no such image file"):
        read_mask_files([tmp_path / "no.png"], [image], size=None, fit="resize")
    (tmp_path / "m.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"m\.png: not a readable image"):
        read_mask_files([tmp_path / "m.png"], [image], size=None, fit="resize")
    frames = [Image.fromarray(NUMBERS)] * 2
    save(tmp_path / "m.tif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"m\.tif: 2 images in one file, and a mask is one"):
        read_mask_files([tmp_path / "m.tif"], [image], size=None, fit="resize")


# What pixels mean


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0, 255, 0], [0, 1, 0]),
        ([255, 255], [1, 1]),
        ([0, 0], [0, 0]),
        ([0, 1], [0, 1]),
        ([0, 128, 255], [0, 128, 255]),
    ],
)
def test_black_and_white_are_classes_0_and_1(given, expected):
    assert as_class_numbers(torch.tensor(given, dtype=torch.uint8)).tolist() == expected


def test_arrays(tmp_path):
    masks = read_mask_array(tmp_path / "a.npz", (NUMBERS > 9)[None], shape=(1, 6, 5))
    assert masks.dtype == torch.uint8
    assert np.array_equal(masks[0].numpy(), NUMBERS > 9)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, r"a\.npz: no array masks in it; expected uint8 of shape \(2, 6, 5\)"),
        (
            np.zeros((1, 6, 5), np.uint8),
            r"a\.npz: masks are uint8 of shape \(1, 6, 5\); expected .* of shape \(2, 6, 5\)",
        ),
        (np.zeros((2, 6, 5, 1), np.uint8), r"of shape \(2, 6, 5, 1\)"),
        (np.zeros((2, 6, 5), np.float32), r"masks are float32"),
        (np.zeros((2, 6, 5), np.int64), r"masks are int64"),
    ],
)
def test_arrays_that_are_no_masks(tmp_path, raw, message):
    with pytest.raises(InputError, match=message):
        read_mask_array(tmp_path / "a.npz", raw, shape=(2, 6, 5))


def test_names():
    masks = torch.tensor([[0, 2]], dtype=torch.uint8)
    assert mask_class_names("a.npz", masks, None) == ("0", "1", "2")
    assert mask_class_names("a.npz", masks * 0, None) == ("0", "1")
    assert mask_class_names("a.npz", masks, ["none", "liver", "lesion"]) == ("none", "liver", "lesion")
    assert names_of_array(np.array([b"none", "lésion".encode()])) == ["none", "lésion"]
    assert names_of_array(None) is None
    for names, message in (
        (["none", "lesion"], r"a\.npz: masks run up to 2, but mask_classes has 2 names \(none, lesion\)"),
        (["a", "a", "b"], r"a\.npz: mask_classes must be different names, got 'a', 'a', 'b'"),
        (["a", 1, "b"], "must be different names, got 'a', 1, 'b'"),
    ):
        with pytest.raises(InputError, match=message):
            mask_class_names("a.npz", masks, names)


def test_names_in_a_file_beside(tmp_path):
    assert read_mask_names(tmp_path) is None
    file = tmp_path / "dataset_info.json"
    file.write_text(json.dumps({"classes": ["a"]}))
    assert read_mask_names(tmp_path) is None
    file.write_text(json.dumps({"mask_classes": ["none", "lesion"]}))
    assert read_mask_names(tmp_path) == ["none", "lesion"]
    for text in ('{"mask_classes": "none"}', '["none", "lesion"]', "{", '{"mask_classes": NaN}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"dataset_info\.json: (not readable|expected an object)"):
            read_mask_names(tmp_path)
