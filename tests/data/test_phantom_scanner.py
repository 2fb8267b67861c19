"""The phantom's scanner: sampling, partial volume, noise with the asked-for spectrum, and the crop."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.data.phantom_scanner import SLICE_LEVELS, Grid, Scan, crop

SCAN = Scan(pixel_spacing=0.6, slice_thickness=4.0, blur=0.5, noise=15.0, cutoff=0.22)


def planes_of(grid, value=0.0):
    return np.full((SLICE_LEVELS, grid.count, grid.count), value, dtype=np.float32)


@given(side=st.floats(15, 70), spacing=st.floats(0.5, 0.8), thickness=st.floats(3, 5))
def test_the_grid_covers_the_patch_and_the_slice(side, spacing, thickness):
    grid = Grid(side=side, spacing=spacing, thickness=thickness)
    assert grid.count % 2 == 0
    assert grid.axis[0] < -side / 2 - 4 * spacing
    assert grid.axis[-1] > side / 2 + 4 * spacing
    np.testing.assert_allclose(grid.axis, -grid.axis[::-1], atol=1e-5)
    np.testing.assert_allclose(np.diff(grid.axis), spacing, rtol=1e-4)
    assert grid.levels.mean() == pytest.approx(0, abs=1e-6)
    assert np.ptp(grid.levels) == pytest.approx(thickness * (1 - 1 / SLICE_LEVELS), rel=1e-5)


def test_frequencies_are_those_of_the_fourier_transform():
    grid = SCAN.grid(30.0)
    rows, columns = grid.frequencies()
    wave = np.cos(2 * np.pi * float(rows[3, 0]) * grid.axis)[:, None] * np.ones(grid.count)
    power = np.abs(np.fft.rfft2(wave))
    row, column = np.unravel_index(power.argmax(), power.shape)
    assert abs(rows[row, 0]) == pytest.approx(float(rows[3, 0]))
    assert columns[0, column] == 0


def test_a_texture_has_unit_variance_and_the_asked_for_length():
    grid = SCAN.grid(60.0)
    rng = np.random.default_rng(0)
    fields = np.stack([grid.texture(rng, 2.0) for _ in range(60)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.var() == pytest.approx(1, abs=0.06)
    for lag in (2, 4, 8):
        expected = np.exp(-((lag * 0.6) ** 2) / (2 * 2.0**2))
        assert (fields[:, lag:] * fields[:, :-lag]).mean() == pytest.approx(expected, abs=0.05)


def test_a_flat_spectrum_gives_white_noise():
    grid = SCAN.grid(40.0)
    rng = np.random.default_rng(1)
    flat = np.ones((grid.count, grid.count // 2 + 1), dtype=np.float32)
    noise = np.stack([grid.coloured_noise(rng, flat) for _ in range(40)])
    assert noise.var() == pytest.approx(1, abs=0.02)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(0, abs=0.02)


def test_noise_has_the_asked_for_standard_deviation_and_a_band_pass_spectrum():
    grid = SCAN.grid(60.0)
    rng = np.random.default_rng(2)
    noise = np.stack([SCAN.acquire(planes_of(grid), grid, rng) for _ in range(80)])
    assert noise.mean() == pytest.approx(0, abs=0.5)
    assert noise.std() == pytest.approx(15, rel=0.02)
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.var()
    assert 0.75 < neighbours < 0.95
    rows, columns = grid.frequencies()
    frequency = np.hypot(rows, columns)
    power = (np.abs(np.fft.rfft2(noise)) ** 2).mean(axis=0)

    def band(low, high):
        return power[(frequency >= low) & (frequency < high)].mean()

    assert band(0.10, 0.18) > 1.2 * band(0.001, 0.04)  # rises as a ramp
    assert band(0.10, 0.18) > 20 * band(0.40, 0.60)  # and rolls off


def test_anisotropic_noise_is_longer_along_rows():
    scan = replace(SCAN, anisotropy=1.3)
    grid = scan.grid(50.0)
    rng = np.random.default_rng(3)
    noise = np.stack([scan.acquire(planes_of(grid), grid, rng) for _ in range(40)])
    along = (noise[:, :, 2:] * noise[:, :, :-2]).mean() / noise.var()
    down = (noise[:, 2:] * noise[:, :-2]).mean() / noise.var()
    assert along > down + 0.1


def test_a_slice_is_the_mean_over_its_thickness():
    """Partial volume: a structure in one plane of four shows with a quarter of its contrast."""
    scan = replace(SCAN, noise=0.0)
    grid = scan.grid(30.0)
    planes = planes_of(grid, 100.0)
    planes[0] = 0.0
    image = scan.acquire(planes, grid, np.random.default_rng(0))
    np.testing.assert_allclose(image, 75.0, atol=1e-3)


def test_the_point_spread_has_the_asked_for_width_and_keeps_the_sum():
    scan = replace(SCAN, noise=0.0, blur=0.9)
    grid = scan.grid(40.0)
    planes = planes_of(grid)
    middle = grid.count // 2
    planes[:, middle, middle] = 1000.0
    image = scan.acquire(planes, grid, np.random.default_rng(0)).astype(np.float64)
    assert image.sum() == pytest.approx(1000, rel=1e-4)
    spread = (image * (grid.axis[:, None] - grid.axis[middle]) ** 2).sum() / image.sum()
    assert np.sqrt(spread) == pytest.approx(0.9, rel=0.02)


@given(size=st.integers(16, 140), side=st.floats(19, 60))
def test_cropping_keeps_flat_and_linear_images(size, side):
    grid = SCAN.grid(side)
    image = (100 + 2 * grid.axis[:, None] - grid.axis[None, :]).astype(np.float32)
    patch = crop(image, grid, size)
    centres = (np.arange(size) + 0.5) * side / size - side / 2
    # Below 32 pixels the kernel is wider than the rendered border and is cut there, as at the edge of any image.
    tolerance = 0.15 if size >= 32 else 0.5  # HU, at 2 HU per mm
    np.testing.assert_allclose(patch, 100 + 2 * centres[:, None] - centres[None, :], atol=tolerance)


def test_cropping_to_few_pixels_averages():
    grid = SCAN.grid(60.0)
    noise = np.random.default_rng(0).standard_normal((grid.count, grid.count)).astype(np.float32)
    coarse, fine = crop(noise, grid, 16), crop(noise, grid, 128)
    assert coarse.std() < 0.35  # 39 pixels of the matrix in each: no aliased grain
    assert fine.std() > 0.6
