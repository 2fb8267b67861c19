"""Windows of Hounsfield units."""

import numpy as np
import torch

from genmix_transforms.data.windowing import check_level_width, stored_to_gray, to_gray, window_ends


def test_ends_and_what_lies_between():
    assert check_level_width(["40", "400"]) == (40, 400)
    ends = window_ends(40, 400)
    assert ends == (-160, 240)
    assert to_gray(np.array([-1024, -160, 40, 240, 3071]), ends).tolist() == [0, 0, 128, 255, 255]


def test_many_images_are_the_same_as_few():
    """They are converted in parts."""
    images = torch.arange(600, dtype=torch.int32).to(torch.uint16).view(600, 1, 1, 1)
    gray = stored_to_gray(images, (-1024, 64511), (-900, -500))
    assert gray.shape == images.shape
    assert torch.equal(gray[500:], stored_to_gray(images[500:], (-1024, 64511), (-900, -500)))
    assert gray[124] == 0
    assert gray[524] == 255
