"""How sure the numbers of a comparison are: intervals, paired differences, and what could have been detected.

Two things make a score what it is by chance: which cases are in the test set, and the seeds of the training. A seed
plays the part that a reader plays in a reader study of radiology, and the variance of a mean over seeds, on cases that
all of them share, is estimated as there (Obuchowski and Rockette 1995; Hillis 2007):

    variance = max(s^2, v - c) / S + c

where s^2 is the variance of the S seeds' scores, v the variance of one seed's score over resamples of the test cases,
and c the covariance of two seeds' over the same resamples, 0 where negative. The first part holds the chance of the
training, and of single runs on single cases; the second what all seeds owe to the same cases. Resampling seeds and
cases at once would count the chance of a single run on a single case three times (Owen 2007), and with five seeds that
part is often the largest.

The chance of single runs on single cases alone makes seeds vary by v - c, which hundreds of cases tell well. Where five
seeds happen to agree better than that, it is luck: taken at its word, it would call any difference certain.

The bootstrap of this file therefore draws both, one beside the other, and gives each its right size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.outcomes import Outcomes

DRAWS = 2_000
"""Resamples of a bootstrap."""

OVERALL = ("accuracy", "macro_f1", "balanced_accuracy", "auc")
"""The scores over all classes."""

_LEVEL, _POWER = 0.95, 0.8
_CHUNK = 1 << 17
"""Weights held at once: what a processor's cache has room for."""

# Streams of random numbers.
_CASES, _SEEDS = range(2)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score of one arm: the mean over its seeds, as a fraction.

    Args:
        mean: over the seeds; NaN where the score has no meaning on this test set.
        margin: half the width of the 95 % interval, over seeds and test cases; NaN where it cannot be known.
        low: ``mean - margin``, not below 0.
        high: ``mean + margin``, not above 1.
        sd: sample standard deviation of the seeds' scores (n - 1); NaN for one seed.
        standard_error: of the mean, over seeds and test cases.
        seeds: how many; with one, the interval is over the test cases alone.
    """

    mean: float
    margin: float
    low: float
    high: float
    sd: float
    standard_error: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A score of one arm less that of another, on the same seeds and test cases; fractions.

    Args:
        arm: its name.
        reference: the other arm's name.
        metric: the score.
        difference: mean over the seeds that both have.
        low: lower end of the 95 % interval, over seeds and test cases; at least -1.
        high: upper end; at most 1.
        standard_error: of the difference.
        p: two-sided, corrected for the family of differences that it was made with (Holm).
        p_single: two-sided, of this difference alone.
        detectable: the smallest true difference that would be found (``p_single`` below 0.05) with a probability of
            80 %; NaN where the two arms never differ.
        seeds: how many.
    """

    arm: str
    reference: str
    metric: str
    difference: float
    low: float
    high: float
    standard_error: float
    p: float
    p_single: float
    detectable: float
    seeds: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """An arm's scores, and what they are on resampled test cases.

    Args:
        outcomes: they are of.
        metrics: names of the M scores, as :meth:`genmix_transforms.evaluation.metrics.Scores.by_name` has them.
        observed: ``(S, M)``, of each seed.
        draws: ``(B, S, M)``, of each seed on each resample, the same cases for all seeds.
        seed: of the resamples.
    """

    outcomes: Outcomes
    metrics: tuple[str, ...]
    observed: Array
    draws: Array
    seed: int


def metric_names(classes: Sequence[str], *, several: bool = False) -> tuple[str, ...]:
    """The scores' names: those over all classes, then sensitivity and specificity of each class.

    Args:
        classes: the class names.
        several: whether an image has several labels: then the AUC of each class, last.
    """
    by_class = (f"{kind}_{name}" for name in classes for kind in ("sensitivity", "specificity"))
    return (*OVERALL, *by_class, *(f"auc_{name}" for name in classes if several))


def macro_f1(labels: NDArray[np.int64], predictions: NDArray[np.int64], *, classes: int) -> float:
    """The macro F1 of predictions ``(cases,)``, as :class:`genmix_transforms.evaluation.metrics.Scores` has it.

    Example:
        >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), classes=2)
        1.0
    """
    confusion = np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
    return float(_scores(confusion.astype(np.float64))[0][1])


