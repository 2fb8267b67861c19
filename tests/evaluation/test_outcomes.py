"""Pooling the folds: every case once a seed, in its place, and nothing missing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.outcomes import Outcomes, pooled
from genmix_transforms.evaluation.runs import Run

CLASSES = ("cyst", "metastasis")
LABELS = ((0, 0, 1), (1, 0))


def make_run(arm="baseline", *, fold=0, seed=0, predictions=(0, 1, 1), probabilities=()):
    labels = torch.tensor(LABELS[fold][: len(predictions)] + (0,) * (len(predictions) - len(LABELS[fold])))
    return Run(
        arm=arm,
        fold=fold,
        seed=seed,
        steps=1,
        best_step=1,
        validation_macro_f1=0.5,
        scores=score(torch.tensor(predictions), labels, num_classes=2),
        predictions=predictions,
        probabilities=probabilities,
        seconds=1.0,
    )


def both_folds(arm="baseline", *, seed=0, first=(0, 1, 1), second=(1, 1)):
    return [
        make_run(arm, seed=seed, predictions=first),
        make_run(arm, fold=1, seed=seed, predictions=second),
    ]


def test_folds_follow_one_another():
    runs = [*both_folds(seed=7, second=(0, 0)), *both_folds(seed=2), *both_folds("genmix")]
    found = pooled(runs, labels=LABELS, classes=CLASSES, groups=((5, 5, 9), (8, 8)))
    assert list(found) == ["baseline", "genmix"]
    outcomes = found["baseline"]
    assert outcomes.seeds == (2, 7)
    assert outcomes.labels.tolist() == [0, 0, 1, 1, 0]
    assert outcomes.groups.tolist() == [5, 5, 9, 8, 8]
    assert outcomes.predictions.tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 0, 0]]
    assert outcomes.probabilities is None
    assert found["genmix"].seeds == (0,)


def test_without_groups_every_case_is_one():
    assert pooled(both_folds(), labels=LABELS, classes=CLASSES)["baseline"].groups.tolist() == [0, 1, 2, 3, 4]


@given(st.permutations([run for seed in (0, 1) for arm in ("a", "b") for run in both_folds(arm, seed=seed)]))
def test_the_order_of_the_runs_does_not_matter(runs):
    found = pooled(runs, labels=LABELS, classes=CLASSES)
    assert sorted(found) == ["a", "b"]
    for outcomes in found.values():
        assert outcomes.seeds == (0, 1)
        assert outcomes.predictions.tolist() == [[0, 1, 1, 1, 1]] * 2


def test_probabilities_of_all_runs_or_none():
    sure = ((0.9, 0.1), (0.2, 0.8), (0.3, 0.7))
    runs = [make_run(probabilities=sure), make_run(fold=1, predictions=(1, 1), probabilities=sure[1:])]
    found = pooled(runs, labels=LABELS, classes=CLASSES)["baseline"]
    assert found.probabilities.tolist() == [[*map(list, sure), *map(list, sure[1:])]]
    runs[1] = make_run(fold=1, predictions=(1, 1))
    assert pooled(runs, labels=LABELS, classes=CLASSES)["baseline"].probabilities is None


def test_some_seeds():
    runs = [*both_folds(seed=0), *both_folds(seed=1, second=(0, 0)), *both_folds(seed=2)]
    found = pooled(runs, labels=LABELS, classes=CLASSES)["baseline"].of_seeds([2, 1])
    assert found.seeds == (2, 1)
    assert found.predictions.tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 0, 0]]


def test_nothing_to_pool():
    assert pooled([], labels=LABELS, classes=CLASSES) == {}


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([make_run()], {}, "arm 'baseline', seed 0: no run of fold 1"),
        ([make_run(), *both_folds()], {}, "arm 'baseline', seed 0, fold 0 is there twice"),
        (both_folds(), {"labels": LABELS[:1]}, "a run of fold 1, but there are 1 folds"),
        ([make_run(predictions=(0, 1))], {}, "fold 0: 2 predictions for 3 test cases"),
        (both_folds(), {"groups": ((0, 1, 2), (3,))}, "every test case needs a group, or none"),
        (both_folds(), {"classes": ("cyst",)}, "labels run from 0 to 1, but there are 1 classes"),
        ([make_run(probabilities=((0.5, 0.3, 0.2),) * 3)], {"labels": LABELS[:1]}, r"shape \(1, 3, 2\), got"),
    ],
)
def test_what_cannot_be_pooled(runs, options, message):
    with pytest.raises(InputError, match=message):
        pooled(runs, **{"labels": LABELS, "classes": CLASSES, **options})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": np.arange(3)}, r"groups must be of shape \(4,\), got \(3,\)"),
        ({"predictions": np.zeros((1, 4), int)}, r"predictions must be of shape \(2, 4\)"),
        ({"predictions": np.full((2, 4), 2)}, "predictions run from 2 to 2, but there are 2 classes"),
        ({"seeds": ()}, "a test case and a seed, got 4 cases and 0 seeds"),
    ],
)
def test_no_outcomes(changes, message):
    good = {"labels": np.array([0, 1, 0, 1]), "groups": np.arange(4), "predictions": np.zeros((2, 4), int)}
    with pytest.raises(InputError, match=message):
        Outcomes(**{"classes": CLASSES, "seeds": (0, 1), **good, **changes})
