"""The phantom's anatomy, before the scanner: what tells the classes apart, and what the geometry is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.phantom_lesions import (
    DIAMETERS,
    LESIONS,
    Liver,
    Outline,
    draw_outline,
    paint_parenchyma,
    paint_tube,
    paint_vein,
    paint_vessels,
    ramp,
)
from genmix_transforms.data.phantom_scanner import Grid

LIVER = Liver(parenchyma=100.0, vessels=150.0)


def round_outline(diameter=20.0):
    return Outline(diameter=diameter, flattening=1.0, tilt=0.0, waves=np.zeros((5, 2)), centre=np.zeros(3))


def draw_lesions(name, count=40):
    """Lesions in even tissue without vessels or noise: (depth in radii, HU), each ``(levels, n, n)``."""
    draw, paint = LESIONS[name]
    for number in range(count):
        rng = np.random.default_rng([7, number])
        outline = draw(rng)
        grid = Grid(side=outline.patch_side, spacing=0.4, thickness=4.0)
        planes = np.full((len(grid.levels), grid.count, grid.count), 100, dtype=np.float32)
        paint(planes, grid, outline, LIVER, rng)
        yield outline.depth(grid), outline, planes


def test_the_classes_are_the_papers():
    assert tuple(LESIONS) == ("cyst", "hemangioma", "metastasis")


@given(diameter=st.floats(6, 40))
def test_a_round_outline_is_a_sphere(diameter):
    outline = round_outline(diameter)
    grid = Grid(side=outline.patch_side, spacing=0.5, thickness=4.0)
    distance = np.sqrt(grid.x**2 + grid.y**2 + grid.z**2)
    np.testing.assert_allclose(outline.depth(grid), diameter / 2 - distance, atol=1e-3)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), flattening=st.floats(0.5, 1.0))
def test_an_outline_fits_its_patch_and_its_diameter(seed, flattening):
    outline = draw_outline(
        np.random.default_rng(seed), median=15.0, spread=0.5, flattening=(flattening, flattening), waviness=0.06
    )
    assert DIAMETERS[0] <= outline.diameter <= DIAMETERS[1]
    grid = Grid(side=outline.patch_side, spacing=0.25, thickness=0.1)
    inside = (outline.depth(grid) > 0).any(axis=0)
    rows, columns = np.nonzero(inside)
    extent = max(np.ptp(grid.axis[rows]), np.ptp(grid.axis[columns]))
    assert extent <= outline.diameter + 0.5
    assert max(np.abs(grid.axis[rows]).max(), np.abs(grid.axis[columns]).max()) < outline.patch_side / 2
    area = inside.sum() * 0.25**2
    assert area <= np.pi / 4 * outline.diameter**2 * flattening * 1.05


def test_sizes_overlap_between_classes():
    sizes = {
        name: np.array([draw(np.random.default_rng(number)).diameter for number in range(500)])
        for name, (draw, _) in LESIONS.items()
    }
    for sample in sizes.values():
        assert sample.min() >= DIAMETERS[0]
        assert sample.max() <= DIAMETERS[1]
    assert np.median(sizes["cyst"]) == pytest.approx(11, abs=1)
    assert np.median(sizes["hemangioma"]) == pytest.approx(17, abs=1)
    assert np.median(sizes["metastasis"]) == pytest.approx(17, abs=1)
    assert np.quantile(sizes["cyst"], 0.8) > np.quantile(sizes["metastasis"], 0.3)


def test_ramp_goes_from_outside_to_inside_over_its_width():
    depth = np.linspace(-3, 3, 61, dtype=np.float32)
    values = ramp(depth, 2.0)
    assert (values[depth <= -1] == 0).all()
    assert (values[depth >= 1] == 1).all()
    assert (np.diff(values) >= 0).all()
    assert ramp(np.zeros(1, dtype=np.float32), 2.0) == pytest.approx(0.5)


def test_parenchyma_is_even_liver():
    grid = Grid(side=60.0, spacing=0.6, thickness=4.0)
    tissue = np.stack([paint_parenchyma(grid, LIVER, np.random.default_rng(seed)) for seed in range(20)])
    assert tissue.mean() == pytest.approx(100, abs=1.5)
    assert tissue.std() == pytest.approx(np.hypot(4, 4), rel=0.15)


def test_a_tube_is_a_capsule_of_its_radius():
    grid = Grid(side=40.0, spacing=0.2, thickness=0.01)
    planes = np.full((len(grid.levels), grid.count, grid.count), 100, dtype=np.float32)
    paint_tube(planes, grid, np.array([-10.0, 0, 0]), np.array([10.0, 0, 0]), 3.0, 150.0)
    area = ((planes - 100) / 50).mean(axis=0).sum() * 0.2**2
    assert area == pytest.approx(20 * 6 + np.pi * 9, rel=0.01)
    assert planes.max() == pytest.approx(150)
    assert planes.min() == 100


@pytest.mark.parametrize("start", [(0.0, 0, 9), (90.0, 0, 0), (0.0, -90, 0)])
def test_a_tube_beside_the_slice_or_the_patch_leaves_it_alone(start):
    grid = Grid(side=30.0, spacing=0.5, thickness=4.0)
    planes = np.full((len(grid.levels), grid.count, grid.count), 100, dtype=np.float32)
    paint_tube(planes, grid, np.array(start), np.array(start) + 1, 2.0, 150.0)
    assert (planes == 100).all()


def test_crossing_tubes_do_not_add_up():
    grid = Grid(side=30.0, spacing=0.5, thickness=4.0)
    planes = np.full((len(grid.levels), grid.count, grid.count), 100, dtype=np.float32)
    for direction in (np.array([10.0, 0, 0]), np.array([0, 10.0, 0])):
        paint_tube(planes, grid, -direction, direction, 2.5, 150.0)
    assert planes.max() == pytest.approx(150)


def test_a_vein_runs_where_it_is_headed_and_ends():
    grid = Grid(side=60.0, spacing=0.5, thickness=4.0)
    planes = np.full((len(grid.levels), grid.count, grid.count), 100, dtype=np.float32)
    start, heading = np.array([-25.0, 0, 0]), np.array([3.0, 0, 0])
    paint_vein(planes, grid, LIVER, np.random.default_rng(0), start=start, heading=heading, radius=2.0, reach=20.0)
    columns = grid.axis[(planes > 130).any(axis=(0, 1))]
    assert columns.min() < -24
    assert -12 < columns.max() < 0  # 20 mm on, less the turns


def test_vessels_are_brighter_than_liver_and_cover_a_small_part():
    grid = Grid(side=40.0, spacing=0.6, thickness=4.0)
    shares = []
    for seed in range(40):
        planes = np.full((len(grid.levels), grid.count, grid.count), 100, dtype=np.float32)
        paint_vessels(planes, grid, LIVER, np.random.default_rng(seed))
        assert planes.min() == 100
        assert planes.max() <= 150.001
        shares.append((planes.mean(axis=0) > 125).mean())
    assert 0.02 < np.mean(shares) < 0.2
    assert np.mean(np.array(shares) > 0) > 0.8


def test_cysts_are_water_and_homogeneous():
    interiors = [planes[depth > 2.0] for depth, _, planes in draw_lesions("cyst") if (depth > 2.0).any()]
    means = np.array([interior.mean() for interior in interiors])
    assert np.median(means) == pytest.approx(10, abs=4)
    assert 0.5 < ((means >= 0) & (means <= 20)).mean() < 0.95  # the others are dense
    assert means.max() > 25
    assert max(interior.std() for interior in interiors) < 0.5


def test_metastases_are_hypodense_and_inhomogeneous():
    spreads, means = [], []
    for depth, outline, planes in draw_lesions("metastasis"):
        interior = planes[depth > 0.5 * outline.radius]
        spreads.append(interior.std())
        means.append(interior.mean())
    assert 40 < np.mean(means) < 75
    assert np.mean(spreads) > 6
    assert np.min(spreads) < 5  # some are homogeneous


def test_some_metastases_have_a_rim_brighter_than_liver():
    rims = [
        np.quantile(planes[np.abs(depth) < 0.35 * outline.radius], 0.99)
        for depth, outline, planes in draw_lesions("metastasis")
    ]
    assert 0.1 < (np.array(rims) > 103).mean() < 0.7


def test_hemangiomas_have_bright_discontinuous_nodules_about_a_hypodense_centre():
    nodular, covered, centres = [], [], []
    for depth, outline, planes in draw_lesions("hemangioma", 60):
        rim = planes[(depth > 0.1 * outline.radius) & (depth < 0.35 * outline.radius)]
        nodular.append(np.quantile(rim, 0.97))
        covered.append((rim > 125).mean())
        centres.append(np.median(planes[depth > 0.75 * outline.radius]))
    nodular, covered, centres = np.array(nodular), np.array(covered), np.array(centres)
    typical = nodular > 135
    assert 0.5 < typical.mean() < 0.9
    assert nodular.max() < 205
    assert 0.15 < np.median(covered[typical]) < 0.85  # discontinuous: neither nothing nor all of the wall
    assert np.median(centres) < 80
    assert (np.median(nodular) - np.median(centres)) > 60


def test_hemangiomas_bring_a_feeding_vessel():
    outside = [(planes[depth < -1.5] > 120).any() for depth, _, planes in draw_lesions("hemangioma", 60)]
    assert 0.3 < np.mean(outside) < 0.8


def test_borders_are_sharp_in_cysts_and_indistinct_in_metastases():
    """The width over which lesion turns into liver, from the steepest change along the depth."""

    def sharpness(name):
        found = []
        for depth, outline, planes in draw_lesions(name):
            if outline.diameter < 10:
                continue
            edges = np.arange(-3, 3.1, 0.4)
            profile = [planes[(depth >= low) & (depth < low + 0.4)].mean() for low in edges]
            contrast = 100 - min(profile)
            found.append(-np.diff(profile).min() / 0.4 / contrast)
        return np.mean(found)

    assert sharpness("cyst") > 1.5 * sharpness("metastasis")
