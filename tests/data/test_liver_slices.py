"""CT slices with a liver mask: what is read, and everything that is refused."""

import numpy as np
import pytest

from genmix_transforms.data.liver_slices import LiverSlices
from genmix_transforms.errors import InputError, MissingPathError


def arrays(**changes):
    """Three slices of two patients, 20 x 30; a change of None takes the array out."""
    masks = np.zeros((3, 20, 30), dtype=bool)
    masks[:, 4:15, 3:22] = True
    made = {
        "images": np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8),
        "liver_mask": masks,
        "patient": np.array([7, 7, 9], dtype=np.int32),
    } | changes
    return {key: array for key, array in made.items() if array is not None}


@pytest.fixture
def saved(tmp_path):
    def save(**changes):
        np.savez(tmp_path / "liver.npz", **arrays(**changes))
        return tmp_path / "liver.npz"

    return save


def test_an_archive_is_read_as_it_is(saved):
    slices = LiverSlices.open(str(saved()))
    made = arrays()
    assert np.array_equal(slices.images, made["images"])
    assert np.array_equal(slices.masks, made["liver_mask"])
    assert slices.patients.tolist() == [7, 7, 9]
    assert repr(slices) == "liver.npz: 3 slices of 2 patients, 20 x 30"
    assert len(slices) == 3


@pytest.mark.parametrize("width", [24, 30])
def test_a_packed_mask_is_unpacked(saved, width):
    masks = np.random.default_rng(1).random((3, 20, width)) < 0.5
    images = np.zeros((3, 20, width), dtype=np.int16)
    slices = LiverSlices.open(saved(images=images, liver_mask=np.packbits(masks, axis=-1)))
    assert slices.masks.dtype == np.bool_
    assert np.array_equal(slices.masks, masks)


def test_a_mask_of_numbers_is_liver_where_it_is_not_zero(saved):
    numbers = np.zeros((3, 20, 30), dtype=np.uint8)
    numbers[1, 5, 5], numbers[1, 5, 6] = 1, 2  # a tumour's label in LiTS is 2
    slices = LiverSlices.open(saved(liver_mask=numbers))
    assert np.argwhere(slices.masks).tolist() == [[1, 5, 5], [1, 5, 6]]


def test_pixel_spacing_of_the_file_of_each_slice_and_by_default(saved):
    assert [LiverSlices.open(saved()).spacing_of(number) for number in range(3)] == [384 / 30] * 3
    assert LiverSlices.open(saved(pixel_spacing=np.array(0.7))).spacing_of(2) == 0.7
    each = LiverSlices.open(saved(pixel_spacing=np.array([0.7, 0.8, 0.9])))
    assert [each.spacing_of(number) for number in range(3)] == [0.7, 0.8, 0.9]
    whole = np.ones((1, 256, 256), dtype=bool)
    assert LiverSlices(images=whole.astype(float), masks=whole, patients=np.array(["a"])).spacing_of(0) == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "no images in it; expected images"),
        ({"liver_mask": None, "patient": None}, "no liver_mask and no patient in it.*it has images"),
        ({"liver_mask": np.zeros((3, 20, 29), bool)}, "liver_mask is bool of shape .3, 20, 29.; expected the shape"),
        ({"liver_mask": np.zeros((3, 20, 30))}, "liver_mask is float64"),
        ({"liver_mask": np.zeros((3, 20, 30), bool)}, "no mask has a pixel of liver"),
        ({"images": np.zeros((3, 20, 30, 1), np.uint8)}, "expected the shape of the images, .3, 20, 30, 1."),
        ({"images": np.zeros((0, 20, 30)), "liver_mask": np.zeros((0, 20, 30), bool)}, r"of shape \(N, H, W\)"),
        ({"images": np.full((3, 20, 30), np.nan)}, "values that are not finite"),
        ({"images": np.zeros((3, 20, 30), bool)}, "images must be numbers .Hounsfield units.*got bool"),
        ({"patient": np.arange(4)}, r"patients must be integers or strings of shape \(3,\)"),
        ({"patient": np.zeros(3)}, "patients must be integers or strings.*got float64"),
        ({"pixel_spacing": np.array([1.0, 2.0])}, "pixel_spacing must be one number above 0"),
        ({"pixel_spacing": np.array(0.0)}, "pixel_spacing must be one number above 0"),
        ({"pixel_spacing": np.array("wide")}, "pixel_spacing must be one number above 0"),
    ],
)
def test_what_does_not_fit_is_refused(saved, changes, message):
    with pytest.raises(InputError, match=message):
        LiverSlices.open(saved(**changes))


def test_masks_in_memory_must_be_bool():
    made = arrays()
    with pytest.raises(InputError, match="masks must be bool of the images' shape"):
        LiverSlices(images=made["images"], masks=made["liver_mask"].astype(np.uint8), patients=made["patient"])


def test_no_file(tmp_path):
    with pytest.raises(MissingPathError, match="no such file; expected an .npz of CT slices"):
        LiverSlices.open(tmp_path / "none.npz")


def test_the_real_file(real_data):
    slices = LiverSlices.open(real_data / "liver_ct_256.npz")
    assert repr(slices) == "liver_ct_256.npz: 623 slices of 122 patients, 256 x 256"
    assert slices.masks.shape == slices.images.shape
    liver = np.median(slices.images[slices.masks])
    assert 80 < liver < 120  # enhanced parenchyma, HU: the mask lies on the liver
