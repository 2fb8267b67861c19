"""The statistics against slow and independent references, and whether they keep what they promise, by simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import statistics
from genmix_transforms.evaluation.metrics import score, score_several
from genmix_transforms.evaluation.outcomes import Outcomes
from genmix_transforms.evaluation.statistics import differences, estimate, holm, metric_names, resample

CLASSES = ("cyst", "hemangioma", "metastasis")


def make_outcomes(cases=60, *, seeds=3, gain=1.5, seed=0, group_size=1, probabilities=True, labels=None):
    """Classifiers that see the truth through noise; a few probabilities are equal."""
    rng = np.random.default_rng(seed)
    labels = np.arange(cases) % 3 if labels is None else np.asarray(labels)
    logits = gain * np.eye(3)[labels] + rng.normal(size=(seeds, len(labels), 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return Outcomes(
        classes=CLASSES,
        labels=labels,
        groups=np.arange(len(labels)) // group_size,
        seeds=tuple(range(seeds)),
        predictions=logits.argmax(axis=2),
        probabilities=shares.round(2) if probabilities else None,
    )


def score_of(outcomes, row, index):
    """By torchmetrics, of the cases at ``index``."""
    found = score(
        torch.tensor(outcomes.predictions[row, index]),
        torch.tensor(outcomes.labels[index]),
        num_classes=len(outcomes.classes),
        probabilities=None if outcomes.probabilities is None else torch.tensor(outcomes.probabilities[row, index]),
    )
    return list(found.by_name(outcomes.classes).values())


# The scores of resamples


def test_names_are_those_of_the_scores():
    scores = score(torch.tensor([0, 1]), torch.tensor([0, 1]), num_classes=3)
    assert metric_names(CLASSES) == tuple(scores.by_name(CLASSES))


@pytest.mark.parametrize("labels", [None, [0, 0, 1] * 12, [2] * 36, [0, 0, 0, 1, 1, 2, 0, 0, 0]])
def test_observed_scores_as_torchmetrics(labels):
    outcomes = make_outcomes(36, labels=labels)
    everything = np.arange(len(outcomes.labels))
    expected = [score_of(outcomes, row, everything) for row in range(3)]
    np.testing.assert_allclose(resample(outcomes, draws=100).observed, expected, atol=1e-6)


@pytest.mark.parametrize("labels", [None, [0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1, 2]])
def test_scores_of_resamples_as_a_slow_loop(labels, monkeypatch):
    """Groups drawn by hand, their cases laid out as often as they were drawn, and scored by torchmetrics."""
    outcomes = make_outcomes(36, group_size=2, labels=labels)
    groups = len(set(outcomes.groups.tolist()))
    drawn = np.random.default_rng(5).integers(groups, size=(100, groups))
    weights = np.array([[(row == group).sum() for group in range(groups)] for row in drawn], dtype=float)
    monkeypatch.setattr(statistics, "_weights", lambda *_: iter([weights[:30], weights[30:]]))
    found = resample(outcomes, draws=100).draws
    for number in range(0, 100, 9):
        index = np.concatenate([np.flatnonzero(outcomes.groups == group) for group in drawn[number]])
        expected = [score_of(outcomes, row, index) for row in range(3)]
        np.testing.assert_allclose(found[number], expected, atol=1e-6)


def test_resamples_draw_each_group_as_often_as_another(monkeypatch):
    kept = []
    genuine = statistics._weights
    monkeypatch.setattr(statistics, "_weights", lambda *of: (kept.append(w) or w for w in genuine(*of)))
    resample(make_outcomes(40, group_size=2), draws=4000)
    weights = np.concatenate(kept)
    assert weights.shape == (4000, 20)
    assert (weights.sum(axis=1) == 20).all()
    # Multinomial: mean 1, variance 1 - 1/20, covariance -1/20.
    covariance = np.cov(weights, rowvar=False)
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.07)
    assert np.diag(covariance) == pytest.approx(np.full(20, 0.95), abs=0.12)
    assert covariance[~np.eye(20, dtype=bool)].mean() == pytest.approx(-0.05, abs=0.005)


def test_a_seed_repeats_its_resamples_and_portions_do_not_matter(monkeypatch):
    outcomes = make_outcomes()
    first = resample(outcomes, draws=500, seed=3)
    monkeypatch.setattr(statistics, "_CHUNK", 37 * len(outcomes.labels))
    np.testing.assert_array_equal(resample(outcomes, draws=500, seed=3).draws, first.draws)
    assert not np.array_equal(resample(outcomes, draws=500, seed=4).draws, first.draws)


def test_the_order_of_the_cases_does_not_matter():
    outcomes = make_outcomes(group_size=3)
    order = np.random.default_rng(1).permutation(60)
    shuffled = Outcomes(
        classes=CLASSES,
        labels=outcomes.labels[order],
        groups=outcomes.groups[order],
        seeds=outcomes.seeds,
        predictions=outcomes.predictions[:, order],
        probabilities=outcomes.probabilities[:, order],
    )
    np.testing.assert_allclose(
        resample(shuffled, draws=100).draws, resample(outcomes, draws=100).draws, atol=1e-6, equal_nan=True
    )


def test_copies_in_one_group_add_nothing_and_copies_apart_seem_to():
    outcomes = make_outcomes(seeds=1, probabilities=False)

    def twice(groups):
        return Outcomes(
            classes=CLASSES,
            labels=np.tile(outcomes.labels, 2),
            groups=groups,
            seeds=(0,),
            predictions=np.tile(outcomes.predictions, 2),
        )

    alone = estimate(resample(outcomes), "macro_f1")
    together = estimate(resample(twice(np.tile(np.arange(60), 2))), "macro_f1")
    apart = estimate(resample(twice(np.arange(120))), "macro_f1")
    assert together == alone
    assert apart.standard_error == pytest.approx(alone.standard_error / math.sqrt(2), rel=0.08)


# Intervals and differences


def test_one_seed_as_scipy_has_it():
    scipy_stats = pytest.importorskip("scipy.stats")
    outcomes = make_outcomes(200, seeds=1, gain=1)
    hits = (outcomes.predictions[0] == outcomes.labels).astype(float)
    reference = scipy_stats.bootstrap((hits,), np.mean, n_resamples=4000, method="percentile", rng=1)
    found = estimate(resample(outcomes, draws=4000), "accuracy")
    assert found.mean == pytest.approx(hits.mean())
    assert found.standard_error == pytest.approx(reference.standard_error, rel=0.05)
    assert found.margin == pytest.approx(np.ptp(reference.confidence_interval) / 2, rel=0.06)
    assert math.isnan(found.sd)


def test_few_cases_few_groups_as_the_plain_formula():
    """One seed, accuracy: the standard error of a mean, n - 1 below."""
    outcomes = make_outcomes(12, seeds=1, gain=1)
    hits = outcomes.predictions[0] == outcomes.labels
    found = estimate(resample(outcomes, draws=20_000), "accuracy")
    assert found.standard_error == pytest.approx(hits.std(ddof=1) / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "auc", "sensitivity_hemangioma"])
def test_the_standard_error_as_a_slow_loop(metric):
    """Variance of the seeds, at least what a single run owes to its cases, through their number; and the mean
    covariance of two seeds over the same resamples."""
    found = resample(make_outcomes(90, seeds=4), draws=600)
    number = found.metrics.index(metric)
    values, draws = found.observed[:, number].tolist(), found.draws[:, :, number]
    mean = sum(values) / 4
    between = sum((value - mean) ** 2 for value in values) / 3
    pairs = list(itertools.combinations(range(4), 2))
    shared = sum(np.cov(draws[:, one], draws[:, other], ddof=0)[0, 1] for one, other in pairs) / len(pairs)
    shared = max(shared, 0) * 90 / 89
    alone = sum(np.var(draws[:, row]) for row in range(4)) / 4 * 90 / 89 - shared
    expected = math.sqrt(max(between, alone) / 4 + shared)
    estimated = estimate(found, metric)
    assert estimated.standard_error == pytest.approx(expected)
    assert estimated.mean == pytest.approx(mean)
    assert estimated.sd == pytest.approx(math.sqrt(between))


def test_the_errors_vary_as_the_standard_error_says():
    """Many seeds: the long tails of few are gone, and 95 % of the errors are within 1.96 standard errors."""
    arms = {name: resample(make_outcomes(300, seeds=40, seed=seed), draws=4000) for seed, name in enumerate("ab")}
    (found,) = differences(arms, [("b", "a")])
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * found.standard_error, rel=0.05)
    # 1.96 + 0.84 standard errors.
    assert found.detectable == pytest.approx(2.80 * found.standard_error, rel=0.05)


def test_few_seeds_have_long_tails():
    """Five seeds of very different skill: Student's t with 4 degrees of freedom, 2.78 + 0.94 standard errors."""
    rng = np.random.default_rng(0)
    ratios = []
    for seed in range(40):
        flips = rng.random((2, 5, 400)) < rng.uniform(0, 0.6, size=(2, 5, 1))
        arms = {
            name: resample(
                Outcomes(
                    classes=("no", "yes"),
                    labels=np.arange(400) % 2,
                    groups=np.arange(400),
                    seeds=tuple(range(5)),
                    predictions=(np.arange(400) % 2) ^ flips[number],
                ),
                draws=400,
                seed=seed,
            )
            for number, name in enumerate("ab")
        }
        (found,) = differences(arms, [("a", "b")], metric="accuracy")
        ratios.append([(found.high - found.low) / 2 / found.standard_error, found.detectable / found.standard_error])
    # The shared part, cut off at 0, now and then adds to the standard error and shortens the tails.
    assert 2.3 < np.median(ratios, axis=0)[0] < 2.9
    assert 3.1 < np.median(ratios, axis=0)[1] < 3.9


