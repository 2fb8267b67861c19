"""The classical augmentation: what it keeps, what it changes, and what its strength means."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.controls import Classical


def ramp(count=4, side=32):
    """Brighter from left to right, and more so from top to bottom: what goes where can be read off."""
    down, across = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    return (0.1 + 0.6 * across + 0.2 * down).expand(count, 1, side, side).clone()


@given(seed=st.integers(0, 2**31), strength=st.floats(0.05, 1.0))
@settings(max_examples=40)
def test_classical_makes_nothing_up(seed, strength):
    """Interpolation and mirrored borders stay within the values of the image."""
    torch.manual_seed(seed)
    images = ramp()
    found = Classical(strength=strength)(images)
    assert found.shape == images.shape
    assert found.min() >= images.min() - 1e-5
    assert found.max() <= images.max() + 1e-5


def test_a_hair_of_strength_only_mirrors():
    torch.manual_seed(0)
    images = ramp(400)
    found = Classical(strength=1e-6)(images)
    same = (found - images).abs().amax(dim=(1, 2, 3)) < 1e-3
    mirrored = (found - images.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert bool((same ^ mirrored).all())
    assert 160 < int(mirrored.sum()) < 240  # four standard deviations around half


def test_angles_and_areas_have_the_range_that_is_promised():
    """The ramp's gradient turns with the image, and shrinks with the area that is shown."""
    torch.manual_seed(0)
    down, across = torch.meshgrid(torch.linspace(-1, 1, 65), torch.linspace(-1, 1, 65), indexing="ij")
    found = Classical(strength=1.0)(torch.stack([across, down]).expand(300, 2, 65, 65))
    middle = slice(28, 37)
    right = (found[:, :, 32, 36] - found[:, :, 32, 28]) / (across[0, 36] - across[0, 28])
    below = (found[:, :, 36, 32] - found[:, :, 28, 32]) / (down[36, 0] - down[28, 0])
    assert found[..., middle, middle].isfinite().all()
    area = (right[:, 0] * below[:, 1] - right[:, 1] * below[:, 0]).abs()
    angle = torch.rad2deg(torch.atan2(-below[:, 0], below[:, 1]))
    assert 0.45 < float(area.min()) < 0.6
    assert 0.9 < float(area.max()) <= 1.01
    assert 25 < float(angle.abs().max()) <= 30.5
    assert abs(float(angle.mean())) < 4
    assert Classical(strength=1.0)(found).shape == found.shape


def test_images_differ_from_each_other():
    torch.manual_seed(0)
    found = Classical(strength=0.5)(ramp(6))
    assert len({image.numpy().tobytes() for image in found}) == 6


@pytest.mark.parametrize("strength", [0, -0.5, 1.5, float("nan")])
def test_strengths_that_are_none(strength):
    with pytest.raises(InputError, match="strength must be above 0 and at most 1"):
        Classical(strength=strength)
