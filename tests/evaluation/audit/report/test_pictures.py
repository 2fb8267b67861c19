"""Pictures within the page."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.evaluation.audit.report.pictures import MOST_SIDE, Window, difference, picture, sheet


def opened(address):
    start, _, content = address.partition(",")
    assert start == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_a_picture_is_the_image_itself(gray):
    assert (opened(picture(gray, Window.of(gray[None]))) == gray[0].numpy()).all()


def test_sixteen_bits_are_shown_from_their_darkest_to_their_brightest(gray):
    wide = (gray.int() + 1000).to(torch.uint16)
    assert (opened(picture(wide, Window.of(wide[None]))) == gray[0].numpy()).all()


def test_large_images_are_made_smaller():
    large = torch.zeros(3, 200, 200, dtype=torch.uint8)
    assert opened(picture(large, Window(low=0, high=255))).shape == (MOST_SIDE, MOST_SIDE, 3)


def test_a_sheet_has_rows_with_gaps(gray):
    images = torch.stack([gray, 255 - gray, gray])
    shown = opened(sheet(images, Window(low=0, high=255), columns=2))
    assert shown.shape == (34, 34)
    assert (shown[:16, :16] == gray[0].numpy()).all()
    assert (shown[:16, 18:] == 255 - gray[0].numpy()).all()
    assert (shown[18:, 18:] == 128).all()


def test_another_window_is_no_difference(gray):
    other = (gray.float() * 0.5 + 40).round().to(torch.uint8)
    found = difference(other, gray, part="whole")
    assert found.mean < 1
    assert opened(found.picture).max() <= 8
    inverted = difference(255 - gray, gray, part="whole")
    assert inverted.mean == pytest.approx(0, abs=1e-4)


def test_a_difference_stands_where_it_is(gray):
    other = gray.clone()
    other[0, 4:6, 4:6] += 100
    shown = opened(difference(other, gray, part="whole").picture)
    place = np.unravel_index(shown.argmax(), shown.shape)
    assert 4 <= place[0] < 6
    assert 4 <= place[1] < 6


def test_what_was_not_compared_is_blue(gray):
    shown = opened(difference(gray, gray, part="left half").picture)
    assert shown.shape == (16, 16, 3)
    assert (shown[8, 12] == (38, 70, 92)).all()
    assert (shown[8, 4] == 0).all()


def test_a_flat_image_has_a_difference_too(gray):
    flat = torch.full_like(gray, 7)
    assert difference(flat, gray, part="whole").mean == pytest.approx(64, abs=1)
