"""CT slices with a liver mask: what is read, what is refused, and the windows in them."""

from itertools import pairwise

import numpy as np
import pytest

from genmix_transforms.data.liver_parenchyma import part_noise
from genmix_transforms.data.liver_slices import LiverSlices, LiverWindows, Place
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


# --- windows


@pytest.fixture(scope="module")
def slices():
    """Eight slices of four patients; the liver of the last patient is too small for anything large."""
    images = np.random.default_rng(0).normal(100, 10, (8, 80, 90)).astype(np.float32)
    masks = np.zeros(images.shape, dtype=bool)
    masks[:6, 10:70, 10:80] = True
    masks[6:, 30:50, 30:50] = True
    return LiverSlices(images=images, masks=masks, patients=np.repeat([4, 3, 2, 1], 2), pixel_spacing=1.5)


def windows(slices, size=32, largest=30.0):
    return LiverWindows(slices=slices, size=size, largest=largest)


def test_larger_lesions_have_fewer_sites_and_each_is_one_of_the_smaller_ones(slices):
    sites = [set(map(tuple, windows(slices).sites(0, diameter).tolist())) for diameter in (6, 12, 20, 30)]
    assert all(larger < smaller for smaller, larger in pairwise(sites))
    assert sites[-1]


def test_sites_keep_a_margin_in_millimetres(slices):
    fine = LiverSlices(images=slices.images, masks=slices.masks, patients=slices.patients, pixel_spacing=1.0)
    for given, spacing in ((slices, 1.5), (fine, 1.0)):
        rows = windows(given).sites(0, 15.0)[:, 0]
        # From the first row of the liver: its surface, the radius, the margin.
        assert rows.min() - 10 + 1 >= (15 / 2 + 2) / spacing + 2
        assert rows.min() <= 10 + (15 / 2 + 2) / spacing + 5


def test_a_place_is_found_where_there_is_room(slices):
    several = windows(slices)
    rng = np.random.default_rng(0)
    large = {several.find(np.arange(8), 28.0, rng).slice for _ in range(40)}
    small = {several.find(np.arange(8), 6.0, rng).slice for _ in range(80)}
    assert large == set(range(6))
    assert small == set(range(8))
    assert several.find(np.array([6, 7]), 28.0, rng) is None


def test_patients_not_slices_are_drawn_evenly():
    images = np.full((6, 60, 60), 100.0)
    slices = LiverSlices(
        images=images, masks=np.ones(images.shape, dtype=bool), patients=np.array(["a"] * 5 + ["b"]), pixel_spacing=1.5
    )
    rng = np.random.default_rng(0)
    drawn = [windows(slices).find(np.arange(6), 10.0, rng).slice for _ in range(200)]
    assert 70 < drawn.count(5) < 130


def test_the_largest_that_fits(slices):
    several = windows(slices)
    fits = several.largest_fitting(np.array([6, 7]), least=6, most=30)
    assert len(several.sites(6, fits)) or len(several.sites(7, fits))
    assert not len(several.sites(6, fits + 1))
    assert not len(several.sites(7, fits + 1))
    assert several.largest_fitting(np.array([6, 7]), least=25, most=30) is None


@pytest.mark.parametrize("size", [16, 31, 32])
@pytest.mark.parametrize(("row", "column"), [(40, 45), (16, 16), (64, 74), (20, 70)])
def test_a_window_is_a_piece_of_its_slice(slices, size, row, column):
    window = windows(slices, size=size).cut(Place(slice=2, row=row, column=column))
    top, left = row - size // 2, column - size // 2
    piece = (slice(top, top + size), slice(left, left + size))
    np.testing.assert_array_equal(window.image, slices.images[2][piece])
    assert window.image.dtype == np.float32
    structure, _ = part_noise(slices.images[2], slices.masks[2])
    liver = slices.masks[2][piece]
    np.testing.assert_allclose(window.structure[liver], structure[piece][liver], atol=0.05)
    np.testing.assert_array_equal(window.depth > 0, liver)


def test_the_noise_of_a_window_does_not_depend_on_its_size(slices):
    small, large = (windows(slices, size=size).cut(Place(slice=0, row=40, column=45)) for size in (16, 40))
    np.testing.assert_allclose(small.noise, large.noise[12:28, 12:28], atol=2)  # but for where it is cut off
    assert np.corrcoef(small.noise.ravel(), large.noise[12:28, 12:28].ravel())[0, 1] > 0.999
