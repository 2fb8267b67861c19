"""Detail is blind to brightness, contrast and inversion but for the sign."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from genmix_transforms.evaluation.audit.detail import blurred, detail

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(40, 120, (3, 1, 24, 24)).astype(np.uint8))


def test_blur_is_that_of_scipy():
    values = IMAGES.double()
    expected = [ndimage.gaussian_filter(image[0].numpy(), 1.5, mode="mirror", radius=5) for image in values]
    np.testing.assert_allclose(blurred(values, sigma=1.5)[:, 0], expected, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2]), st.integers(0, 15))
def test_brightness_and_contrast_do_not_count(contrast, brightness):
    changed = (IMAGES.int() * contrast + brightness).to(torch.uint8)
    torch.testing.assert_close(detail(changed, side=16), detail(IMAGES, side=16), atol=1e-3, rtol=0)
    torch.testing.assert_close(detail(255 - changed, side=16), -detail(IMAGES, side=16), atol=1e-3, rtol=0)


def test_flat_images_have_none():
    assert detail(torch.full((2, 3, 20, 20), 77, dtype=torch.uint8), side=16).eq(0).all()