def resample(outcomes: Outcomes, *, draws: int = DRAWS, seed: int = 0) -> Resampled:
    """Score an arm on its test cases, and on resamples of them.

    A resample draws whole groups with replacement, as many as there are. Arms that have the same cases get the same
    resamples from the same seed: their scores on them are paired.

    Args:
        outcomes: of the arm.
        draws: B, how many resamples.
        seed: of the draws.

    Raises:
        InputError: fewer than 100 draws.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8, for drawing groups.
    """
    if draws < 100:
        raise InputError(f"a bootstrap needs at least 100 draws, got {draws}")
    numbers, group_of = np.unique(outcomes.groups, return_inverse=True)
    groups, seeds, classes = len(numbers), len(outcomes.seeds), len(outcomes.classes)
    # The confusion of a resample is linear in how often each group was drawn: a product of matrices.
    several = outcomes.are_several
    shape: tuple[int, ...]
    if several:  # a confusion of two by two for each class
        shape = (classes, 2, 2)
        place = (np.arange(seeds)[:, None, None] * classes + np.arange(classes)) * 2 + outcomes.labels
        cells, of_cell = place * 2 + outcomes.predictions, group_of[:, None]
    else:
        shape = (classes, classes)
        cells = (np.arange(seeds)[:, None] * classes + outcomes.labels) * classes + outcomes.predictions
        of_cell = group_of
    size = seeds * int(np.prod(shape))
    counts = np.bincount((of_cell * size + cells).ravel(), minlength=groups * size).reshape(groups, -1)
    roc = _RankedCases(outcomes) if outcomes.probabilities is not None else None

    def scores(weights: Array) -> Array:
        confusion = (weights @ counts).reshape(len(weights), seeds, *shape)
        overall, by_class = (_scores_of_several if several else _scores)(confusion)
        auc = np.full((len(weights), seeds, classes), np.nan)
        if roc is not None:
            auc = roc.auc_by_class(weights.T.astype(np.float32)[group_of])
        return np.concatenate([overall, _mean(auc)[..., None], by_class, *([auc] if several else [])], axis=2)

    return Resampled(
        outcomes=outcomes,
        metrics=metric_names(outcomes.classes, several=several),
        observed=scores(np.ones((1, groups)))[0],
        draws=np.concatenate([scores(weights) for weights in _weights(groups, len(group_of), draws, seed)]),
        seed=seed,
    )


def estimate(resampled: Resampled, metric: str) -> Estimate:
    """The mean of a score over the seeds, with its 95 % interval.

    Example:
        >>> outcomes = Outcomes(classes=("cyst", "metastasis"), labels=np.arange(100) % 2, groups=np.arange(100),
        ...                     seeds=(0, 1), predictions=np.arange(200).reshape(2, 100) % 20 // 10)
        >>> found = estimate(resample(outcomes), "accuracy")
        >>> found.mean, round(found.low, 1), round(found.high, 1)
        (0.5, 0.4, 0.6)
    """
    observed, draws = _of(resampled, metric)
    mean, errors, standard_error = _errors(observed, draws, resampled)
    margin = _margin(errors)
    return Estimate(
        mean=mean,
        margin=margin,
        low=float(np.maximum(mean - margin, 0)),
        high=float(np.minimum(mean + margin, 1)),
        sd=float(observed.std(ddof=1)) if len(observed) > 1 else np.nan,
        standard_error=standard_error,
        seeds=len(observed),
    )


