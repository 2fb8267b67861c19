"""Voxels with their place: the order that every scan is brought to, and the types that hold its values."""

import numpy as np
import pytest
import SimpleITK as sitk

from genmix_transforms.data.volumes.volume import Volume, compact, oriented, placed
from genmix_transforms.errors import InputError

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
LEFT, BACK, UP = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def test_voxels_in_order_stay_where_they_are():
    image = placed(VOXELS, columns=(LEFT, BACK, UP), spacing=(0.5, 0.6, 3.0), origin=(1, 2, 3))
    volume = Volume(image=image)
    assert np.array_equal(volume.array, VOXELS)
    assert volume.spacing == (0.5, 0.6, 3.0)
    assert image.GetOrigin() == (1, 2, 3)
    assert oriented(image) is image  # no copy


def test_other_orders_are_brought_to_it():
    right, down = (-1, 0, 0), (0, 0, -1)
    image = placed(VOXELS, columns=(right, BACK, down), spacing=(0.5, 0.6, 3.0), origin=(1, 2, 3))
    assert np.array_equal(Volume(image=image).array, VOXELS[::-1, :, ::-1])
    assert image.GetOrigin() == (1 - 3 * 0.5, 2, 3 - 3.0)
    assert np.allclose(image.GetDirection(), np.eye(3).flatten())


def test_an_oblique_image_keeps_its_axes():
    turned = (0.8, 0.6, 0.0), (-0.6, 0.8, 0.0), UP
    image = sitk.GetImageFromArray(VOXELS)
    image.SetDirection(np.array(turned).T.flatten().tolist())
    assert oriented(image) is image


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0, 255], np.uint8), np.int16),
        (np.array([-32768, 32767], np.int64), np.int16),
        (np.array([0, 32768], np.uint16), np.float32),
        (np.array([0.5, 1.0]), np.float32),
    ],
)
def test_values_are_held_small_where_nothing_is_lost(values, dtype):
    found = compact(values)
    assert found.dtype == dtype
    assert np.array_equal(found, values)


def test_values_that_are_none():
    with pytest.raises(InputError, match="2 of its voxels are NaN or infinite"):
        compact(np.array([np.nan, 1.0, np.inf]))
    with pytest.raises(InputError, match="its voxels are complex128, no gray values"):
        compact(np.zeros(2, complex))
