"""Tuning: the same number of values for every arm, and the best of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.evaluation.arms import ARMS, KINDS
from genmix_transforms.evaluation.protocol import GRID, Protocol
from genmix_transforms.evaluation.tuning import TUNING_SEED, TrialCache, choose, trial_values, with_value


@pytest.mark.parametrize("arm", [*ARMS, "genmix:dcgan"])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_every_arm_tries_as_many_values(arm, count):
    values = trial_values(arm, count)
    grid = KINDS[arm.partition(":")[0]].grid
    assert len(set(values)) == count
    assert set(values) <= set(grid)
    assert (values[0], values[-1]) == (grid[0], grid[-1])
    assert list(values) == sorted(values)


def test_blends_share_goes_from_a_tenth_to_a_half():
    assert trial_values("blend", GRID) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert trial_values("repeat", GRID) == (0.1, 0.2, 0.3, 0.4, 0.5)


@pytest.mark.parametrize("arm", ARMS)
def test_a_value_changes_the_arms_option_and_nothing_else(arm):
    protocol = Protocol(tune=3, steps=7)
    assert with_value(protocol, arm, None) == Protocol(steps=7)
    for value in KINDS[arm].grid:
        found = with_value(protocol, arm, value)
        assert found == Protocol(steps=7, **{KINDS[arm].knob: value})
        assert type(getattr(found, KINDS[arm].knob)) is type(getattr(protocol, KINDS[arm].knob))


@given(st.dictionaries(st.floats(0, 1), st.floats(0, 1), min_size=1))
def test_the_best_is_chosen(trials):
    best = choose(trials)
    assert trials[best] == max(trials.values())
    assert all(value >= best for value, score in trials.items() if score == trials[best])


def test_the_trials_seed_is_no_runs():
    assert TUNING_SEED > 10**9


def test_trials_are_kept_by_what_they_depend_on(tmp_path):
    cache = TrialCache(tmp_path / "trials")
    assert cache.get("blend", 0.1, fold=0, key="a") is None
    cache.put("blend", 0.1, 0.625, fold=0, key="a")
    assert cache.get("blend", 0.1, fold=0, key="a") == 0.625
    for arm, value, fold, key in (("blend", 0.1, 0, "b"), ("blend", 0.3, 0, "a"), ("blend", 0.1, 1, "a")):
        assert cache.get(arm, value, fold=fold, key=key) is None
    cache.path("blend", 0.1, fold=0).write_text("{")
    assert cache.get("blend", 0.1, fold=0, key="a") is None
    assert cache.path("genmix:a/b", 0.1, fold=0).parent == tmp_path / "trials"
