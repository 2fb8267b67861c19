"""Lesions: components, sizes, the slice of the largest cross-section."""

import numpy as np
import pytest
import SimpleITK as sitk

from genmix_transforms.data.volumes.lesions import find_lesions
from tests.data.volumes.made_scans import SPACING, ball, points_of


def mask_of(array, spacing=SPACING):
    image = sitk.GetImageFromArray(array.astype(np.uint16))
    image.SetSpacing(spacing[::-1])
    return image


def test_components_of_each_value_from_feet_to_head():
    array = np.zeros((8, 10, 12), int)
    array[5:7, 1:4, 2:5] = 1
    array[1, 6, 7] = 1
    array[2, 7, 8] = 1  # touches the one before by a corner
    array[6, 8, 8] = 3
    lesions = find_lesions(mask_of(array))
    assert [(lesion.value, lesion.number, lesion.low, lesion.high) for lesion in lesions] == [
        (1, 0, (7, 6, 1), (8, 7, 2)),
        (1, 1, (2, 1, 5), (4, 3, 6)),
        (3, 2, (8, 8, 6), (8, 8, 6)),
    ]
    assert [lesion.value for lesion in find_lesions(mask_of(array), values=[3, 4])] == [3]
    assert lesions[1].boxes == {5: (2, 4, 1, 3), 6: (2, 4, 1, 3)}
    assert lesions[1].middle_slice == 5
    assert lesions[1].volume == pytest.approx(18 * 3 * 0.8 * 0.8)


def test_a_ball_has_the_size_that_it_has():
    points = points_of((15, 60, 60), (1.0, 0.5, 0.5))
    (lesion,) = find_lesions(mask_of(ball(points, points[7, 30, 31], 6.0), (1.0, 0.5, 0.5)))
    assert lesion.middle_slice == 7
    assert lesion.diameter == pytest.approx(12, abs=0.25)
    assert lesion.volume == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.02)