def test_seeds_that_agree_by_luck_prove_nothing():
    """Every seed's accuracy gains the same 4 cases of 100, each seed on other cases: without the chance of single runs
    on single cases the standard error would be 0."""
    labels = np.zeros(100, dtype=int)
    labels[:50] = 1
    rng = np.random.default_rng(0)
    predictions = {name: np.tile(labels, (5, 1)) for name in "ab"}
    for row in range(5):
        cases = rng.permutation(100)
        for name, wrong in (("a", cases[:24]), ("b", cases[40:60])):
            predictions[name][row, wrong] = 1 - labels[wrong]
    arms = {
        name: resample(
            Outcomes(
                classes=("no", "yes"),
                labels=labels,
                groups=np.arange(100),
                seeds=tuple(range(5)),
                predictions=predictions[name],
            )
        )
        for name in "ab"
    }
    (found,) = differences(arms, [("b", "a")], metric="accuracy")
    # 44 cases of 100 change, 24 for the better and 20 for the worse: McNemar's variance, through 5 seeds.
    expected = math.sqrt((44 - 4**2 / 100) / 100 / 99 / 5)
    assert found.difference == pytest.approx(0.04)
    assert found.standard_error == pytest.approx(expected, rel=0.15)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * found.standard_error, rel=0.05)
    assert found.p_single == pytest.approx(math.erfc(0.04 / expected / math.sqrt(2)), abs=0.06)
    assert estimate(arms["a"], "accuracy").standard_error == pytest.approx(math.sqrt(0.24 * 0.76 / 99 / 5), rel=0.15)


