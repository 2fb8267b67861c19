"""Lesions as the scanner sees them: covering what they should, on the Hounsfield scale of the liver about them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.liver_lesions import draw_lesion, render_footprint
from genmix_transforms.data.phantom import CLASSES


def footprint(label, number=0, *, level=100.0, size=48, spacing=1.5, largest=40.0):
    rng = np.random.default_rng([5, number])
    outline, thickness = draw_lesion(label, rng, largest=largest)
    return outline, render_footprint(
        label, outline, rng, thickness=thickness, level=level, size=size, pixel_spacing=spacing
    )


@settings(max_examples=40)
@given(
    label=st.sampled_from(CLASSES),
    number=st.integers(0, 10**6),
    level=st.floats(60, 190),
    size=st.integers(16, 80),
    spacing=st.floats(0.5, 2.0),
)
def test_coverage_is_a_share_and_content_has_it(label, number, level, size, spacing):
    _, seen = footprint(label, number, level=level, size=size, spacing=spacing)
    assert seen.coverage.shape == seen.content.shape == (size, size)
    assert seen.coverage.dtype == seen.content.dtype == np.float32
    assert seen.coverage.min() >= 0
    assert seen.coverage.max() <= 1
    assert np.isfinite(seen.content).all()
    assert (seen.content[seen.coverage == 0] == 0).all()
    assert (seen.content <= seen.coverage * (level + 150) + 0.01).all()


@settings(max_examples=25)
@given(label=st.sampled_from(CLASSES), number=st.integers(0, 10**6))
def test_nothing_is_covered_beyond_the_patch(label, number):
    outline, seen = footprint(label, number, size=64)
    axis = (np.arange(64) - 32) * 1.5
    distance = np.hypot(axis[:, None], axis[None, :])
    assert (seen.coverage[distance > outline.patch_side / 2 + 4] == 0).all()


@pytest.mark.parametrize("label", CLASSES)
def test_the_middle_is_covered_and_in_the_middle_of_the_window(label):
    wide = [footprint(label, number, size=49) for number in range(60)]
    wide = [seen for outline, seen in wide if outline.diameter > 14]
    assert len(wide) > 10
    coverage = np.mean([seen.coverage for seen in wide], axis=0)
    assert coverage[24, 24] > 0.95
    rows, columns = np.mgrid[:49, :49]
    core = coverage > 0.5  # a feeding vessel, out there, is in one direction
    assert np.average(rows[core], weights=coverage[core]) == pytest.approx(24, abs=0.5)
    assert np.average(columns[core], weights=coverage[core]) == pytest.approx(24, abs=0.5)


def test_the_pixels_of_a_cyst_add_up_to_its_area():
    for number in range(8):
        outline, seen = footprint("cyst", number)
        disc = np.pi / 4 * outline.diameter**2 * outline.flattening
        area = float(seen.coverage.sum()) * 1.5**2
        assert 0.45 * disc < area < 1.25 * disc  # partial volume through the slice takes from small ones


def test_a_small_lesion_shares_its_pixels_with_the_liver():
    small = [seen for outline, seen in (footprint("cyst", n) for n in range(80)) if outline.diameter < 7]
    assert small
    # Most of what it covers it covers in part; of a large one, less.
    assert np.mean([_partly(seen) for seen in small]) > 0.8
    large = [seen for outline, seen in (footprint("cyst", n) for n in range(200)) if outline.diameter > 24]
    assert np.mean([_partly(seen) for seen in large]) < 0.5


def _partly(seen):
    return ((seen.coverage > 0.02) & (seen.coverage < 0.98)).sum() / (seen.coverage > 0.02).sum()


@pytest.mark.parametrize("level", [70.0, 100.0, 140.0])
def test_contrast_is_relative_to_the_liver_but_water_stays_water(level):
    middle = {}
    for label in ("cyst", "metastasis"):
        inside = [footprint(label, number, level=level)[1] for number in range(60)]
        inside = [seen for seen in inside if seen.coverage[24, 24] > 0.95]
        middle[label] = np.median([seen.content[24, 24] / seen.coverage[24, 24] for seen in inside])
    assert middle["cyst"] < 0.25 * level
    assert 0.25 * level < middle["metastasis"] < 0.75 * level


@pytest.mark.parametrize("level", [70.0, 140.0])
def test_hemangiomas_have_pools_brighter_than_the_liver(level):
    bright = [
        (seen.content - level * seen.coverage).max()
        for _, seen in (footprint("hemangioma", n, level=level) for n in range(40))
    ]
    assert np.mean(np.array(bright) > 10) > 0.5


def test_no_lesion_is_larger_than_the_largest():
    diameters = [draw_lesion("metastasis", np.random.default_rng(n), largest=20)[0].diameter for n in range(60)]
    assert max(diameters) == 20
    assert min(diameters) < 14


def test_the_blur_of_a_cysts_edge_is_that_of_scanner_and_pixel():
    """10 to 90 % of a sharp edge: 2.56 standard deviations of point spread and pixel, plus the wall's own ramp."""
    _, seen = next(
        pair for pair in (footprint("cyst", n, spacing=0.75, size=96) for n in range(200)) if pair[0].diameter > 24
    )
    profile = seen.coverage[48, 48:]
    width = (np.interp(-0.1, -profile, np.arange(48)) - np.interp(-0.9, -profile, np.arange(48))) * 0.75
    assert 1.2 < width < 4.0
