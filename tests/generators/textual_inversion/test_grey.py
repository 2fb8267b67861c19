"""Grey to colour and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from genmix_transforms.generators.textual_inversion.grey import ChannelSpread, to_colour, to_grey


@given(seed=st.integers(0, 2**31))
def test_there_and_back_is_the_same(seed: int) -> None:
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    grey, spread = to_grey(to_colour(images))
    assert torch.allclose(grey, images, atol=1e-6)
    assert spread.tolist() == [0, 0]


def test_colour_stays() -> None:
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(to_colour(images), images)


def test_the_mean_is_the_nearest_grey_image() -> None:
    images = torch.randn(1, 3, 4, 4)
    grey, _ = to_grey(images)
    error = F.mse_loss(to_colour(grey), images)
    for step in (0.01, -0.01):
        assert F.mse_loss(to_colour(grey + step), images) > error


def test_the_spread_is_a_share_of_the_range() -> None:
    images = torch.stack([torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0, 0.1, 0.2])])[:, :, None, None]
    _, spread = to_grey(images.expand(-1, -1, 4, 4))
    assert spread.tolist() == pytest.approx([1, 0.1])


def test_what_is_counted() -> None:
    counted = ChannelSpread()
    counted.add(torch.empty(0))
    assert (counted.images, counted.mean, counted.largest) == (0, 0, 0)
    counted.add(torch.tensor([0.1, 0.3]))
    counted.add(torch.tensor([0.2]))
    assert (counted.images, counted.mean, counted.largest) == (3, pytest.approx(0.2), pytest.approx(0.3))
    assert str(counted).endswith("the channels differ by 20.0% of the range on average, by 30.0% at most (3 images)")