def test_a_difference_is_that_of_the_means_and_has_a_sign():
    arms = {
        name: resample(make_outcomes(gain=gain, seed=seed))
        for seed, (name, gain) in enumerate(zip("abc", [1, 2, 1], strict=True))
    }
    one, other, third = differences(arms, [("b", "a"), ("a", "b"), ("c", "a")])
    assert one.difference == pytest.approx(estimate(arms["b"], "macro_f1").mean - estimate(arms["a"], "macro_f1").mean)
    assert (one.arm, one.reference, one.metric, one.seeds) == ("b", "a", "macro_f1", 3)
    assert other.difference == pytest.approx(-one.difference)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert other.p_single == one.p_single
    assert other.detectable == pytest.approx(one.detectable)
    assert [found.p for found in (one, other, third)] == pytest.approx(
        holm([found.p_single for found in (one, other, third)])
    )


def test_the_interval_leaves_0_out_where_p_is_below_5_per_cent():
    checked = 0
    for seed in range(60):
        arms = {
            name: resample(make_outcomes(gain=gain, seed=2 * seed + number, probabilities=False), draws=400)
            for number, (name, gain) in enumerate((("a", 1), ("b", 1.5)))
        }
        (found,) = differences(arms, [("b", "a")])
        if abs(found.p_single - 0.05) > 0.01:
            checked += 1
            assert (found.p_single < 0.05) == (found.low > 0 or found.high < 0)
    assert checked > 40


