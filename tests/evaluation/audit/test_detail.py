"""What images are compared by is blind to brightness and contrast, and knows noise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from genmix_transforms.evaluation.audit.detail import blurred, reliability, structure, texture

RANDOM = np.random.default_rng(0)
IMAGES = torch.from_numpy(RANDOM.integers(40, 120, (3, 1, 24, 24)).astype(np.uint8))
SMOOTH = ndimage.gaussian_filter(RANDOM.normal(size=(40, 1, 64, 64)), (0, 0, 3, 3))
SMOOTH = 128 + 25 * SMOOTH / SMOOTH.std()


def test_blur_is_that_of_scipy():
    values = IMAGES.double()
    expected = [ndimage.gaussian_filter(image[0].numpy(), 1.5, mode="mirror", radius=5) for image in values]
    np.testing.assert_allclose(blurred(values, sigma=1.5)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("look", [structure, texture])
@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2]), st.integers(0, 15))
def test_brightness_and_contrast_do_not_count(look, contrast, brightness):
    changed = (IMAGES.int() * contrast + brightness).to(torch.uint8)
    torch.testing.assert_close(look(changed, side=16), look(IMAGES, side=16), atol=1e-3, rtol=0)
    torch.testing.assert_close(look(255 - changed, side=16), -look(IMAGES, side=16), atol=1e-3, rtol=0)


@pytest.mark.parametrize("look", [structure, texture])
def test_flat_images_have_nothing_to_compare(look):
    assert look(torch.full((2, 3, 20, 20), 77, dtype=torch.uint8), side=16).eq(0).all()
    assert look(IMAGES[:0], side=16).shape == (0, 1, 16, 16)


def test_texture_of_a_part_does_not_depend_on_what_stands_beside_it():
    other = IMAGES.clone()
    other[..., 12:] = 255 - other[..., 12:]
    alike = [
        np.corrcoef(look(IMAGES, side=24)[0, 0, :, :11].flatten(), look(other, side=24)[0, 0, :, :11].flatten())[0, 1]
        for look in (texture, structure)
    ]
    assert alike[0] > 0.99 > alike[1]


def test_texture_of_a_faint_part_is_the_same_beside_strong_contrast():
    smooth = torch.from_numpy(SMOOTH)
    faint = 128 + 0.1 * (smooth[:20] - 128)
    mixed = smooth[20:].clone()
    mixed[..., :32] = faint[..., :32]
    whole, part = (texture(images, side=64)[..., :24] for images in (faint, mixed))
    alike = [np.corrcoef(one.flatten(), other.flatten())[0, 1] for one, other in zip(whole, part, strict=True)]
    assert min(alike) > 0.985


@pytest.mark.parametrize("sd", [0, 10, 30])
def test_reliability_is_the_correlation_with_the_image_without_noise(sd):
    clean = torch.from_numpy(SMOOTH.round().clip(0, 255).astype(np.uint8))
    noisy = SMOOTH + sd * np.random.default_rng(1).normal(size=SMOOTH.shape)
    noisy = torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8))
    seen = structure(clean, side=48, smooth=1.0), structure(noisy, side=48, smooth=1.0)
    expected = np.mean([np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(*seen, strict=True)])
    assert float(reliability(noisy, side=48, smooth=1.0).mean()) == pytest.approx(expected, abs=0.02)
