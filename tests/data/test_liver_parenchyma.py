"""What is taken for parenchyma, and the pieces that the rule is made of, each against a slow or known answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from genmix_transforms.data.liver_parenchyma import (
    count_dark,
    depth_inside,
    find_parenchyma,
    find_sites,
    part_noise,
    smooth_within,
    spread,
)


def noisy_liver(level=100.0, noise=10.0, side=80):
    image = np.random.default_rng(0).normal(level, noise, (side, side)).astype(np.float32)
    liver = np.zeros((side, side), dtype=bool)
    liver[8:72, 10:70] = True
    image[~liver] = 0
    return image, liver


@given(mask=arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))), reach=st.integers(1, 12))
def test_depth_is_the_euclidean_distance_up_to_the_reach(mask, reach):
    expected = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    np.testing.assert_allclose(depth_inside(mask, reach), np.minimum(expected, reach), rtol=1e-6)


def test_smoothing_is_scipys_normalised_gaussian():
    image, liver = noisy_liver()
    weight = ndimage.gaussian_filter(liver.astype(np.float64), 1.5, mode="constant", truncate=8)
    expected = ndimage.gaussian_filter(image * liver, 1.5, mode="constant", truncate=8) / np.maximum(weight, 1e-9)
    np.testing.assert_allclose(smooth_within(image, liver, 1.5)[liver], expected[liver], rtol=1e-4)


def test_nothing_leaks_in_from_outside():
    image, liver = noisy_liver(noise=0)
    np.testing.assert_allclose(smooth_within(image, liver, 2.5)[liver], 100, rtol=1e-5)
    image[~liver] = 3000
    np.testing.assert_allclose(smooth_within(image, liver, 2.5)[liver], 100, rtol=1e-5)


def test_spread_is_the_standard_deviation_and_does_not_see_a_few_others():
    values = np.random.default_rng(0).normal(0, 7, 20_000)
    assert spread(values) == pytest.approx(7, rel=0.03)
    values[:500] = 1000
    assert spread(values) == pytest.approx(7, rel=0.06)


def test_noise_and_structure_make_up_the_image():
    image, liver = noisy_liver(noise=12)
    structure, noise = part_noise(image, liver)
    assert structure.dtype == noise.dtype == np.float32
    rest = (image - structure)[liver]
    cut = np.abs(rest) > 3 * spread(rest)
    assert cut.mean() < 0.01
    np.testing.assert_allclose((structure + noise)[liver][~cut], image[liver][~cut], atol=1e-3)
    assert noise[liver].std() == pytest.approx(12, rel=0.05)
    assert structure[liver].std() < 2


def test_the_level_is_that_of_the_liver():
    parenchyma = find_parenchyma(*noisy_liver(level=120), reach=10)
    assert parenchyma.level == pytest.approx(120, abs=1)
    assert (parenchyma.top, parenchyma.left) == (8, 10)
    assert parenchyma.dark.shape == parenchyma.room.shape == (64, 60)
    assert parenchyma.room.max() == 10
    assert parenchyma.dark.sum() == 0


@pytest.mark.parametrize("level", [20, 250])
def test_what_is_not_as_bright_as_a_liver_is_none(level):
    assert find_parenchyma(*noisy_liver(level=level), reach=10) is None


def test_no_liver_or_only_its_surface_is_none():
    image, liver = noisy_liver()
    assert find_parenchyma(image, np.zeros_like(liver), reach=5) is None
    thin = np.zeros_like(liver)
    thin[20:23] = True
    assert find_parenchyma(np.full_like(image, 100), thin, reach=5) is None


@pytest.mark.parametrize("noise", [5, 15, 25])
def test_a_dark_lesion_is_found_and_kept_clear_of(noise):
    image, liver = noisy_liver(noise=noise)
    rows, columns = np.mgrid[:80, :80]
    lesion = np.hypot(rows - 30, columns - 40) < 6
    image[lesion] -= 60
    parenchyma = find_parenchyma(image, liver, reach=12)
    found = np.zeros_like(liver)
    found[8:72, 10:70] = parenchyma.dark
    assert found[lesion].mean() > 0.9
    assert found[~lesion].mean() < 0.02
    sites = find_sites(parenchyma, radius=4, size=16, shape=(80, 80))
    assert len(sites)
    # No window of 16 pixels reaches the lesion by more than its rim.
    assert (np.abs(sites - (30, 40)).max(axis=1) >= 8 + 3).all()


def test_a_bright_vessel_is_kept_clear_of_but_may_be_in_the_window():
    image, liver = noisy_liver(noise=5)
    image[8:72, 38:42] += 60
    parenchyma = find_parenchyma(image, liver, reach=12)
    assert parenchyma.dark.sum() == 0
    sites = find_sites(parenchyma, radius=4, size=16, shape=(80, 80))
    distance = np.abs(sites[:, 1] - 39.5)
    assert distance.min() >= 4 + 1.5
    assert distance.min() < 8


@settings(max_examples=40)
@given(radius=st.floats(1, 11), size=st.integers(16, 70))
def test_sites_have_room_and_their_windows_lie_in_the_slice(radius, size):
    image, liver = noisy_liver(noise=0)
    sites = find_sites(find_parenchyma(image, liver, reach=12), radius=radius, size=size, shape=(80, 80))
    low = sites - size // 2
    assert (low >= 0).all()
    assert (low + size <= 80).all()
    depth = ndimage.distance_transform_edt(liver)
    assert (depth[tuple(sites.T)] >= radius + 1).all()
    if radius < 10 and size < 40:
        assert len(sites)


@settings(max_examples=40)
@given(dark=arrays(bool, (20, 24)), row=st.integers(0, 19), column=st.integers(0, 23), size=st.integers(2, 40))
def test_dark_pixels_are_counted_as_they_stand(dark, row, column, size):
    image, liver = noisy_liver(noise=0)
    parenchyma = find_parenchyma(image, liver, reach=2)
    object.__setattr__(parenchyma, "dark", dark)
    top, left = row - size // 2, column - size // 2
    expected = dark[max(0, top) : top + size, max(0, left) : left + size].sum()
    assert count_dark(parenchyma, np.array([[row, column]]), size=size).tolist() == [expected]