def test_an_arm_does_not_differ_from_itself():
    found = resample(make_outcomes())
    (same,) = differences({"a": found, "b": found}, [("a", "b")])
    assert (same.difference, same.low, same.high, same.p, same.p_single) == (0, 0, 0, 1, 1)
    assert math.isnan(same.detectable)


def test_p_is_a_share_of_the_draws():
    arms = {
        "good": resample(make_outcomes(300, gain=5), draws=499),
        "bad": resample(make_outcomes(300, gain=0), draws=499),
    }
    (found,) = differences(arms, [("good", "bad")])
    assert found.p_single == 1 / 500


def test_pairs_need_the_seeds_that_both_have():
    whole = resample(make_outcomes(seeds=4), draws=200)
    some = resample(whole.outcomes.of_seeds([3, 1]), draws=200)
    other = resample(make_outcomes(seeds=4, seed=1), draws=200)
    (found,) = differences({"a": some, "b": other}, [("a", "b")])
    assert found.seeds == 2
    expected = whole.observed[[1, 3], 1].mean() - other.observed[[1, 3], 1].mean()
    assert found.difference == pytest.approx(expected)


def test_pairing_takes_the_cases_chance_away():
    """Two arms that err on the same cases: each is uncertain, their difference is not."""
    one = make_outcomes(200, seeds=1, probabilities=False)
    predictions = one.predictions.copy()
    predictions[0, :4] = (predictions[0, :4] + 1) % 3
    other = Outcomes(classes=CLASSES, labels=one.labels, groups=one.groups, seeds=(0,), predictions=predictions)
    arms = {"a": resample(one), "b": resample(other)}
    (found,) = differences(arms, [("a", "b")])
    assert found.standard_error < estimate(arms["a"], "macro_f1").standard_error / 2


# Where a score has no meaning


def test_without_probabilities_there_is_no_auc():
    found = resample(make_outcomes(probabilities=False))
    auc = estimate(found, "auc")
    assert all(math.isnan(value) for value in (auc.mean, auc.low, auc.high, auc.margin, auc.sd, auc.standard_error))
    (difference,) = differences({"a": found, "b": found}, [("a", "b")], metric="auc")
    assert math.isnan(difference.p)
    assert math.isnan(difference.p_single)
    assert math.isnan(difference.difference)


def test_a_class_that_no_case_has():
    found = resample(make_outcomes(labels=[0, 1] * 30))
    assert math.isnan(estimate(found, "sensitivity_metastasis").mean)
    assert estimate(found, "specificity_metastasis").mean > 0
    both = [estimate(found, f"sensitivity_{name}").mean for name in CLASSES[:2]]
    assert estimate(found, "balanced_accuracy").mean == pytest.approx(sum(both) / 2)


def test_a_class_that_one_case_has():
    """A third of the resamples lack it: the interval is over the others. Two cases in the class, and one of a group."""
    found = resample(make_outcomes(labels=[0, 1] * 30 + [2]))
    share = np.isnan(found.draws[:, :, found.metrics.index("sensitivity_metastasis")]).any(axis=1).mean()
    assert share == pytest.approx(math.exp(-1), abs=0.04)
    assert not math.isnan(estimate(found, "sensitivity_metastasis").margin)
    assert not math.isnan(estimate(found, "macro_f1").margin)


