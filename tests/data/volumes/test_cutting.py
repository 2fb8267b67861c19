"""Patches against the closed form: to a unit and to half a pixel."""

import numpy as np
import pytest
import SimpleITK as sitk

from genmix_transforms.data.volumes.cutting import cut_patches
from genmix_transforms.data.volumes.lesions import find_lesions
from genmix_transforms.data.volumes.settings import PatchSettings
from genmix_transforms.data.volumes.volume import Volume
from tests.data.volumes.made_scans import ball, hounsfield, points_of

SHAPE, SPACING = (13, 90, 100), (3.0, 0.8, 0.8)
POINTS = points_of(SHAPE, SPACING)
CENTER = POINTS[6, 41, 53]


def scan_of(values, mask, spacing=SPACING):
    image, labels = sitk.GetImageFromArray(values), sitk.GetImageFromArray(mask.astype(np.uint16))
    for each in (image, labels):
        each.SetSpacing(spacing[::-1])
    return Volume(image=image), find_lesions(labels)


def scan_and_mask(mask):
    """The ramp, its mask as an image, and the lesions of it."""
    labels = sitk.GetImageFromArray(mask.astype(np.uint16))
    labels.SetSpacing(SPACING[::-1])
    return (*scan_of(hounsfield(POINTS).astype(np.float32), mask), labels)


def ramp(center=CENTER, radius=5.0):
    return scan_of(hounsfield(POINTS).astype(np.float32), ball(POINTS, center, radius))


def units(patch, settings):
    """Pixels back to Hounsfield units."""
    low, high = settings.gray_range
    return low + patch.pixels * (high - low) / np.iinfo(patch.pixels.dtype).max


def places(patch, center=CENTER):
    """Where the pixels of a patch lie, mm."""
    size = patch.pixels.shape[0]
    offset = (np.arange(size) - (size - 1) / 2) * patch.spacing
    return np.stack(np.broadcast_arrays(center[0] + offset[None], center[1] + offset[:, None], center[2]), axis=-1)


@pytest.mark.parametrize("spacing", [None, 0.5, 0.8, 1.0])
def test_every_pixel_has_the_value_of_its_place(spacing):
    """Finer than the scan's, the same, and coarser (smoothed first): the ramp has 4 HU a mm, half a pixel is 1 HU."""
    settings = PatchSettings(size=32, spacing=spacing, margin=4)
    volume, (lesion,) = ramp()
    (patch,) = cut_patches(volume, lesion, settings)
    assert patch.slice == 6
    assert patch.spacing == (spacing or (13 * 0.8 + 8) / 32)
    assert patch.pixels.dtype == np.uint16
    assert np.abs(units(patch, settings) - hounsfield(places(patch))).max() < 0.1
    assert patch.outside == 0


def test_an_edge_lies_where_it_lies():
    """The border of a bright ball, where it crosses the mean of inside and outside, to half a pixel of the patch."""
    values = (40 + 100 * ball(POINTS, CENTER, 8.1)).astype(np.float32)
    volume, (lesion,) = scan_of(values, ball(POINTS, CENTER, 8.1))
    for spacing in (0.4, 0.8, 1.2):
        settings = PatchSettings(size=56, spacing=spacing)
        (patch,) = cut_patches(volume, lesion, settings)
        inside = units(patch, settings) > 90
        radius = np.sqrt(inside.sum() / np.pi) * spacing
        assert radius == pytest.approx(lesion.diameter / 2, abs=spacing / 2)
        rows, columns = np.nonzero(inside)
        assert abs(rows.mean() - 27.5) < 0.5
        assert abs(columns.mean() - 27.5) < 0.5
        assert np.abs(units(patch, settings)[26:30, 26:30] - 140).max() < 1
        assert np.abs(units(patch, settings)[0, 0] - 40) < 1


def test_a_window():
    settings = PatchSettings(size=32, window=(100, 400))
    volume, (lesion,) = ramp()
    (patch,) = cut_patches(volume, lesion, settings)
    expected = np.clip((hounsfield(places(patch)) + 100) * 255 / 400, 0, 255)
    assert patch.pixels.dtype == np.uint8
    assert np.abs(patch.pixels - expected).max() <= 0.51


