"""The matrix products give what a loop over all positions gives."""

import numpy as np
import torch

from genmix_transforms.evaluation.audit.correlation import References, find_candidates
from genmix_transforms.evaluation.audit.transformations import flip_and_turn


def images(count, *, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 1, 16, 16)).astype(np.float32))


def best_by_loop(query, reference):
    values = []
    for number in range(8):
        template = flip_and_turn(query[None], number)[0, 0, 1:-1, 1:-1].numpy().ravel()
        for y in range(3):
            for x in range(3):
                under = reference[0, y : y + 14, x : x + 14].numpy().ravel()
                values.append(abs(np.corrcoef(template, under)[0, 1]))
    return max(values)


def test_scores_equal_those_of_a_loop():
    queries, references = images(2, seed=0), images(4, seed=1)
    found = find_candidates(queries, References(references), parts=(0,), keep=4, warps=((0.0, 1.0),))
    expected = [best_by_loop(queries[q], references[r]) for q, r in zip(found.query, found.reference, strict=True)]
    np.testing.assert_allclose(found.score, expected, atol=1e-5)
    assert found.score.view(2, 4).diff(dim=1).le(1e-6).all()


def test_a_half_is_found_where_the_whole_is_not_and_barred_pairs_are_not():
    references = images(6, seed=2)
    query = images(1, seed=3)
    query[..., :8] = references[4, :, :, :8]
    cut = References(references)
    upright = {"parts": (1, 2, 3, 4), "keep": 2, "warps": ((0.0, 1.0),)}
    found = find_candidates(query, cut, **upright)
    assert (int(found.reference[0]), int(found.part[0])) == (4, 3)
    assert float(found.score[0]) > 0.999
    barred = torch.arange(6)[None] == 4
    assert 4 not in find_candidates(query, cut, barred=barred, **upright).reference.tolist()
