"""AugMix and the classical augmentation: what they keep, what they change, and what their strength means."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.controls import AugMix, Classical
from genmix_transforms.evaluation.normalisation import Normalisation

UNIT = Normalisation(mean=(0.0,), std=(1.0,))


def ramp(count=4, side=32):
    """Brighter from left to right, and more so from top to bottom: what goes where can be read off."""
    down, across = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    return (0.1 + 0.6 * across + 0.2 * down).expand(count, 1, side, side).clone()


def test_augmix_is_torchvisions_image_by_image():
    images = torch.rand(3, 1, 16, 16)
    torch.manual_seed(1)
    ours = AugMix(UNIT, severity=4)(images)
    torch.manual_seed(1)
    theirs = torch.stack([v2.AugMix(severity=4)(image.unsqueeze(0))[0] for image in images])
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_augmix_works_on_values_whatever_their_normalisation():
    images = torch.rand(3, 1, 16, 16)
    other = Normalisation(mean=(0.4,), std=(0.2,))
    torch.manual_seed(1)
    plain = AugMix(UNIT, severity=3)(images)
    torch.manual_seed(1)
    normalised = AugMix(other, severity=3)((images - 0.4) / 0.2)
    assert torch.allclose(normalised * 0.2 + 0.4, plain, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmix_of_any_channels(channels):
    normalisation = Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels)
    images = torch.rand(2, channels, 16, 16)
    assert AugMix(normalisation, severity=2)(images).shape == images.shape


def test_augmix_of_five_channels():
    with pytest.raises(InputError, match="1 or 3 channels, got 5: leave the arm 'augmix' out"):
        AugMix(Normalisation(mean=(0.0,) * 5, std=(1.0,) * 5), severity=2)


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
