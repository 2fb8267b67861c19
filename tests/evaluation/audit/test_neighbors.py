"""Nearest neighbors are those of a brute-force search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit import nearest_neighbors


def points(count, dimensions, *, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(5, 1, (count, dimensions)).astype(np.float32))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 700), st.integers(1, 9), st.integers(1, 5))
def test_distances_are_those_of_scipy(queries, references, dimensions, k):
    k = min(k, references)
    some, others = points(queries, dimensions, seed=1), points(references, dimensions, seed=2)
    distance, index = nearest_neighbors(some, others, k=k)
    expected = cdist(some.double(), others.double())
    np.testing.assert_allclose(distance, np.sort(expected, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, index.numpy(), axis=1), distance, atol=1e-5)


def test_equal_points_are_at_zero_and_groups_are_left_out():
    some = points(50, 8, seed=0)
    distance, index = nearest_neighbors(some, some)
    assert distance.eq(0).all()
    assert index[:, 0].tolist() == list(range(50))
    groups = torch.arange(50) // 5
    distance, index = nearest_neighbors(some, some, query_groups=groups, reference_groups=groups)
    assert groups[index[:, 0]].ne(groups).all()
    apart = cdist(some.double(), some.double())
    apart[(groups[:, None] == groups[None]).numpy()] = np.inf
    np.testing.assert_allclose(distance[:, 0], apart.min(axis=1), atol=1e-5)


def test_nothing_left_is_infinitely_far():
    one = torch.zeros(2, dtype=torch.int64)
    distance, index = nearest_neighbors(
        points(2, 3, seed=0), points(2, 3, seed=1), query_groups=one, reference_groups=one
    )
    assert distance.isinf().all()
    assert index.eq(-1).all()


def test_bad_input():
    some = points(4, 3, seed=0)
    for arguments, options, message in (
        ((some, points(4, 2, seed=0)), {}, "queries have 3 dimensions and references 2"),
        ((some.long(), some), {}, r"queries must be floats of shape \(N, D\)"),
        ((some, some / 0), {}, "references must be finite"),
        ((some, some), {"k": 5}, "k must be a whole number, from 1 to 4"),
        ((some, some), {"query_groups": torch.arange(4)}, "or neither"),
        ((some, some), {"query_groups": torch.arange(3), "reference_groups": torch.arange(4)}, r"shape \(4,\)"),
    ):
        with pytest.raises(InputError, match=message):
            nearest_neighbors(*arguments, **options)
