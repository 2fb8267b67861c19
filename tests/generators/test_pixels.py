"""Pixels and the range [-1, 1]."""

import pytest
import torch

from genmix_transforms.generators.pixels import to_pixels, to_signed_unit


@pytest.mark.parametrize(("dtype", "highest"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_every_pixel_value_survives_the_way_there_and_back(dtype: torch.dtype, highest: int) -> None:
    pixels = torch.arange(highest + 1, dtype=torch.int32).to(dtype)
    values = to_signed_unit(pixels)
    assert values.dtype == torch.float32
    assert (values.min(), values.max()) == (-1, 1)
    assert torch.equal(to_pixels(values, dtype).to(torch.int32), pixels.to(torch.int32))


def test_values_outside_are_clipped_and_others_rounded() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 0.0041, 1.0, 7.0])
    assert to_pixels(values, torch.uint8).tolist() == [0, 0, 128, 128, 255, 255]


def test_the_input_is_left_alone() -> None:
    values = torch.zeros(3)
    to_pixels(values, torch.uint8)
    assert values.tolist() == [0, 0, 0]