def test_cases_of_one_group_say_nothing_about_others():
    found = resample(make_outcomes(group_size=60))
    estimated = estimate(found, "accuracy")
    assert 0 < estimated.mean < 1
    assert math.isnan(estimated.margin)
    (difference,) = differences({"a": found, "b": found}, [("a", "b")])
    assert math.isnan(difference.p)


def test_an_interval_stays_within_0_and_1():
    estimated = estimate(resample(make_outcomes(20, gain=3)), "accuracy")
    assert estimated.mean + estimated.margin > 1
    assert estimated.high == 1
    assert estimated.low == pytest.approx(estimated.mean - estimated.margin)


def test_the_interval_of_a_difference_stays_within_what_scores_can_differ_by():
    labels = np.arange(12) % 3
    right, wrong = labels, (labels + 1) % 3
    arms = {
        name: resample(
            Outcomes(
                classes=CLASSES, labels=labels, groups=np.arange(12), seeds=(0, 1), predictions=np.array(predictions)
            )
        )
        for name, predictions in (("steady", [right, right]), ("wild", [right, wrong]))
    }
    (found,) = differences(arms, [("wild", "steady")])
    # Two seeds, one of them at the bottom: the margin of Student's t alone is 6 times as wide as the scale.
    assert found.difference == pytest.approx(-0.5)
    assert (found.low, found.high) == (-1, 1)
    assert found.detectable > 1


# Holm


@given(st.lists(st.floats(0, 1), min_size=0, max_size=6))
def test_holm_as_closed_testing(p_values):
    """A hypothesis is rejected if Bonferroni rejects each set of hypotheses that it is in: the same, the slow way."""
    numbers = range(len(p_values))
    for number, corrected in zip(numbers, holm(p_values), strict=True):
        sets = [each for size in numbers for each in itertools.combinations(numbers, size + 1) if number in each]
        slow = max(min(1, len(each) * min(p_values[other] for other in each)) for each in sets)
        assert corrected == pytest.approx(slow)


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8))
def test_what_is_not_known_does_not_count_in_holm(p_values):
    known = [value for value in p_values if not math.isnan(value)]
    found = holm(p_values)
    assert [value for value in found if not math.isnan(value)] == list(holm(known))
    assert [math.isnan(value) for value in found] == [math.isnan(value) for value in p_values]


# Promises, kept


def simulate(count, *, gains=(1.5, 1.5), arm_case=0.5, arm_seed=0.1, group_size=1, cases=150, seeds=5):
    """Many small comparisons of two arms. Cases are hard or easy for both, and (``arm_case``) for one of them; a seed
    has a bias of its own (``arm_seed``); a group shares both."""
    rng = np.random.default_rng(20240531)
    labels = np.arange(cases) % 3
    groups = rng.permutation(cases) // group_size
    differing, means = [], []
    for number in range(count):
        case = rng.normal(size=(groups.max() + 1, 3))[groups]
        arms = {}
        for name, gain in zip("ab", gains, strict=True):
            logits = (
                gain * np.eye(3)[labels] * (1 + arm_seed * rng.normal(size=(seeds, 1, 1)))
                + case
                + arm_case * rng.normal(size=(groups.max() + 1, 3))[groups]
                + arm_seed * rng.normal(size=(seeds, 1, 3))
                + rng.normal(size=(seeds, cases, 3))
            )
            outcomes = Outcomes(
                classes=CLASSES,
                labels=labels,
                groups=groups,
                seeds=tuple(range(seeds)),
                predictions=logits.argmax(axis=2),
            )
            arms[name] = resample(outcomes, draws=300, seed=number)
        differing += differences(arms, [("b", "a")])
        means.append(estimate(arms["a"], "macro_f1"))
    return differing, means


