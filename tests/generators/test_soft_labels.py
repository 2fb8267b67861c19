"""Soft labels of a bank's images: of which distribution, and from what alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from genmix_transforms.errors import InputError
from genmix_transforms.generators.soft_labels import MOST, check_concentration, draw_soft_labels


@given(
    label=st.integers(0, 3),
    seed=st.integers(0, 2**63 - 1),
    extra=st.integers(1, 3),
    alpha=st.one_of(st.floats(1, 10), st.floats(1, MOST)),
)
def test_each_row_is_a_distribution_with_most_on_its_class(label: int, seed: int, extra: int, alpha: float) -> None:
    row = draw_soft_labels([label], [seed], classes=label + extra, alpha=alpha)
    assert (row.shape, row.dtype) == ((1, label + extra), torch.float32)
    assert int(row.argmax()) == label
    assert float(row.min()) >= 0
    assert float(row.sum()) == pytest.approx(1, abs=1e-6)


def test_a_row_depends_on_its_own_class_and_seed_alone() -> None:
    labels, seeds = [0, 1, 2, 1], [5, 5, 6, 2**40]
    rows = draw_soft_labels(labels, seeds, classes=3, alpha=2)
    assert torch.equal(draw_soft_labels(labels[::-1], seeds[::-1], classes=3, alpha=2), rows.flip(0))
    assert torch.equal(draw_soft_labels([2], [6], classes=3, alpha=2), rows[2:3])
    assert sorted(rows[0].tolist()) != sorted(rows[1].tolist())  # of one seed, and not the same numbers moved
    assert not torch.equal(draw_soft_labels([0], [5], classes=3, alpha=3), rows[:1])
    assert draw_soft_labels([], [], classes=3, alpha=2).shape == (0, 3)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 6.0])
def test_of_two_classes_it_is_the_upper_half_of_a_beta_distribution(alpha: float) -> None:
    own = draw_soft_labels([1] * 2000, range(2000), classes=2, alpha=alpha)[:, 1].numpy().astype(np.float64)
    beta = stats.beta(alpha, 1)
    assert stats.kstest(own, lambda x: (beta.cdf(x) - beta.cdf(0.5)) / beta.sf(0.5)).pvalue > 0.01


def test_of_three_classes_it_is_the_dirichlet_distribution_where_the_class_is_largest() -> None:
    rows = draw_soft_labels([2] * 2000, range(2000), classes=3, alpha=2.0).numpy()
    drawn = np.random.default_rng(0).dirichlet([1, 1, 2], 20_000)
    expected = drawn[drawn.argmax(axis=1) == 2]
    for column in range(3):
        assert stats.ks_2samp(rows[:, column], expected[:, column]).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.5, 0, -1, float("nan"), float("inf"), 1e7, "2", True, None])
def test_what_is_no_concentration(alpha: Any) -> None:
    with pytest.raises(InputError, match=r"soft must be a number from 1 to 1,000,000, got .*: 1 draws uniformly"):
        check_concentration(alpha, name="soft")
