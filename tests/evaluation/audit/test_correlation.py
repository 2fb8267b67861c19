"""The matrix products give what a loop over all positions gives."""

import numpy as np
import torch

from genmix_transforms.evaluation.audit.correlation import best_of_groups, find_candidates
from genmix_transforms.evaluation.audit.transformations import flip_and_turn

UPRIGHT = ((0.0, 1.0),)


def images(count, *, seed, side=16):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 1, side, side)).astype(np.float32))


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
    found = find_candidates(queries, references, parts=(0,), keep=4, warps=UPRIGHT)
    expected = [best_by_loop(queries[q], references[r]) for q, r in zip(found.query, found.reference, strict=True)]
    np.testing.assert_allclose(found.score, expected, atol=1e-5)
    assert found.score.view(2, 4).diff(dim=1).le(1e-6).all()
    assert found.rank.tolist() == [0, 1, 2, 3] * 2


def test_a_half_is_found_where_the_whole_is_not_and_barred_pairs_are_not():
    references = images(6, seed=2, side=32)
    query = images(1, seed=3, side=32)
    query[..., :16] = references[4, :, :, :16]
    upright = {"parts": (1, 2, 3, 4), "keep": 2, "warps": UPRIGHT, "turns": (0, 4)}
    found = find_candidates(query, references, **upright)
    assert (int(found.reference[0]), int(found.part[0]), int(found.turned[0])) == (4, 3, 0)
    assert float(found.score[0]) > 0.999
    barred = torch.arange(6)[None] == 4
    assert 4 not in find_candidates(query, references, barred=barred, **upright).reference.tolist()


def test_of_each_group_the_best_is_kept_and_the_best_of_all():
    best = torch.tensor([[0.9, 0.8, 0.7, 0.1, 0.6, 0.65, -1.0]])
    groups = torch.tensor([5, 5, 5, 5, 2, 9, 7])
    query, reference, rank = best_of_groups(best, 8, groups)
    assert query.eq(0).all()
    assert dict(zip(reference.tolist(), rank.tolist(), strict=True)) == {0: 0, 5: 1, 4: 2, 1: -1, 2: -1}
    assert best_of_groups(best, 2, None)[1].tolist() == [0, 1]
