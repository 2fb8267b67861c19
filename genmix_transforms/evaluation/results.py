"""The results of a comparison: the scores of its arms, their uncertainty, and their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation import tables
from genmix_transforms.evaluation.arm_names import ArmName
from genmix_transforms.evaluation.metrics import plain_data
from genmix_transforms.evaluation.outcomes import Outcomes, pooled
from genmix_transforms.evaluation.runs import Prediction, Run, as_prediction, readable_json
from genmix_transforms.evaluation.statistics import (
    OVERALL,
    Difference,
    Estimate,
    Resampled,
    differences,
    estimate,
    metric_names,
    resample,
)
from genmix_transforms.files.atomic import write_text
from genmix_transforms.files.strict_json import parse_json

_BASELINE = "baseline"


@dataclass(frozen=True, kw_only=True)
class Results:
    """What :func:`genmix_transforms.evaluation.evaluate` returns.

    Args:
        classes: the class names.
        runs: one for each arm, fold and seed.
        labels: the labels of the test cases of each fold; with several per case, a row of 0 and 1 with a column per
            class.
        groups: the groups of the test cases of each fold; a number means the same group in all folds, and cases of one
            group are not independent. Empty: every case is its own group. Groups are renumbered, so the source's names
            of patients are not stored.
        protocol: the options of the comparison.
        data: the data of the comparison: counts and fingerprints, no paths.
        bank: the origin of the synthetic images; None: no arm used any, or see ``banks``.
        banks: the origin of each bank, by the name that the arms use.
        missing: arms that could not be run, with the reason, a clause without a period. They are empty in the table.
        recipe: the choice on validation data, see :class:`genmix_transforms.evaluation.ChosenRecipe`, and its ``row``
            of the table; None: no choice was made.
        order: the names of all arms in the order of the table; empty: in the order of the runs, with missing arms last.
        warnings: what readers of the numbers need to know.
        versions: the versions of the libraries, and the kind of device.

    Raises:
        InputError: runs that do not match the test cases, or missing runs.

    Example:
        >>> from genmix_transforms.evaluation.metrics import Scores
        >>> scores = Scores(accuracy=0.5, macro_f1=0.5, balanced_accuracy=0.5, sensitivity=(0.5, 0.5),
        ...                 specificity=(0.5, 0.5), confusion=((50, 50), (50, 50)))
        >>> run = Run(arm="baseline", seed=0, steps=1, best_step=1, validation_macro_f1=0.5, scores=scores,
        ...           predictions=(0, 1, 0, 1) * 50, seconds=1.0)
        >>> results = Results(classes=("cyst", "metastasis"), runs=(run,), labels=((0, 0, 1, 1) * 50,))
        >>> results.summary()["baseline"]["accuracy"].mean
        0.5
        >>> print("\\n".join(results.table().splitlines()[:3]))
                                                                cyst  metastasis
        arm              Acc          F1     Bal Acc  AUC  sens/spec   sens/spec
        baseline  50.0 ± 7.0  50.0 ± 6.9  50.0 ± 6.9    -  50.0/50.0   50.0/50.0
    """

    classes: tuple[str, ...]
    runs: tuple[Run, ...]
    labels: tuple[tuple[Prediction, ...], ...]
    groups: tuple[tuple[int, ...], ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    bank: Mapping[str, Any] | None = None
    banks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    order: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers: dict[int, int] = {}
        groups = tuple(tuple(numbers.setdefault(group, len(numbers)) for group in fold) for fold in self.groups)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "labels", _label_folds(self.labels))
        # Before the first number is asked for: what cannot be pooled is no result.
        found = list(self.outcomes)
        both = [arm for arm in found if arm in self.missing]
        if both:
            raise InputError(f"{', '.join(both)}: an arm is missing or has runs, not both")
        arms = [*found, *self.missing]
        if self.order and sorted(self.order) != sorted(arms):
            raise InputError(f"order must name every arm once, {', '.join(arms)}, got {', '.join(self.order)}")
        object.__setattr__(self, "order", tuple(self.order) or tuple(arms))

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms that have runs, in the order of the table."""
        return tuple(arm for arm in self.order if arm not in self.missing)

    @property
    def are_several(self) -> bool:
        """Whether an image has several labels: each class is then a question of its own, and has an AUC of its own."""
        return any(isinstance(label, tuple) for fold in self.labels for label in fold[:1])

    @cached_property
    def outcomes(self) -> dict[str, Outcomes]:
        """What each arm's classifiers made of every test case, the folds pooled."""
        return pooled(self.runs, labels=self.labels, groups=self.groups, classes=self.classes)

    @cached_property
    def resampled(self) -> dict[str, Resampled]:
        """The scores of each arm on resamples of the test cases, the same for all: what intervals are made from."""
        return {arm: resample(self.outcomes[arm]) for arm in self.arms}

    def summary(self) -> dict[str, dict[str, Estimate]]:
        """Mean over the seeds, with interval and deviation: ``{arm: {score: Estimate}}``.

        The scores have the names of :meth:`genmix_transforms.evaluation.metrics.Scores.by_name`. With several folds, a
        seed's score is that of its predictions for all folds together.
        """
        return self._summary

    @cached_property
    def _summary(self) -> dict[str, dict[str, Estimate]]:
        names = metric_names(self.classes, several=self.are_several)
        return {arm: {name: estimate(found, name) for name in names} for arm, found in self.resampled.items()}

    def differences(self, metric: str = "macro_f1") -> dict[str, tuple[Difference, ...]]:
        """Differences in one score, by family; p-values are corrected within each family.

        Args:
            metric: the score. Choose one before you look at the results; the package's tables use the macro F1.

        Returns:
            ``"baseline"``: every other arm minus the baseline; ``"blend"``: every GenMix arm minus the arm that blends
            in the same bank ("genmix-real", whose bank is the real images, minus "repeat"). A family without a
            difference is left out.
        """
        pairs = {
            "baseline": [(arm, _BASELINE) for arm in self.arms if arm != _BASELINE and _BASELINE in self.arms],
            "blend": [(arm, other) for arm in self.arms if (other := blended_arm(arm)) in self.arms],
        }
        return {family: differences(self.resampled, found, metric=metric) for family, found in pairs.items() if found}

    def against(self, reference: str, *, metric: str = "macro_f1") -> tuple[Difference, ...]:
        """Every other arm minus this one, as one family. Use it to compare with a control, such as "repeat".

        Raises:
            InputError: no such arm.
        """
        if reference not in self.arms:
            raise InputError(f"no arm {reference!r} to compare with; there are {', '.join(self.arms)}")
        return differences(self.resampled, [(arm, reference) for arm in self.arms if arm != reference], metric=metric)

    def knobs(self, arm: str) -> tuple[float, ...]:
        """The values that its tuned option has in its runs, each once, ascending; none: nothing was tuned."""
        return tuple(sorted({run.knob for run in self.runs if run.arm == arm and run.knob is not None}))

    def table(self) -> str:
        """The tables for the screen, 120 columns wide, with a line per arm and the differences below."""
        return tables.screen(self)

    def to_markdown(self) -> str:
        """The tables in Markdown, with the data, the banks and the protocol below."""
        return tables.markdown(self)

    def to_latex(self) -> str:
        """The tables in LaTeX, in the layout of the paper's Table 1; they need the package booktabs."""
        return tables.latex(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything in a form that JSON can store: fractions from 0 to 1, and null for undefined scores."""
        return {
            "data": dict(self.data),
            "bank": None if self.bank is None else dict(self.bank),
            "banks": {name: dict(bank) for name, bank in self.banks.items()},
            "protocol": dict(self.protocol),
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
            "classes": list(self.classes),
            "order": list(self.order),
            "missing": dict(self.missing),
            **({} if self.recipe is None else {"recipe": dict(self.recipe)}),
            "summary": plain_data(self.summary()),
            "differences": {metric: plain_data(self.differences(metric)) for metric in OVERALL},
            "labels": plain_data(self.labels),
            "groups": [list(fold) for fold in self.groups],
            "runs": [run.to_dict() for run in self.runs],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Results":
        """The inverse of :meth:`to_dict`; summary and differences are computed again from the runs."""
        return cls(
            classes=tuple(content["classes"]),
            runs=tuple(Run.from_dict(run) for run in content["runs"]),
            labels=_label_folds(content["labels"]),
            groups=_folds(content["groups"]),
            protocol=content["protocol"],
            data=content["data"],
            bank=content["bank"],
            banks=content["banks"],
            missing=content["missing"],
            recipe=content.get("recipe"),
            order=tuple(content["order"]),
            warnings=tuple(content["warnings"]),
            versions=content["versions"],
        )

    def save(self, folder: str | Path) -> None:
        """Write the results to files, each completely or not at all. None of them contains a path.

        ``results.json`` has everything; ``results.csv`` a line for each run; ``summary.csv`` a line for each arm and
        score; ``differences.csv`` a line for each difference; ``results.md`` and ``results.tex`` the tables.

        Args:
            folder: created if it does not exist; files with these names in it are replaced.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "results.csv": tables.runs_csv(self),
            "summary.csv": tables.summary_csv(self),
            "differences.csv": tables.differences_csv(self),
            "results.md": self.to_markdown(),
            "results.tex": self.to_latex(),
            "results.json": readable_json(self.to_dict()),
        }
        for name, text in texts.items():
            write_text(folder / name, text)

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Read what :meth:`save` wrote.

        Raises:
            MissingPathError: no ``results.json`` there.
            InputError: one that holds no results.
        """
        path = Path(folder) / "results.json"
        if not path.is_file():
            raise MissingPathError(f"{path}: no results there; give the folder that evaluate wrote them to (out)")
        try:
            return cls.from_dict(parse_json(path.read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: no results of this version ({error!r}); evaluate again") from error


def blended_arm(arm: str) -> str | None:
    """The arm that blends in the images which a GenMix arm draws its partners from; None for other arms.

    Options that say which images of the bank there are (``keep``, ``keep_by``) are the same in both; the others are
    GenMix's.

    Example:
        >>> blended_arm("genmix-union:dcgan"), blended_arm("genmix-real"), blended_arm("mixup")
        ('blend:dcgan', 'repeat', None)
        >>> blended_arm("genmix@pairing=same@keep=0.5")
        'blend@keep=0.5'
    """
    name = ArmName.parse(arm)
    if name.kind == "genmix-real":
        return "repeat"
    if name.kind != "genmix" and not name.kind.startswith("genmix-"):
        return None
    return str(replace(name.only("keep", "keep_by"), kind="blend"))


def _label_folds(content: Sequence[Sequence[Any]]) -> tuple[tuple[Prediction, ...], ...]:
    return tuple(tuple(map(as_prediction, fold)) for fold in content)


def _folds(content: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(value) for value in fold) for fold in content)