def test_a_lesion_at_the_border_is_filled_around():
    corner = POINTS[6, 2, 1]
    settings = PatchSettings(size=20, spacing=0.8)
    volume, (lesion,) = ramp(corner, 1.0)
    (patch,) = cut_patches(volume, lesion, settings)
    assert (patch.pixels[:7] == 0).all()
    assert (patch.pixels[:, :8] == 0).all()
    there = places(patch, corner)
    scan = (there[..., 0] >= -0.4) & (there[..., 1] >= -0.4)
    assert patch.outside == pytest.approx(1 - scan.mean())
    assert np.abs(units(patch, settings) - hounsfield(there))[there[..., :2].min(axis=-1) >= 0].max() < 0.1


def test_neighbors_are_channels():
    settings = PatchSettings(size=16, kind="2.5d", neighbors=2)
    volume, (lesion,) = ramp()
    (patch,) = cut_patches(volume, lesion, settings)
    assert patch.pixels.shape == (16, 16, 5)
    for channel in range(5):
        there = places(patch, CENTER + np.array([0, 0, 3.0 * (channel - 2)]))
        assert np.abs(units(patch, settings)[..., channel] - hounsfield(there)).max() < 0.1


def test_the_last_slice_is_its_own_neighbor():
    volume, (lesion,) = ramp(POINTS[0, 41, 53], 2.0)
    (patch,) = cut_patches(volume, lesion, PatchSettings(size=16, kind="2.5d"))
    assert np.array_equal(patch.pixels[..., 0], patch.pixels[..., 1])
    assert not np.array_equal(patch.pixels[..., 1], patch.pixels[..., 2])


def test_cubes():
    settings = PatchSettings(size=16, kind="3d", spacing=1.0)
    volume, (lesion,) = ramp()
    (patch,) = cut_patches(volume, lesion, settings)
    assert patch.pixels.shape == (16, 16, 16)
    offset = np.arange(16) - 7.5
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    expected = hounsfield(np.stack([x, y, z], axis=-1) + CENTER)
    assert np.abs(units(patch, settings) - expected).max() < 0.1


def test_every_second_slice_through_the_lesion():
    volume, (lesion,) = ramp(radius=10.0)  # slices 3 to 9
    patches = list(cut_patches(volume, lesion, PatchSettings(size=16, every=2)))
    assert [patch.slice for patch in patches] == [4, 6, 8]
    assert patches[0].spacing < patches[1].spacing  # its own box


def test_a_patch_too_small_for_its_lesion_is_marked():
    volume, (lesion,) = ramp()
    for size, cut in ((18, True), (24, False)):
        (patch,) = cut_patches(volume, lesion, PatchSettings(size=size, spacing=0.8, margin=4))
        assert patch.cut == cut


@pytest.mark.parametrize("spacing", [None, 0.4, 0.9, 1.7])
@pytest.mark.parametrize("kind", ["2d", "2.5d", "3d"])
def test_the_mask_of_a_patch_has_the_value_of_the_nearest_voxel(kind, spacing):
    """Of several lesions each has its own; beyond the scan and in larger pixels nothing is made up."""
    mask = 2 * ball(POINTS, POINTS[6, 4, 3], 5.0) + 3 * ball(POINTS, POINTS[6, 14, 14], 2.0)
    volume, (lesion, _), labels = scan_and_mask(mask)
    settings = PatchSettings(size=20, kind=kind, spacing=spacing, margin=8)
    (patch,) = cut_patches(volume, lesion, settings, mask=labels)
    left, right, top, bottom = lesion.boxes[patch.slice]
    low, high = np.array(lesion.low), np.array(lesion.high)
    center = (low + high)[::-1] / 2 if kind == "3d" else [patch.slice, (top + bottom) / 2, (left + right) / 2]
    offset = (np.arange(20) - 9.5) * patch.spacing
    axes = [
        middle + (offset / step if axis or kind == "3d" else np.zeros(1))
        for axis, (middle, step) in enumerate(zip(center, SPACING, strict=True))
    ]
    expected, clear = np.pad(mask, 60), np.ones(1, dtype=bool)
    for axis, places in enumerate(axes):
        expected = expected.take(np.floor(places + 0.5).astype(int) + 60, axis=axis)
        halfway = np.abs(places % 1 - 0.5) < 1e-6  # either neighbor would do
        clear = clear & ~halfway.reshape([-1 if axis == other else 1 for other in range(3)])
    expected, clear = (
        array if kind == "3d" else array[0] for array in (expected, np.broadcast_to(clear, expected.shape))
    )
    assert patch.mask.shape == expected.shape
    assert np.array_equal(patch.mask[clear], expected[clear])
    assert clear.mean() > 0.2
    assert set(np.unique(patch.mask)) >= {0, 2}
    assert next(cut_patches(volume, lesion, settings)).mask is None
