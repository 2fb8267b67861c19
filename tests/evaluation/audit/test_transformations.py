"""Turns, zooms and parts are what they say."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from genmix_transforms.evaluation.audit.transformations import PARTS, Transformation, box, flip_and_turn, margin, warp

IMAGE = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(33, 33)), 2)).float()[None, None]


def test_the_eight_flips_and_quarter_turns_are_different_and_known():
    turned = [flip_and_turn(IMAGE, number)[0, 0].numpy() for number in range(8)]
    expected = [np.rot90(image, k) for image in (IMAGE[0, 0].numpy(), IMAGE[0, 0].numpy()[:, ::-1]) for k in range(4)]
    np.testing.assert_array_equal(turned, expected)
    assert len({image.tobytes() for image in turned}) == 8


def test_a_turn_is_that_of_scipy():
    expected = ndimage.rotate(IMAGE[0, 0].numpy(), 10, reshape=False, order=1)
    np.testing.assert_allclose(warp(IMAGE, 10.0, 1.0)[0, 0, 6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-4)


def test_a_zoom_and_a_move_take_pixels_from_where_they_lie():
    whole = warp(IMAGE, 0.0, 1.0, move=(2.0, -1.0))
    torch.testing.assert_close(whole[..., 4:-4, 4:-4], IMAGE[..., 2:-6, 5:-3], atol=1e-5, rtol=0)
    expected = ndimage.affine_transform(IMAGE[0, 0].numpy(), np.eye(2) / 1.1, offset=16 - 16 / 1.1, order=1)
    np.testing.assert_allclose(warp(IMAGE, 0.0, 1.1)[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("side", [16, 32, 48, 64])
def test_parts_leave_out_borders_and_what_touches_others(side):
    border, seen = margin(side), np.zeros((side, side), dtype=int)
    assert border / side >= 0.06
    for number, name in enumerate(PARTS):
        seen[box(number, side, border)] += 1 if "quarter" in name else 0
    expected = np.zeros((side, side), dtype=int)
    expected[border:-border, border:-border] = 1
    expected[side // 2 - 1 : side // 2 + 1] = expected[:, side // 2 - 1 : side // 2 + 1] = 0
    np.testing.assert_array_equal(seen, expected)


def test_a_transformation_lays_one_image_over_the_other():
    image = (IMAGE * 40 + 128).clamp(0, 255).round().to(torch.uint8)
    changed = (255 - image).flip(-1).rot90(-1, (-2, -1)).roll((2, -3), (-2, -1))
    # Undone: first mirrored, then turned, then shifted, then inverted.
    way = Transformation(mirrored=True, quarters=3, shift=(3 / 33, 2 / 33), inverted=True)
    laid = way.apply(changed)
    assert laid.dtype == torch.uint8
    inner = (..., slice(4, -4), slice(4, -4))
    candidates = {
        (y, x): int((laid[inner].int() - image.roll((y, x), (-2, -1))[inner].int()).abs().max())
        for y in range(-6, 7)
        for x in range(-6, 7)
    }
    assert min(candidates.values()) <= 1
    assert Transformation().apply(image).equal(image)
    deep = image.to(torch.int32).mul(257).to(torch.uint16)
    assert Transformation(inverted=True).apply(deep).int().equal(65535 - deep.int())


def test_words():
    assert Transformation(quarters=1, angle=-4.6, zoom=1.07, inverted=True, part="left half").text == (
        "turned by 85 degrees, zoomed 1.07 times, inverted, left half only"
    )
