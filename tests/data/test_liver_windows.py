"""Places for lesions, and the windows about them."""

from itertools import pairwise

import numpy as np
import pytest

from genmix_transforms.data.liver_parenchyma import part_noise
from genmix_transforms.data.liver_slices import LiverSlices
from genmix_transforms.data.liver_windows import LiverWindows, Place


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
