"""What the page shows of an image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.review.pictures import check_showable, to_png


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_eight_bits_are_shown_as_they_are():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert (decoded(to_png(image)) == image[0].numpy()).all()
    color = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    assert (decoded(to_png(color)) == color.permute(1, 2, 0).numpy()).all()


def test_sixteen_bits_are_scaled_by_the_range_that_is_given():
    image = torch.tensor([[[0, 1000, 2000, 3000, 65535]]], dtype=torch.uint16)
    assert decoded(to_png(image, low=1000, high=3000)).tolist() == [[0, 0, 128, 255, 255]]


def test_a_volume_is_shown_slice_by_slice():
    volume = torch.arange(5, dtype=torch.uint8)[None, :, None, None].expand(1, 5, 2, 3)
    assert decoded(to_png(volume))[::2, ::3].tolist() == [[0, 1, 2], [3, 4, 0]]


def test_what_is_no_picture_is_refused():
    check_showable((1, 4, 4), name="bank")
    check_showable((1, 4, 4, 4), name="bank")
    for shape in ((1, 4), (1, 2, 3, 4, 5)):
        with pytest.raises(InputError, match=r"bank: images of shape .* cannot be shown"):
            check_showable(shape, name="bank")
