"""The asked share of new values lies above the threshold."""

import numpy as np
import pytest
import torch
from scipy import stats

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.threshold import Law, Scale, doubles, upper_threshold


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
    found = upper_threshold(exact, 0.005)
    assert found > law.ppf(0.995)  # the law is not known exactly
    assert found == pytest.approx(law.ppf(0.995), rel=0.03)


def test_of_few_values_too_the_share_of_new_ones_is_the_one_asked():
    random = np.random.default_rng(4)
    thresholds = [upper_threshold(torch.from_numpy(random.gumbel(size=60)), 0.005) for _ in range(400)]
    assert stats.gumbel_r.sf(thresholds).mean() == pytest.approx(0.005, rel=0.2)


def test_doubles_among_real_images_do_not_move_the_extrapolated_threshold():
    values = torch.from_numpy(np.random.default_rng(1).gumbel(size=400))
    doubled = values.clone()
    doubled[values.argsort(descending=True)[:12]] = 1e4
    assert upper_threshold(doubled, 0.005) == pytest.approx(upper_threshold(values, 0.005), rel=1e-6)


def test_scale_goes_there_and_back_and_is_blind_to_what_an_image_is_like_anyway():
    likeness = torch.linspace(0.4, 2.0, 31, dtype=torch.float64)
    usual = torch.full((31,), 0.5, dtype=torch.float64)
    scale = Scale.of(likeness, usual)
    standing = scale.standardized(likeness, usual)
    assert float(standing.median()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(scale.similarity(standing), torch.tanh(likeness))
    torch.testing.assert_close(scale.standardized(2 * likeness, 2 * usual), standing)
    # Like nothing at all is not like something because it is like others even less.
    assert scale.standardized(torch.tensor([0.06]), torch.tensor([0.01])) < standing[0]
    assert scale.standardized(torch.tensor([-1.0]), torch.tensor([0.5])) == -torch.inf
    assert scale.similarity(torch.tensor([-torch.inf], dtype=torch.float64)) == -1


def test_doubles_are_those_far_outside():
    values = torch.from_numpy(np.random.default_rng(2).gumbel(size=300))
    assert not doubles(values).any()
    values[:20] = 40
    assert doubles(values).nonzero().flatten().tolist() == list(range(20))
    values[40] = -torch.inf
    assert not doubles(values)[40]


@pytest.mark.parametrize("share", [0.05, 0.005])
def test_the_law_of_real_images_gives_the_asked_share_whatever_doubles_there_are(share):
    random = np.random.default_rng(3)

    def real(count):
        usual = random.uniform(0.3, 0.9, size=(2, count))
        return [(torch.from_numpy(u * (1.3 + 0.1 * random.gumbel(size=count))), torch.from_numpy(u)) for u in usual]

    own = real(600)
    own[0][0][:30] = 15.0
    law = Law.of(own)
    assert law.double.nonzero().flatten().tolist() == list(range(30))
    flagged = (law.standing(real(20_000)).amax(dim=0) > law.limit(share)).double().mean()
    assert float(flagged) == pytest.approx(share, rel=0.5)
    distance = law.distance(law.among_real)
    assert distance[:30].eq(0).all()
    assert distance[30:].min() > 0.1


def test_scales_that_were_set_by_few_images_let_no_more_new_ones_pass():
    random = np.random.default_rng(5)

    def real(count):
        return [(torch.from_numpy(1.3 + 0.1 * random.gumbel(size=count)), torch.ones(count)) for _ in range(3)]

    shares = []
    for _ in range(12):
        law = Law.of(real(75))
        shares.append(float((law.standing(real(1000)).amax(dim=0) > law.limit(0.05)).double().mean()))
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_bad_input():
    with pytest.raises(InputError, match="at least 2 real images, got 1"):
        upper_threshold(torch.tensor([1.0]), 0.05)
