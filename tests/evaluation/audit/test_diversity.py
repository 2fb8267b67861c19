"""How varied images are."""

import sys

import numpy as np
import pytest
import torch

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.evaluation.audit import diversity
from genmix_transforms.evaluation.audit.diversity import (
    draw_pairs,
    mean_likeness,
    measure_likeness,
    measure_vendi,
    ms_ssim,
    ssim_scales,
    vendi_score,
)
from genmix_transforms.evaluation.audit.halving import halvings
from genmix_transforms.evaluation.audit.measured import Measured


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_vendi_by_eigenvalues(shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    unit = rows.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    values = np.linalg.eigvals(unit @ unit.T / len(unit)).real
    values = values[values > 1e-12]
    assert vendi_score(rows) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
    assert vendi_score(rows.flip(0)) == pytest.approx(vendi_score(rows))
    assert vendi_score(rows.repeat(3, 1)) == pytest.approx(vendi_score(rows))


def test_vendi_counts_kinds():
    assert vendi_score(torch.eye(7)) == pytest.approx(7)
    assert vendi_score(torch.ones(7, 3)) == pytest.approx(1)
    assert vendi_score(torch.zeros(7, 3)) == pytest.approx(1)
    with pytest.raises(InputError, match="at least one image"):
        vendi_score(torch.empty(0, 3))


def test_ms_ssim_of_patches(make):
    images = make.patches(8, seed=0).images
    assert ms_ssim(images, images).tolist() == pytest.approx([1.0] * 8, abs=1e-4)
    apart = ms_ssim(images, images.flip(0))
    assert (apart < 0.9).all()
    assert torch.allclose(apart, ms_ssim(images.flip(0), images), atol=1e-5)
    assert ssim_scales(32) == 2
    with pytest.raises(InputError, match="at least 11 pixels"):
        ms_ssim(images[..., :10], images[..., :10])
    with pytest.raises(InputError, match="one shape"):
        ms_ssim(images, images[1:])


def test_pairs_are_of_different_patients_and_none_is_used_twice():
    groups = torch.arange(30) // 10
    pairs = draw_pairs(30, groups, seed=0)
    assert (groups[pairs[:, 0]] != groups[pairs[:, 1]]).all()
    assert len(pairs.flatten().unique()) == pairs.numel()
    assert len(pairs) >= 10
    assert len(draw_pairs(30, None, seed=0, most=4)) == 4


def test_likeness_of_a_collapsed_class(make, banks):
    real = make.patches(40, seed=4)
    here, of = real.labels == 0, lambda bank: bank.images[bank.labels == 0]
    collapsed = measure_likeness(real.images[here], real.groups[here], of(banks["collapsed"]), seed=0)
    good = measure_likeness(real.images[here], real.groups[here], of(banks["good"]), seed=0)
    assert collapsed.low > collapsed.real_high
    assert not good.differs
    small = real.images[here][..., :8, :8]
    assert "fewer than 11 pixels" in measure_likeness(small, None, small, seed=0).refused
    assert "fewer than two" in measure_likeness(real.images[:1], None, real.images[:1], seed=0).refused


def test_without_torchmetrics_likeness_is_left_out(make, monkeypatch):
    monkeypatch.setattr(diversity, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    images = make.patches(40, seed=4).images
    assert "pip install 'genmix-transforms[evaluate]'" in measure_likeness(images, None, images, seed=0).refused
    with pytest.raises(MissingExtraError, match=r"MS-SSIM needs torchmetrics.*\[evaluate\]"):
        ms_ssim(images, images)


def test_the_mean_of_classes_is_surer_than_each():
    one = Measured(name="MS-SSIM of pairs", value=0.4, low=0.2, high=0.6, real=0.3, real_low=0.1, real_high=0.5)
    both = mean_likeness([one, one, Measured(name="MS-SSIM of pairs", refused="why")])
    assert both.value == pytest.approx(0.4)
    assert both.high - both.value == pytest.approx(0.2 / 2**0.5)
    assert mean_likeness([]).refused


def test_vendi_beside_real_images():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(60, 8, generator=generator)
    nothing = torch.zeros(60, dtype=torch.int64)
    halves = list(halvings(nothing, None, nothing, classes=1, draws=10, seed=0))
    assert not measure_vendi(real, torch.randn(60, 8, generator=generator), halves, seed=0).differs
    assert measure_vendi(real, torch.ones(60, 8), halves, seed=0).value == pytest.approx(1)
    assert measure_vendi(real, real, [], seed=0).refused
