"""The search for a recipe: which trainings there are, what is chosen, and what gain the choice may bring.

The best of many looks better than it is. So the validation cases are parted into two halves, and each half makes its
own choice among the candidates, by successive halving over the seeds (Jamieson and Talwalkar, AISTATS 2016): every
candidate is trained once, those that a half has reason to keep once more, and so on. What one half has chosen is then
trained with seeds that no choice has looked at, and scored on the cases of the *other* half, with the weights of the
step that the choosing half takes. Neither the luck of the cases nor that of the seeds by which an arm was chosen is in
its score. Both halves train together: a training is scored by each.

Nothing here trains: :func:`search` is given a function that does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.outcomes import Outcomes
from genmix_transforms.evaluation.statistics import Difference, differences, macro_f1, resample

BASELINE = "baseline"

FEWEST_FRESH, MOST_FRESH = 2, 10
"""Seeds that no choice has looked at: fewer say nothing of how much trainings differ, more say little more."""

_FRESH_SHARE = 3 / 8
"""Of the budget, for those seeds, at least."""

_FINALISTS = 3
"""The choice of each half, and the baseline."""

_SPLIT = 30
"""What the random stream is for: the first word of its seed."""

Job = tuple[str, int]
"""A training: the arm's name, and the number of its seed, from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cases:
    """The validation cases, in two halves.

    Args:
        classes: the class names.
        labels: int64 ``(cases,)``.
        groups: int64 ``(cases,)``; cases of one group are in the same half.
        second: bool ``(cases,)``: which are in the second half.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    second: NDArray[np.bool_]

    @classmethod
    def split(
        cls, labels: NDArray[np.int64], groups: NDArray[np.int64] | None, *, classes: Sequence[str], seed: int
    ) -> "Cases":
        """Part the cases into halves that have every class alike, as far as the groups let them.

        Args:
            labels: int64 ``(cases,)``.
            groups: likewise; None: every case is one of its own.
            classes: the class names.
            seed: of the parting.

        Raises:
            InputError: a class that cannot be in both halves: it has fewer than two images, or all are of one group.

        Example:
            >>> cases = Cases.split(np.array([0, 0, 1, 1]), None, classes=("cyst", "metastasis"), seed=0)
            >>> sorted(cases.labels[cases.second].tolist())
            [0, 1]
        """
        groups = np.arange(len(labels)) if groups is None else groups
        counts = np.bincount(labels, minlength=len(classes))
        second = np.zeros(len(labels), dtype=bool)
        held = np.zeros((2, len(classes)), dtype=np.int64)
        done: set[int] = set()
        rng = np.random.default_rng([_SPLIT, seed])
        # The rarest class first: it has the fewest ways to come out even.
        for label in np.argsort(counts, kind="stable").tolist():
            for group in rng.permutation(np.unique(groups[labels == label])).tolist():
                if group in done:
                    continue
                done.add(group)
                where = groups == group
                half = min((0, 1), key=lambda half: (held[half, label], held[half].sum()))
                second[where] = half == 1
                held[half] += np.bincount(labels[where], minlength=len(classes))
        for label, name in enumerate(classes):
            if counts[label] and not held[:, label].all():
                of_groups = len(np.unique(groups[labels == label]))
                raise InputError(
                    f"the validation part has too few images of {name!r} ({counts[label]}, of {of_groups} groups): a "
                    "recipe is chosen by one half of the validation images and judged by the other, so each class "
                    "needs 2 at least, of 2 groups (patients)"
                )
        return cls(classes=tuple(classes), labels=labels, groups=groups, second=second)

    def of_half(self, half: int) -> NDArray[np.bool_]:
        """Which cases are in the half, 0 or 1."""
        found: NDArray[np.bool_] = self.second == bool(half)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What one training says of the validation cases.

    Args:
        predictions: int64 ``(2, cases)``: of the weights that the first half of the cases takes, and of those that the
            second does; each of all cases.
    """

    predictions: NDArray[np.int64]

    @classmethod
    def of(cls, validations: Mapping[int, NDArray[np.int64]], cases: Cases) -> "Trial":
        """Let each half take the weights of its best step, the first of equals.

        Args:
            validations: the predictions for all cases, by the step.
            cases: in halves.
        """
        taken = []
        for half in (0, 1):
            where = cases.of_half(half)
            scores = [
                macro_f1(cases.labels[where], found[where], classes=len(cases.classes))
                for found in validations.values()
            ]
            taken.append(list(validations.values())[int(np.argmax(scores))])
        return cls(predictions=np.stack(taken))

    def score(self, cases: Cases, half: int) -> float:
        """The macro F1 of the weights that a half takes, on its own cases: what it chooses by."""
        where = cases.of_half(half)
        return macro_f1(cases.labels[where], self.predictions[half][where], classes=len(cases.classes))

    def crossed(self, cases: Cases, half: int) -> NDArray[np.int64]:
        """The predictions of the weights that a half takes, for the other half's cases."""
        found: NDArray[np.int64] = self.predictions[half][cases.of_half(1 - half)]
        return found


