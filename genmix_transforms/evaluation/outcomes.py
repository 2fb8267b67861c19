"""What one arm said about every test case, over all folds: what all scores and tests are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.runs import Prediction, Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """The test cases of all folds, one after the other, and what one arm's classifiers made of them.

    Args:
        classes: the class names, K of them.
        labels: int64 ``(cases,)``; where a case has several, ``(cases, K)`` of 0 and 1.
        groups: int64 ``(cases,)``; cases of one group (a patient's, near-duplicates) are not independent of each other.
        seeds: S of them; with several folds, a seed stands for one classifier a fold.
        predictions: int64 ``(S, cases)``, or ``(S, cases, K)`` likewise.
        probabilities: float64 ``(S, cases, K)``; None: not known, and the AUC is NaN.

    Raises:
        InputError: shapes that do not fit together, or values that are no classes.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    seeds: tuple[int, ...]
    predictions: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        cases, seeds, classes = len(self.labels), len(self.seeds), len(self.classes)
        if not cases or not seeds:
            raise InputError(f"outcomes need a test case and a seed, got {cases} cases and {seeds} seeds")
        row = (classes,) if self.are_several else ()
        wanted = {"groups": (cases,), "predictions": (seeds, cases, *row), "probabilities": (seeds, cases, classes)}
        if self.labels.shape[1:] != row:
            raise InputError(
                f"outcomes: labels must be of shape ({cases},) or {(cases, classes)}, got {self.labels.shape}"
            )
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise InputError(f"outcomes: {name} must be of shape {shape}, got {array.shape}")
        for name in ("labels", "predictions"):
            low, high = int(getattr(self, name).min()), int(getattr(self, name).max())
            if low < 0 or high >= (2 if self.are_several else classes):
                raise InputError(f"outcomes: {name} run from {low} to {high}, but there are {classes} classes")

    @property
    def are_several(self) -> bool:
        """Whether a case has several labels."""
        return self.labels.ndim > 1

    def of_seeds(self, seeds: Sequence[int]) -> "Outcomes":
        """Those seeds only, in that order."""
        index = [self.seeds.index(seed) for seed in seeds]
        return Outcomes(
            classes=self.classes,
            labels=self.labels,
            groups=self.groups,
            seeds=tuple(seeds),
            predictions=self.predictions[index],
            probabilities=None if self.probabilities is None else self.probabilities[index],
        )


def pooled(
    runs: Sequence[Run],
    *,
    labels: Sequence[Sequence[Prediction]],
    classes: Sequence[str],
    groups: Sequence[Sequence[int]] = (),
) -> dict[str, Outcomes]:
    """The outcomes of each arm: for each seed, the predictions of all folds together.

    Scores of such a pool weigh every case once, whatever its fold; a mean of the folds' own scores would swing with the
    few images that a rare class has in one fold.

    Args:
        runs: of any arms; every seed of an arm with every fold.
        labels: of the test cases of each fold.
        classes: the class names.
        groups: likewise of each fold, a number meaning the same group in all of them; empty: every case is a group.

    Returns:
        By arm, in the order of the runs; seeds ascending. Probabilities where all runs of an arm have them.

    Raises:
        InputError: a run that is missing, there twice, or does not fit the test cases.

    Example:
        >>> from genmix_transforms.evaluation.metrics import Scores
        >>> scores = Scores(accuracy=1, macro_f1=1, balanced_accuracy=1, sensitivity=(1, 1), specificity=(1, 1),
        ...                 confusion=((1, 0), (0, 1)))
        >>> runs = [Run(arm="baseline", fold=fold, seed=0, steps=1, best_step=1, validation_macro_f1=1, scores=scores,
        ...             predictions=(fold, 1), seconds=1) for fold in (0, 1)]
        >>> pooled(runs, labels=[(0, 1), (1, 0)], classes=("cyst", "metastasis"))["baseline"].predictions
        array([[0, 1, 1, 1]])
    """
    if groups and [len(fold) for fold in groups] != [len(fold) for fold in labels]:
        raise InputError("every test case needs a group, or none has one")
    every_label = np.array([value for fold in labels for value in fold], dtype=np.int64)
    every_group = np.array([value for fold in groups for value in fold], dtype=np.int64)
    found: dict[str, dict[int, dict[int, Run]]] = {}
    for run in runs:
        folds = found.setdefault(run.arm, {}).setdefault(run.seed, {})
        if run.fold in folds:
            raise InputError(f"arm {run.arm!r}, seed {run.seed}, fold {run.fold} is there twice")
        if not 0 <= run.fold < len(labels):
            raise InputError(f"arm {run.arm!r}: a run of fold {run.fold}, but there are {len(labels)} folds of labels")
        if len(run.predictions) != len(labels[run.fold]):
            raise InputError(
                f"arm {run.arm!r}, seed {run.seed}, fold {run.fold}: {len(run.predictions)} predictions for "
                f"{len(labels[run.fold])} test cases"
            )
        folds[run.fold] = run
    outcomes = {}
    for arm, seeds in found.items():
        ordered = []
        for seed, folds in sorted(seeds.items()):
            missing = [str(fold) for fold in range(len(labels)) if fold not in folds]
            if missing:
                raise InputError(f"arm {arm!r}, seed {seed}: no run of fold {', '.join(missing)}")
            ordered.append([folds[fold] for fold in range(len(labels))])
        whole = all(run.probabilities for row in ordered for run in row)
        outcomes[arm] = Outcomes(
            classes=tuple(classes),
            labels=every_label,
            groups=every_group if groups else np.arange(len(every_label)),
            seeds=tuple(sorted(seeds)),
            predictions=np.array([[value for run in row for value in run.predictions] for row in ordered]),
            probabilities=np.array([[values for run in row for values in run.probabilities] for row in ordered])
            if whole
            else None,
        )
    return outcomes