@pytest.mark.parametrize(
    "chance",
    [
        {"arm_case": 0, "arm_seed": 0},  # nothing but single runs on single cases
        {"arm_case": 1, "arm_seed": 0},  # mostly the test cases
        {"arm_case": 0, "arm_seed": 0.3},  # mostly the seeds
        {"arm_case": 1, "arm_seed": 0.15, "group_size": 3},
    ],
)
def test_equal_arms_differ_in_at_most_5_per_cent_of_comparisons(chance):
    found, means = simulate(300, **chance)
    # Of 300, binomial: 5 % has a standard deviation of 1.3 %. Less where the seeds are alike: their variance is then
    # taken to be what it must at least be about half of the time, and more the other half.
    assert 0.005 <= np.mean([one.p_single < 0.05 for one in found]) <= 0.085
    truth = np.mean([one.mean for one in means])
    assert np.mean([one.low <= truth <= one.high for one in means]) >= 0.915
    spread = np.std([one.difference for one in found])
    assert 0.87 <= math.sqrt(np.mean([one.standard_error**2 for one in found])) / spread <= 1.22


def test_a_difference_of_the_size_promised_is_found_as_often_as_promised():
    """The true difference is as large as what the comparisons call detectable, on average."""
    found, _ = simulate(300, gains=(1.5, 2.03), seeds=8, arm_case=0.7)
    truth = np.mean([one.difference for one in found])
    assert truth == pytest.approx(np.mean([one.detectable for one in found]), rel=0.1)
    assert 0.7 <= np.mean([one.p_single < 0.05 for one in found]) <= 0.9
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.915


# Bad input


def test_what_cannot_be_compared():
    arms = {
        "a": resample(make_outcomes(), draws=100),
        "other cases": resample(make_outcomes(labels=[0] * 60), draws=100),
        "other groups": resample(make_outcomes(group_size=2), draws=100),
        "other draws": resample(make_outcomes(), draws=200),
        "other seed": resample(make_outcomes(), draws=100, seed=1),
        "other runs": resample(make_outcomes(seeds=6).of_seeds([4, 5]), draws=100),
    }
    for name, message in {
        "nobody": "no arm 'nobody' to compare; there are a, other cases",
        "other cases": "tested on other cases: their labels differ",
        "other groups": "their groups differ",
        "other draws": "other seeds or draws: they are not paired",
        "other seed": "other seeds or draws",
        "other runs": "have no seed in common",
    }.items():
        with pytest.raises(InputError, match=message):
            differences(arms, [("a", name)])
    with pytest.raises(InputError, match="no score 'f1'; there are accuracy, macro_f1"):
        estimate(arms["a"], "f1")


def test_too_few_draws():
    with pytest.raises(InputError, match="at least 100 draws, got 99"):
        resample(make_outcomes(), draws=99)


# Several labels an image


@pytest.mark.parametrize("probabilities", [True, False])
def test_several_labels_as_torchmetrics(probabilities):
    """Of all cases, and of a resample of whole groups."""
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < [0.5, 0.2, 0.4]).astype(np.int64)
    known = (0.3 * labels + 0.7 * rng.random((2, 40, 3))).round(2)
    outcomes = Outcomes(
        classes=CLASSES,
        labels=labels,
        groups=np.arange(40) // 2,
        seeds=(0, 1),
        predictions=(known > 0.5).astype(np.int64),
        probabilities=known if probabilities else None,
    )
    found = resample(outcomes, draws=100)
    assert found.metrics == metric_names(CLASSES, several=True)
    for row in range(2):
        scores = score_several(
            torch.tensor(outcomes.predictions[row]),
            torch.tensor(labels),
            probabilities=torch.tensor(known[row]) if probabilities else None,
        ).by_name(CLASSES)
        np.testing.assert_allclose(found.observed[row], [scores[name] for name in found.metrics], atol=1e-6)
    one = estimate(found, "auc_cyst")
    assert np.isnan(one.mean) != probabilities
    assert estimate(found, "macro_f1").margin > 0


def test_outcomes_of_several_labels_that_do_not_fit():
    good = {"classes": CLASSES, "labels": np.zeros((4, 3), int), "groups": np.arange(4), "seeds": (0,)}
    with pytest.raises(InputError, match=r"predictions must be of shape \(1, 4, 3\), got \(1, 4\)"):
        Outcomes(**good, predictions=np.zeros((1, 4), int))
    with pytest.raises(InputError, match="predictions run from 0 to 2"):
        Outcomes(**good, predictions=np.full((1, 4, 3), 2) * np.eye(3, dtype=int)[[0, 1, 2, 0]])
