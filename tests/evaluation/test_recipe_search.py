"""The search: it chooses what is best by construction, and promises no more than the choice is worth."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.recipe_search import BASELINE, Cases, Trial, plan_rounds, search

CLASSES = ("cyst", "metastasis")


def make_cases(count=80, *, seed=0, groups=None):
    return Cases.split(np.arange(count) % 2, groups, classes=CLASSES, seed=seed)


class Stub:
    """Trainings whose every prediction is right with the probability of its arm; arms share the luck of the cases."""

    def __init__(self, cases, accuracy, *, seed=0, spread=0.0):
        self.cases, self.accuracy, self.seed, self.spread = cases, accuracy, seed, spread
        self.difficulty = np.random.default_rng([seed, 0]).random(len(cases.labels))
        self.trained = []

    def __call__(self, jobs):
        return {job: self.trial(*job) for job in jobs}

    def trial(self, arm, number):
        self.trained.append((arm, number))
        rng = np.random.default_rng([self.seed, 1, list(self.accuracy).index(arm), number])
        # Half of what makes a case hard is the case's own, half this training's: uniform again by its rank.
        hard = self.difficulty + rng.random(len(self.difficulty))
        rank = np.where(hard < 1, hard**2 / 2, 1 - (2 - hard) ** 2 / 2)
        right = rank < self.accuracy[arm] + self.spread * rng.standard_normal()
        predictions = np.where(right, self.cases.labels, 1 - self.cases.labels)
        return Trial(predictions=np.stack([predictions, predictions]))


def found_by(accuracy, *, budget=32, chance=0.05, cases=None, **options):
    cases = cases or make_cases(200)
    stub = Stub(cases, accuracy, **options)
    arms = [arm for arm in accuracy if arm != BASELINE]
    return search(arms, cases, train=stub, budget=budget, chance=chance), stub


# The halves


def test_halves_have_every_class_alike_and_split_no_group():
    labels = np.array([0] * 20 + [1] * 8 + [2] * 12)
    groups = np.arange(40) // 2
    cases = Cases.split(labels, groups, classes=("a", "b", "c"), seed=3)
    for group in range(20):
        assert len(set(cases.second[groups == group])) == 1
    assert np.bincount(labels[cases.second]).tolist() == [10, 4, 6]
    assert (cases.of_half(0) == ~cases.of_half(1)).all()


def test_the_seed_says_which_half():
    same, again, other = (make_cases(seed=seed).second.tolist() for seed in (1, 1, 2))
    assert same == again != other


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0, 1], None, r"too few images of 'metastasis' \(1, of 1 groups\): .* each class needs 2 at least"),
        ([0, 0, 1, 1], [0, 1, 2, 2], r"too few images of 'metastasis' \(2, of 1 groups\)"),
    ],
)
def test_a_class_that_cannot_be_in_both_halves(labels, groups, message):
    with pytest.raises(InputError, match=message):
        Cases.split(np.array(labels), None if groups is None else np.array(groups), classes=CLASSES, seed=0)


def test_each_half_takes_the_step_that_is_best_on_its_own_cases():
    cases = make_cases(8)
    right = cases.labels
    wrong_first, wrong_second = (np.where(cases.of_half(half), 1 - right, right) for half in (0, 1))
    trial = Trial.of({25: wrong_first, 50: wrong_second, 75: wrong_first}, cases)
    assert (trial.predictions == [wrong_second, wrong_first]).all()
    assert (trial.score(cases, 0), trial.score(cases, 1)) == (1, 1)
    assert (trial.crossed(cases, 0) != right[cases.of_half(1)]).all()


def test_what_is_chosen_by_is_the_macro_f1_of_the_tables():
    cases = make_cases(60)
    trial = Stub(cases, {"mixup": 0.7}).trial("mixup", 0)
    where = cases.of_half(1)
    expected = score(torch.tensor(trial.predictions[1][where]), torch.tensor(cases.labels[where]), num_classes=2)
    assert trial.score(cases, 1) == pytest.approx(expected.macro_f1, abs=1e-6)


# The budget


@pytest.mark.parametrize(("candidates", "besides"), [(1, 0), (4, 0), (11, 1), (30, 1)])
@pytest.mark.parametrize("more", [0, 1, 7, 40])
def test_rounds_stay_within_the_budget_and_leave_fresh_seeds(candidates, besides, more):
    budget = candidates + 1 + besides + 6 + more
    rounds = plan_rounds(candidates, budget=budget, besides=besides)
    assert rounds[0] == candidates
    assert all(later <= -(-earlier // 2) for earlier, later in pairwise(rounds))
    most = besides + candidates + 1 + sum(2 * kept + 1 for kept in rounds[1:])
    assert most + 6 <= budget


@pytest.mark.parametrize("budget", [8, 19])
def test_a_budget_that_is_too_small(budget):
    with pytest.raises(InputError, match=rf"a budget of {budget} trainings is too small .* \(--budget 20\)"):
        plan_rounds(12, budget=budget, besides=1)


def test_no_more_trainings_than_the_budget_none_twice_and_all_paired_with_the_baseline():
    for seed in range(10):
        accuracy = {BASELINE: 0.7, **{f"arm{number}": 0.7 for number in range(8)}}
        found, stub = found_by(accuracy, budget=30, seed=seed, cases=make_cases(40))
        assert found.trainings == len(stub.trained) == len(set(stub.trained)) <= 30
        assert {number for _, number in stub.trained} == {number for arm, number in stub.trained if arm == BASELINE}


# The choice


def test_what_is_best_by_construction_is_chosen():
    accuracy = {BASELINE: 0.6, "mixup": 0.6, "blend@0.1": 0.62, "pretrain@0.5": 0.85, "genmix": 0.5}
    found, _ = found_by(accuracy)
    assert found.arm == "pretrain@0.5"
    assert found.halves == ("pretrain@0.5",) * 2
    assert 0 < found.gain.low < 0.25 < found.gain.high
    assert [one.arm for one in found.candidates] == list(accuracy)
    assert max(found.candidates, key=lambda one: one.gain).arm == "pretrain@0.5"


def test_where_candidates_are_worse_the_baseline_is_chosen_without_more_trainings():
    found, stub = found_by({BASELINE: 0.9, "mixup": 0.6, "genmix": 0.6})
    assert (found.arm, found.halves, found.gain) == (BASELINE, (BASELINE, BASELINE), None)
    assert len(stub.trained) < 32


def test_equal_scores_choose_the_baseline():
    found, _ = found_by({BASELINE: 1.0, "mixup": 1.0, "genmix": 1.0})
    assert found.halves == (BASELINE, BASELINE)


def test_equal_seeds_equal_choice_and_the_order_of_the_answers_changes_nothing():
    accuracy = {BASELINE: 0.7, **{f"arm{number}": 0.7 + number / 100 for number in range(6)}}
    cases = make_cases(60)
    arms = [arm for arm in accuracy if arm != BASELINE]
    found = []
    for turn in (1, 1, -1):
        stub = Stub(cases, accuracy)
        found.append(search(arms, cases, train=lambda jobs, s=stub, t=turn: s(jobs[::t]), budget=30, chance=0.05))
    assert found[0] == found[1] == found[2]


# What the choice is worth


def test_among_equals_the_gain_is_none_on_average_and_seldom_beyond_chance():
    accuracy = {BASELINE: 0.7, **{f"arm{number}": 0.7 for number in range(11)}}
    gains, covered, chosen, naive = [], [], [], []
    for seed in range(60):
        found, _ = found_by(accuracy, seed=seed, cases=make_cases(80, seed=seed), spread=0.03)
        gains.append(found.gain.difference if found.gain else 0.0)
        covered.append(found.gain is None or found.gain.low <= 0 <= found.gain.high)
        chosen.append(found.arm != BASELINE)
        naive.append(max(one.gain for one in found.candidates))
    # The best of eleven looks five points better than it is.
    assert np.mean(naive) > 0.05
    assert abs(np.mean(gains)) < 0.01
    # Of 300 such searches 97 % were covered, and 4 % chose something.
    assert np.mean(covered) > 0.9
    assert np.mean(chosen) < 0.1


def test_the_interval_covers_what_the_choice_really_brings():
    accuracy = {BASELINE: 0.65, **{f"arm{number}": 0.60 + 0.02 * number for number in range(11)}}
    covered, errors = [], []
    for seed in range(60):
        found, _ = found_by(accuracy, seed=seed, cases=make_cases(80, seed=seed), spread=0.03)
        # With two classes alike the macro F1 is on average the accuracy, to within a third of a point.
        true = np.mean([accuracy[arm] for arm in found.halves]) - accuracy[BASELINE]
        if found.gain is not None:
            covered.append(found.gain.low <= true <= found.gain.high)
            errors.append(found.gain.difference - true)
    # Of 300 such searches 95 % were covered, and the mean error was 0.2 points.
    assert np.mean(covered) > 0.88
    assert abs(np.mean(errors)) < 0.015