def differences(
    arms: Mapping[str, Resampled], pairs: Sequence[tuple[str, str]], *, metric: str = "macro_f1"
) -> tuple[Difference, ...]:
    """Differences between arms, which together are one family: their p values are corrected for their number.

    The p value is ``(1 + n) / (1 + B)``: n of the B errors that the bootstrap draws, centered on 0, are as large as the
    difference or larger, whatever their sign. The interval is the difference plus and minus the margin that 95 % of the
    errors keep: it leaves 0 out where ``p_single`` is below 0.05. ``detectable`` is that margin plus the one-sided
    80 % quantile of the errors: 1.96 + 0.84 = 2.8 standard errors where they are normal, more with few seeds.

    Args:
        arms: of the same test cases, resampled with the same seed.
        pairs: (arm, reference), one for each difference.
        metric: the score.

    Raises:
        InputError: an arm that is not there, or arms that cannot be paired.

    Source: Hillis, Statistics in Medicine 26 (2007) 596, for the variance; Davison and Hinkley (1997), section 4.2, for
        p; Holm, Scandinavian Journal of Statistics 6 (1979) 65; Bloom, Evaluation Review 19 (1995) 547, for
        ``detectable``.
    """
    found = [_difference(arms, arm, reference, metric) for arm, reference in pairs]
    corrected = holm([one.p_single for one in found])
    return tuple(replace(one, p=p) for one, p in zip(found, corrected, strict=True))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for their number: below 0.05 for any of the true null hypotheses in at most 5 % of families.

    The smallest is multiplied by their number m, the next by m - 1, and so on; none gets smaller than one before it.
    NaN stays NaN and does not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
        (1979) 65.

    Example:
        >>> holm([0.01, 0.5, 0.02])
        (0.03, 0.5, 0.04)
    """
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]  # NaN is sorted to the end
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1)
    return tuple(corrected.tolist())


def _difference(arms: Mapping[str, Resampled], arm: str, reference: str, metric: str) -> Difference:
    for name in (arm, reference):
        if name not in arms:
            raise InputError(f"no arm {name!r} to compare; there are {', '.join(arms)}")
    one, other = arms[arm], arms[reference]
    for what in ("labels", "groups"):
        if not np.array_equal(getattr(one.outcomes, what), getattr(other.outcomes, what)):
            raise InputError(f"{arm} and {reference} were tested on other cases: their {what} differ")
    if (one.seed, len(one.draws)) != (other.seed, len(other.draws)):
        raise InputError(f"{arm} and {reference} were resampled with other seeds or draws: they are not paired")
    shared = [seed for seed in one.outcomes.seeds if seed in other.outcomes.seeds]
    if not shared:
        raise InputError(f"{arm} and {reference} have no seed in common")
    rows = [[each.outcomes.seeds.index(seed) for seed in shared] for each in (one, other)]
    (seen, drawn), (other_seen, other_drawn) = (_of(each, metric) for each in (one, other))
    observed = seen[rows[0]] - other_seen[rows[1]]
    mean, errors, standard_error = _errors(observed, drawn[:, rows[0]] - other_drawn[:, rows[1]], one)
    margin = _margin(errors)
    sizes = np.abs(errors)
    # Rounding must not tell apart what is equal.
    p = (1 + int((sizes >= abs(mean) - 1e-12).sum())) / (1 + len(sizes)) if len(sizes) else np.nan
    return Difference(
        arm=arm,
        reference=reference,
        metric=metric,
        difference=mean,
        # Few seeds that differ widely say less than the scores' own bounds do.
        low=float(np.maximum(mean - margin, -1)),
        high=float(np.minimum(mean + margin, 1)),
        standard_error=standard_error,
        p=p,
        p_single=p,
        # The errors are taken as symmetric: 80 % of them on one side are 60 % of their sizes.
        detectable=margin + float(np.quantile(sizes, 2 * _POWER - 1)) if standard_error > 0 else np.nan,
        seeds=len(shared),
    )


def _errors(observed: Array, draws: Array, resampled: Resampled) -> tuple[float, Array, float]:
    """How far the mean over seeds may be off.

    Args:
        observed: ``(S,)``, of each seed.
        draws: ``(B, S)``, on the resamples.
        resampled: where they are from.

    Returns:
        The mean over the seeds; draws of its error, centered on 0; its standard error. No draws, and NaN, where all
        cases are of one group, or most resamples lack what the score needs.
    """
    seeds, mean = len(observed), float(observed.mean())
    # A resample may lack a class, and a score then has no meaning on it.
    known = draws[~np.isnan(draws).any(axis=1)]
    groups = len(np.unique(resampled.outcomes.groups))
    if np.isnan(mean) or 2 * len(known) < len(draws) or groups < 2:
        return mean, np.empty(0), np.nan
    centred = known - known.mean(axis=0)
    shared = centred.mean(axis=1)
    few_groups = groups / (groups - 1)  # the bootstrap's variance has n where an estimate has n - 1
    of_mean = float(shared.var())
    if seeds == 1:
        return mean, shared * np.sqrt(few_groups), float(np.sqrt(of_mean * few_groups))
    # The variance of the mean over seeds is (sum of the seeds' variances + sum of all covariances) / S^2.
    covariance = max((seeds**2 * of_mean - float(centred.var(axis=0).sum())) / (seeds * (seeds - 1)), 0) * few_groups
    cases = shared * np.sqrt(covariance / of_mean) if of_mean > 0 else shared
    between = float(observed.var(ddof=1))
    least = float(centred.var(axis=0).mean()) * few_groups - covariance
    rng = np.random.default_rng([resampled.seed, _SEEDS])
    if between < least:
        runs = rng.standard_normal(len(known)) * np.sqrt(least / seeds)
        return mean, cases + runs, float(np.sqrt(least / seeds + covariance))
    # The seeds, too, are resampled. Of so few the mean varies too little, by a known factor; and their variance is
    # itself uncertain: divided by a chi-square draw, the error has the long tails of Student's t.
    drawn = observed[rng.integers(seeds, size=(len(known), seeds))].mean(axis=1) - mean
    runs = drawn * np.sqrt(seeds / (seeds - 1)) * np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=len(known)))
    return mean, cases + runs, float(np.sqrt(between / seeds + covariance))


def _margin(errors: Array) -> float:
    return float(np.quantile(np.abs(errors), _LEVEL)) if len(errors) else np.nan


def _of(resampled: Resampled, metric: str) -> tuple[Array, Array]:
    if metric not in resampled.metrics:
        raise InputError(f"no score {metric!r}; there are {', '.join(resampled.metrics)}")
    number = resampled.metrics.index(metric)
    return resampled.observed[:, number], resampled.draws[:, :, number]


def _weights(groups: int, cases: int, draws: int, seed: int) -> Iterator[Array]:
    """How often each group is drawn, ``(n, groups)``, in portions that fit into memory."""
    rng = np.random.default_rng([seed, _CASES])
    portion = max(1, min(draws, _CHUNK // cases))
    for start in range(0, draws, portion):
        count = min(portion, draws - start)
        drawn = rng.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)


def _scores(confusion: Array) -> tuple[Array, Array]:
    """Accuracy, macro F1 and balanced accuracy ``(..., 3)``, and sensitivity and specificity by class ``(..., 2 K)``.

    Of confusions ``(..., K, K)``, true class by predicted class. Defined as in
    :class:`genmix_transforms.evaluation.metrics.Scores`; NaN where a score has no meaning.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted, total = confusion.sum(axis=-1), confusion.sum(axis=-2), confusion.sum(axis=(-2, -1))[..., None]
    sensitivity = _ratio(hits, true)
    specificity = _ratio(total - true - predicted + hits, total - true)
    overall = [hits.sum(axis=-1) / total[..., 0], _mean(_ratio(2 * hits, true + predicted)), _mean(sensitivity)]
    by_class = np.stack([sensitivity, specificity], axis=-1)
    return np.stack(overall, axis=-1), by_class.reshape(*by_class.shape[:-2], -1)


