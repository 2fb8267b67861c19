"""Brightness, histogram and noise."""

import numpy as np
import pytest
import torch

from genmix_transforms.evaluation.audit.halving import halvings
from genmix_transforms.evaluation.audit.radiology import (
    Intensities,
    curves,
    fine_noise,
    fine_share,
    frequencies,
    histogram_distance,
    measure_radiology,
    noise_power,
    spectral_difference,
)


def test_statistics_are_those_of_numpy(make):
    images = make.patches(6, seed=0).images
    found = Intensities.of(images)
    pixels = images.flatten(1).numpy().astype(float)
    assert found.statistics["mean"].numpy() == pytest.approx(pixels.mean(axis=1))
    assert found.statistics["standard deviation"].numpy() == pytest.approx(pixels.std(axis=1))
    assert found.statistics["95th percentile"].numpy() == pytest.approx(np.percentile(pixels, 95, axis=1))
    assert found.histogram[0].numpy() == pytest.approx(
        np.bincount(images[0].flatten(), minlength=256) / pixels.shape[1]
    )
    assert found.unit == "gray levels"


def test_a_window_makes_hounsfield_units():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    found = Intensities.of(images, window=(-100.0, 200.0))
    assert found.statistics["mean"].tolist() == pytest.approx([-100, 200])
    assert found.step * 255 == pytest.approx(300)
    assert found.unit == "HU"


def test_sixteen_bits_are_the_same_picture(make):
    images = make.patches(4, seed=0).images
    wide = Intensities.of((images.int() * 257).to(torch.uint16))
    narrow = Intensities.of(images)
    assert torch.allclose(wide.histogram, narrow.histogram)
    assert torch.allclose(wide.spectrum, narrow.spectrum)
    assert torch.allclose(wide.statistics["mean"], narrow.statistics["mean"] * 257)


def test_the_histogram_distance_is_wasserstein():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    first, second = (random.dirichlet(np.ones(20)) for _ in range(2))
    expected = stats.wasserstein_distance(np.arange(20), np.arange(20), first, second)
    assert histogram_distance(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected)


def test_white_noise_has_its_variance_at_every_frequency():
    images = torch.randn(200, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 20 + 128
    power = noise_power(images.round().clamp(0, 255).to(torch.uint8)).mean(dim=0)
    assert power[1:].numpy() == pytest.approx(np.full(15, (20 / 255) ** 2), rel=0.12)
    assert fine_share(power).item() == pytest.approx(0.75, abs=0.05)


def test_a_wave_stands_at_its_frequency():
    wave = 128 + 100 * torch.cos(2 * torch.pi * torch.arange(32) / 8)
    power = noise_power(wave.round().to(torch.uint8).expand(1, 1, 32, 32))[0]
    assert frequencies(16)[power.argmax()] == pytest.approx(1 / 8)
    assert fine_share(power) < 0.01
    assert fine_share(torch.zeros(3, 16)).tolist() == [0, 0, 0]


def test_decibels():
    flat = torch.ones(16)
    assert spectral_difference(flat, 100 * flat) == pytest.approx(20)
    assert fine_noise(100 * flat, flat) == pytest.approx(20)
    assert spectral_difference(flat, flat) == 0


def measured(real, bank):
    ours, theirs = Intensities.of(bank.images), Intensities.of(real.images)
    halves = list(halvings(real.labels, real.groups, bank.labels, classes=2, draws=10, seed=0))
    which = torch.arange(len(bank)), torch.arange(len(real))
    found = measure_radiology(theirs, ours, halves, groups=real.groups, which=which, seed=0)
    return {one.name: one for one in found}


def test_each_number_sees_its_fault(make, banks):
    real, good = make.patches(72, seed=3), banks["good"]
    assert not measured(real, good)["histogram distance"].differs
    assert not measured(real, good)["fine noise"].differs
    bright = measured(real, good.replace(images=good.images + 20))
    assert bright["mean"].value == pytest.approx(measured(real, good)["mean"].value + 20, abs=1)
    assert bright["mean"].low > bright["mean"].real_high
    assert bright["histogram distance"].low > 10
    noise = measured(real, banks["noise"])
    assert noise["share of fine detail"].value == pytest.approx(0.75, abs=0.05)
    assert noise["fine noise"].value > 10
    smooth = torch.nn.functional.avg_pool2d(good.images.float(), 3, stride=1, padding=1).to(torch.uint8)
    assert measured(real, good.replace(images=smooth))["fine noise"].high < -2


def test_curves_are_means(make):
    real = make.patches(20, seed=3)
    both = Intensities.of(real.images)
    histogram, power = curves(both, both, (torch.arange(5), torch.arange(20)))
    assert sum(histogram.bank) == pytest.approx(1)
    assert histogram.bank != histogram.real
    assert power.x[-1] == 0.5
    assert power.real == pytest.approx(both.spectrum.mean(dim=0).tolist())
    assert set(power.to_dict()) == {"name", "x", "x_name", "bank", "real"}