Train = Callable[[Sequence[Job]], Mapping[Job, Trial]]
"""Trains, or knows already; any order will do."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the search saw of one arm.

    Args:
        arm: its name.
        seeds: how many trainings of the search it had.
        macro_f1: their mean, each half scored with its own weights: too good by the choice of the step.
        gain: of the same, the mean difference from the default with the same seeds. The best of many such is too good.
    """

    arm: str
    seeds: int
    macro_f1: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search ends with.

    Args:
        arm: the choice; the default where nothing is better beyond chance.
        halves: what each half of the cases chose.
        gain: of the choice over the default in macro F1, with its 95 % interval; None: both halves chose the default.
        candidates: what the search saw of each, the default first.
        trainings: that it took.
    """

    arm: str
    halves: tuple[str, str]
    gain: Difference | None
    candidates: tuple[Candidate, ...]
    trainings: int


def plan_rounds(candidates: int, *, budget: int, besides: int = 0) -> tuple[int, ...]:
    """How many candidates each half of the cases has in each round of the search, one seed a round.

    The first round has all, and every further one at most half of the last, as far as the budget goes if the halves
    never agree. Three eighths of the budget at least are kept for fresh seeds.

    Args:
        candidates: without the default, which is in every round.
        budget: trainings in all.
        besides: trainings that are none of an arm's.

    Raises:
        InputError: a budget that is too small for one round and two fresh seeds.

    Example:
        >>> plan_rounds(11, budget=32, besides=1), plan_rounds(4, budget=32)
        ((11, 3), (4, 2, 1))
    """
    first = candidates + 1 + besides
    least = first + FEWEST_FRESH * _FINALISTS
    if budget < least:
        raise InputError(
            f"a budget of {budget} trainings is too small to choose among {candidates} candidates: each of them and "
            f"the default is trained once{f', a filter asks for {besides} more,' * bool(besides)} and what is chosen "
            f"{FEWEST_FRESH} times with other seeds; give {least} at least (--budget {least}), or fewer candidates"
        )
    left = budget - max(FEWEST_FRESH * _FINALISTS, int(budget * _FRESH_SHARE)) - first
    rounds = [candidates]
    while rounds[-1] > 1 and (kept := min(ceil(rounds[-1] / 2), (left - 1) // 2)) > 0:
        rounds.append(kept)
        left -= 2 * kept + 1
    return tuple(rounds)


def search(
    candidates: Sequence[str],
    cases: Cases,
    *,
    train: Train,
    budget: int,
    chance: float,
    besides: int = 0,
    default: str = BASELINE,
) -> Found:
    """Choose among arms, and say what the choice is worth.

    The default is chosen unless the gain is positive and its one-sided p value below ``chance``. Where the halves
    differ, the gain is the mean of what their choices bring, and the arm is that of the two which did better with the
    fresh seeds.

    Args:
        candidates: names of arms, without the default; of equals, an earlier one is chosen.
        cases: of the validation part.
        train: trains what it is asked for.
        budget: see :func:`plan_rounds`.
        chance: the probability, at most, that something is chosen where all candidates equal the default.
        besides: see :func:`plan_rounds`.
        default: the arm that a candidate must beat.

    Raises:
        InputError: see :func:`plan_rounds`.
    """
    arms = (default, *candidates)
    rounds = plan_rounds(len(candidates), budget=budget, besides=besides)
    trials: dict[Job, Trial] = {}
    scores: dict[Job, tuple[float, float]] = {}
    racing = [list(arms), list(arms)]

    def standing(arm: str, half: int, seeds: int) -> float:
        return float(np.mean([scores[arm, seed][half] for seed in range(seeds)]))

    def best(half: int, among: Sequence[str], seeds: int, count: int) -> list[str]:
        order = sorted(among, key=lambda arm: (-standing(arm, half, seeds), arms.index(arm)))
        return order[:count]

    for seed, kept in enumerate(rounds):
        if seed:
            for half in (0, 1):
                others = [arm for arm in racing[half] if arm != default]
                racing[half] = [default, *best(half, others, seed, kept)]
        trained = train([(arm, seed) for arm in arms if arm in (*racing[0], *racing[1])])
        trials |= trained
        scores |= {job: (trial.score(cases, 0), trial.score(cases, 1)) for job, trial in trained.items()}
    one, other = (best(half, racing[half], len(rounds), 1)[0] for half in (0, 1))
    halves = (one, other)
    seen = tuple(_candidate(arm, scores, default) for arm in arms)
    if halves == (default, default):
        return Found(arm=default, halves=halves, gain=None, candidates=seen, trainings=len(trials) + besides)
    finalists = [arm for arm in arms if arm in (default, *halves)]
    fresh = min(MOST_FRESH, (budget - besides - len(trials)) // len(finalists))
    seeds = range(len(rounds), len(rounds) + fresh)
    trials |= train([(arm, seed) for seed in seeds for arm in finalists])

    def scored(half_arms: tuple[str, str]) -> Outcomes:
        """Each half's arm on the other half's cases."""
        predictions = np.empty((len(seeds), len(cases.labels)), dtype=np.int64)
        for row, seed in enumerate(seeds):
            for half, arm in enumerate(half_arms):
                predictions[row, cases.of_half(1 - half)] = trials[arm, seed].crossed(cases, half)
        return Outcomes(
            classes=cases.classes,
            labels=cases.labels,
            groups=cases.groups,
            seeds=tuple(seeds),
            predictions=predictions,
        )

    outcomes = {"choice": scored(halves), "default": scored((default, default))}
    (gain,) = differences({name: resample(found) for name, found in outcomes.items()}, [("choice", "default")])
    arm = default
    if gain.difference > 0 and gain.p_single < 2 * chance:
        arm = min(set(halves), key=lambda one: (-_mean_score(scored((one, one))), arms.index(one)))
    return Found(arm=arm, halves=halves, gain=gain, candidates=seen, trainings=len(trials) + besides)


def _candidate(arm: str, scores: Mapping[Job, tuple[float, float]], default: str) -> Candidate:
    seeds = sorted(seed for name, seed in scores if name == arm)
    own, reference = (np.array([scores[name, seed] for seed in seeds]) for name in (arm, default))
    return Candidate(arm=arm, seeds=len(seeds), macro_f1=float(own.mean()), gain=float((own - reference).mean()))


def _mean_score(outcomes: Outcomes) -> float:
    return float(
        np.mean([macro_f1(outcomes.labels, row, classes=len(outcomes.classes)) for row in outcomes.predictions])
    )
