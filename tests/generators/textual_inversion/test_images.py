"""Patches as the base model takes them, and its images as patches: grey and its spread, and the two sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.images import (
    ChannelSpread,
    to_colour,
    to_grey,
    to_size,
)


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


def pillow(image: Tensor, size: int) -> Tensor:
    """Pillow's resize of one float channel, clipped as its 8-bit images are."""
    resized = Image.fromarray(image.numpy(), mode="F").resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized).copy()).clamp(-1, 1)


def smooth(size: int, *, waves: int) -> Tensor:
    """``(1, 1, size, size)``: a few waves, of which the image has many pixels each."""
    x = (torch.arange(size) + 0.5) / size * 2 * torch.pi * waves
    return (0.7 * torch.sin(x)[:, None] * torch.cos(x)[None])[None, None]


@pytest.mark.parametrize(("old", "new"), [(64, 256), (256, 64), (64, 96), (96, 64), (28, 32), (32, 28), (64, 64)])
def test_both_ways_are_pillows(old: int, new: int) -> None:
    image = torch.rand(1, 2, old, old, generator=torch.Generator().manual_seed(old)) * 2 - 1
    for resize in (to_size,):
        made = resize(image, new)
        assert made.shape == (1, 2, new, new)
        for channel in range(2):
            assert torch.allclose(made[0, channel], pillow(image[0, channel], new), atol=1e-5)


@given(st.integers(4, 40), st.integers(4, 40), st.floats(-1, 1))
@settings(max_examples=30)
def test_constant_stays_constant(old: int, new: int, value: float) -> None:
    made = to_size(torch.full((1, 1, old, old), value), new)
    assert torch.allclose(made, torch.full((1, 1, new, new), value), atol=1e-5)


def test_what_is_too_fine_for_the_patch_becomes_grey() -> None:
    """Stripes of one pixel at 256 cannot be seen at 64: they average out instead of becoming other stripes."""
    stripes = torch.ones(1, 1, 256, 256)
    stripes[..., ::2] = -1
    chequers = stripes * stripes.transpose(-1, -2)
    thirds = torch.where(torch.arange(256) % 3 == 0, 1.0, -0.5).expand(1, 1, 256, 256)  # mean of nearly 0
    for pattern in (stripes, stripes.transpose(-1, -2), chequers, thirds):
        made = to_size(pattern, 64)
        assert made[..., 2:-2, 2:-2].abs().max() < 0.03
        assert made.abs().mean() < 0.02
    # What a resize that leaves pixels out, or that looks at the nearest only, makes of it:
    aliased = torch.nn.functional.interpolate(thirds, size=(64, 64), mode="bicubic")
    assert aliased.std() > 0.3


@pytest.mark.parametrize(("old", "new"), [(256, 64), (64, 256), (512, 64), (64, 96)])
def test_the_mean_is_kept(old: int, new: int) -> None:
    image = torch.rand(8, 1, old, old, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    change = (to_size(image, new).mean((1, 2, 3)) - image.mean((1, 2, 3))).abs()
    assert change.max() < 2 / 255  # a level of grey


@pytest.mark.parametrize("native", [256, 512, 96])
def test_there_and_back_again(native: int) -> None:
    image = smooth(64, waves=4)
    back = to_size(to_size(image, native), 64)
    assert (back - image).abs().mean() < 0.005
    assert (back - image).abs().max() < 0.02  # at the edges
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    back = to_size(to_size(noise, native), 64)
    # The finest detail there is, which no kernel keeps whole.
    assert torch.corrcoef(torch.stack([back.flatten(), noise.flatten()]))[0, 1] > 0.94


def test_what_lies_outside_is_clipped_before_it_is_averaged() -> None:
    image = torch.full((1, 3, 64, 64), -1.0)
    image[..., ::2] = 5.0
    expected = to_size(image.clamp(-1, 1), 16)
    assert torch.equal(to_size(image, 16), expected)
    assert torch.equal(to_size(image, 64), image.clamp(-1, 1))
    edge = torch.full((1, 1, 16, 16), -1.0)
    edge[..., 8:] = 1.0
    assert to_size(edge, 64).abs().max() <= 1
    assert float(image.max()) == 5.0  # the input is not touched


@pytest.mark.parametrize("size", [0, 2.5, "64"])
def test_no_size(size: object) -> None:
    with pytest.raises(InputError, match="size must be a whole number, at least 1"):
        to_size(torch.zeros(1, 1, 8, 8), size)  # type: ignore[arg-type]
