"""Numbers beside their real values, and their intervals."""

import json
import math

import numpy as np
import pytest
import torch

from genmix_transforms.evaluation.audit.measured import Measured, bootstrap, bootstrap_mean, from_draws


def test_a_number_says_where_it_lies():
    one = Measured(name="KID", value=3.0, low=2.0, high=4.0, real=0.0, real_low=-1.0, real_high=1.0, unit="dB")
    assert one.text == "KID: 3 dB (2 to 4); real images among themselves 0 dB (-1 to 1)"
    assert one.differs
    assert not Measured(name="KID", value=1.0, low=0.5, high=4.0, real=0.0, real_low=-1.0, real_high=1.0).differs


def test_a_refused_number_gives_its_reason_and_is_json():
    one = Measured(name="FID", refused="too few images")
    assert one.text == "FID: not given: too few images"
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["value"] is None


def test_the_middle_of_the_draws():
    draws = np.arange(101.0)
    found = from_draws("KID", draws, -draws, better="low")
    assert (found.value, found.low, found.high) == (50.0, 2.5, 97.5)
    assert (found.real, found.real_low, found.real_high) == (-50.0, -97.5, -2.5)
    assert from_draws("KID", [math.nan], [1.0]).refused


def test_the_interval_of_a_mean_is_that_of_normal_theory():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    mean, low, high = bootstrap_mean(values, seed=0)
    assert mean == pytest.approx(values.mean().item())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std().item() / 20, rel=0.1)
    assert bootstrap_mean(values, seed=0) == (mean, low, high)


def test_images_of_a_patient_are_drawn_together():
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    alone = bootstrap_mean(values, seed=0)
    copied = bootstrap_mean(values.repeat(5), groups=torch.arange(40).repeat(5), seed=0)
    assert copied == pytest.approx(alone)
    assert np.ptp(bootstrap_mean(values.repeat(5), seed=0)[1:]) < 0.6 * np.ptp(alone[1:])


def test_no_values_no_mean():
    assert all(math.isnan(value) for value in bootstrap_mean(torch.empty(0), seed=0))


def test_the_statistic_gets_counts_of_images():
    seen = []
    bootstrap(6, lambda weights: seen.append(weights) or weights[:, 0], groups=None, seed=0, draws=7)
    assert seen[0].shape == (7, 6)
    assert (seen[0].sum(axis=1) == 6).all()