def _scores_of_several(confusion: Array) -> tuple[Array, Array]:
    """As :func:`_scores`, of confusions ``(..., K, 2, 2)``: for each class, has it (row) by said to have it (column).

    Defined as in :func:`genmix_transforms.evaluation.metrics.score_several`.
    """
    hits, right_no = confusion[..., 1, 1], confusion[..., 0, 0]
    have, have_not = confusion[..., 1, :].sum(axis=-1), confusion[..., 0, :].sum(axis=-1)
    sensitivity, specificity = _ratio(hits, have), _ratio(right_no, have_not)
    overall = [
        (hits + right_no).sum(axis=-1) / confusion.sum(axis=(-3, -2, -1)),
        _mean(_ratio(2 * hits, have + confusion[..., :, 1].sum(axis=-1))),
        _mean((sensitivity + specificity) / 2),
    ]
    by_class = np.stack([sensitivity, specificity], axis=-1)
    return np.stack(overall, axis=-1), by_class.reshape(*by_class.shape[:-2], -1)


def _ratio(numerator: Array, denominator: Array) -> Array:
    ratio: Array = np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
    return ratio


def _mean(values: Array) -> Array:
    """Over the last axis, of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


class _RankedCases:
    """Cases in the order of their probabilities, once, so that the AUC of a resample is a matter of running sums."""

    def __init__(self, outcomes: Outcomes) -> None:
        assert outcomes.probabilities is not None
        self.seeds = len(outcomes.seeds)
        # For each seed and class: its cases, the others in rising order, and how many of these each of its cases
        # beats, and beats or equals.
        self.places = []
        for probabilities in outcomes.probabilities:
            for number in range(len(outcomes.classes)):
                values = probabilities[:, number]
                labels = outcomes.labels
                have = labels[:, number] == 1 if outcomes.are_several else labels == number
                own, others = np.flatnonzero(have), np.flatnonzero(~have)
                others = others[np.argsort(values[others], kind="stable")]
                beaten, reached = (
                    np.searchsorted(values[others], values[own], side=side) for side in ("left", "right")
                )
                self.places.append((own, others, beaten, reached))

    def auc_by_class(self, weights: NDArray[np.float32]) -> Array:
        """Of each class, ``(n, S, K)``, of resamples with those weights of the cases, ``(cases, n)``."""
        of_class = [self._of_class(weights, *places) for places in self.places]
        return np.stack(of_class, axis=1).reshape(weights.shape[1], self.seeds, -1)

    @staticmethod
    def _of_class(
        weights: NDArray[np.float32],
        own: NDArray[np.int64],
        others: NDArray[np.int64],
        beaten: NDArray[np.int64],
        reached: NDArray[np.int64],
    ) -> Array:
        """A case of the class beats another by a higher probability; a tie is half a win (Mann and Whitney)."""
        of_own = weights[own]
        below = np.zeros((len(others) + 1, weights.shape[1]), dtype=np.float32)
        np.cumsum(weights[others], axis=0, out=below[1:])
        wins = np.einsum("cn,cn->n", of_own, below[beaten] + below[reached]) / 2
        pairs = of_own.sum(axis=0, dtype=np.float64) * below[-1]
        return _ratio(wins.astype(np.float64), pairs)
