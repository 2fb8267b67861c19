"""Mean and standard deviation of a training set, and the values they make of pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.transforms.functional import dequantise


def random_images(*shape, high=256, dtype=torch.uint8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, high, shape)
    return torch.from_numpy(pixels.astype(np.uint8 if dtype == torch.uint8 else np.uint16))


@given(
    count=st.integers(1, 9), channels=st.integers(1, 4), dtype=st.sampled_from([torch.uint8, torch.uint16]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_statistics_are_numpys(count, channels, dtype, seed):
    highest = 255 if dtype == torch.uint8 else 65535
    images = random_images(count, channels, 5, 4, high=highest + 1, dtype=dtype, seed=seed)
    found = Normalisation.of(images)
    values = images.numpy() / highest
    assert found.mean == pytest.approx(values.mean(axis=(0, 2, 3)), abs=1e-12)
    assert found.std == pytest.approx(values.std(axis=(0, 2, 3)), abs=1e-12)


def test_more_images_than_are_summed_at_once():
    images = random_images(1100, 1, 2, 2)
    found = Normalisation.of(images)
    assert found.mean[0] == pytest.approx(images.numpy().mean() / 255, abs=1e-12)
    assert found.std[0] == pytest.approx(images.numpy().std() / 255, abs=1e-12)


def test_values_have_mean_0_and_deviation_1():
    images = random_images(50, 3, 8, 8) // torch.tensor([1, 2, 4], dtype=torch.uint8).view(3, 1, 1)
    values = dequantise(images, *Normalisation.of(images).unit(images))
    assert values.dtype == torch.float32
    assert values.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (values.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_a_constant_channel_is_only_shifted():
    images = torch.full((4, 1, 3, 3), 51, dtype=torch.uint8)
    normalisation = Normalisation.of(images)
    assert normalisation == Normalisation(mean=(0.2,), std=(1.0,))
    assert dequantise(images, *normalisation.unit(images)).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_real_pixels_become_the_values_that_the_banks_do(dtype):
    images = random_images(20, 2, 6, 6, dtype=dtype)
    normalisation = Normalisation.of(images)
    bank = SyntheticBank(images, torch.zeros(20, dtype=torch.int64), classes=["cyst"])
    for ours, banks in zip(
        normalisation.unit(images), bank.unit(mean=normalisation.mean, std=normalisation.std), strict=True
    ):
        assert torch.equal(ours, banks)


def test_no_images():
    with pytest.raises(InputError, match="no images to take a mean of"):
        Normalisation.of(torch.zeros(0, 1, 4, 4, dtype=torch.uint8))
