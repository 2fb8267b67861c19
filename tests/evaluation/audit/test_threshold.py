"""The asked share of new values lies above the threshold."""

import numpy as np
import pytest
import torch
from scipy import stats

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.threshold import Scale, upper_threshold


def test_many_values_give_the_conformal_order_statistic():
    assert upper_threshold(torch.arange(99.0).flip(0), 0.2) == 79  # of 100, 20 are to lie at or above
    assert upper_threshold(torch.arange(99.0), 0.0) > 98


def test_the_share_of_new_values_is_the_one_asked():
    random = np.random.default_rng(0)
    shares = [
        (random.gumbel(size=1000) > upper_threshold(torch.from_numpy(random.gumbel(size=1000)), 0.05)).mean()
        for _ in range(60)
    ]
    assert abs(np.mean(shares) - 0.05) < 0.005


def test_few_values_follow_the_law_of_maxima():
    law = stats.gumbel_r(3, 2)
    exact = torch.from_numpy(law.ppf((np.arange(400) + 0.5) / 400))
    assert upper_threshold(exact, 0.005) == pytest.approx(law.ppf(0.995), rel=0.01)


def test_doubles_among_real_images_do_not_move_the_extrapolated_threshold():
    values = torch.from_numpy(np.random.default_rng(1).gumbel(size=400))
    doubled = values.clone()
    doubled[values.argsort(descending=True)[:12]] = 1e4
    assert upper_threshold(doubled, 0.005) == pytest.approx(upper_threshold(values, 0.005), rel=1e-6)


def test_scale_goes_there_and_back():
    similarity = torch.linspace(0.1, 0.9, 31)
    scale = Scale.of(similarity)
    standardized = scale.standardized(similarity)
    assert float(standardized.median()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(scale.similarity(standardized).float(), similarity)


def test_bad_input():
    with pytest.raises(InputError, match="at least 2 real images, got 1"):
        upper_threshold(torch.tensor([1.0]), 0.05)
