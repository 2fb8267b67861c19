"""The results of a comparison: as a table for the screen, as Markdown, CSV and JSON."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from genmix_transforms.evaluation.runs import Run
from genmix_transforms.files.atomic import write_json, write_text


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One score over the seeds, as fractions.

    Args:
        mean: of the seeds in which the score has a meaning; NaN if it has none in any.
        sd: sample standard deviation (n - 1); NaN below two seeds.
        seeds: how many those are.
    """

    mean: float
    sd: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value a seed.

        Example:
            >>> Spread.of([0.25, 0.75]).mean
            0.5
        """
        known = [value for value in values if not math.isnan(value)]
        nan = float("nan")
        return cls(mean=mean(known) if known else nan, sd=stdev(known) if len(known) > 1 else nan, seeds=len(known))

    def percent(self, joint: str = " ± ") -> str:
        """``72.3 ± 1.8``, in per cent; without the deviation for one seed, a dash where there is no score."""
        if math.isnan(self.mean):
            return "-"
        return f"{100 * self.mean:.1f}" + ("" if math.isnan(self.sd) else f"{joint}{100 * self.sd:.1f}")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What :func:`genmix_transforms.evaluation.evaluate` returns.

    Args:
        classes: the class names.
        runs: one for each arm and seed, by arm, then seed.
        protocol: the options of the comparison.
        data: what it was made on: counts and fingerprints, no paths.
        bank: where the synthetic images came from; None: no arm used any.
        warnings: what a reader of the numbers must know.
        versions: of the libraries, and the kind of device.

    Example:
        >>> from genmix_transforms.evaluation.metrics import Scores
        >>> scores = Scores(accuracy=0.5, macro_f1=0.5, balanced_accuracy=0.5, sensitivity=(0.5, 0.5),
        ...                 specificity=(0.5, 0.5), confusion=((1, 1), (1, 1)))
        >>> run = Run(arm="baseline", seed=0, steps=1, best_step=1, validation_macro_f1=0.5, scores=scores,
        ...           predictions=(0, 1, 0, 1), seconds=1.0)
        >>> print(Results(classes=("cyst", "metastasis"), runs=(run,)).table())
        arm        Acc    F1  Bal Acc  cyst sens/spec  metastasis sens/spec
        baseline  50.0  50.0     50.0       50.0/50.0             50.0/50.0
        <BLANKLINE>
        Per cent. 1 seed, 4 test images. F1: macro; Bal Acc: balanced accuracy.
    """

    classes: tuple[str, ...]
    runs: tuple[Run, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    bank: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms' names, in the order of the table."""
        return tuple(dict.fromkeys(run.arm for run in self.runs))

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Mean and standard deviation over the seeds: ``{arm: {score: Spread}}``, see :meth:`Scores.by_name`."""
        found = {}
        for arm in self.arms:
            seeds = [run.scores.by_name(self.classes) for run in self.runs if run.arm == arm]
            found[arm] = {name: Spread.of([scores[name] for scores in seeds]) for name in seeds[0]}
        return found

    def table(self) -> str:
        """The table for the screen: a line an arm, columns aligned, per cent, mean±sd over the seeds."""
        rows = self._rows(joint="±", divider="/")
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        ]
        return "\n".join([*lines, "", self._caption(), *(f"Note: {warning}." for warning in self.warnings)])

    def to_markdown(self) -> str:
        """The same table in Markdown, with the data, the bank and the protocol below it."""
        heading, *rows = [[_escape(cell) for cell in row] for row in self._rows(joint=" ± ", divider=" / ")]
        lines = [
            f"| {' | '.join(heading)} |",
            f"|{'|'.join(['---', *['---:'] * (len(heading) - 1)])}|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            self._caption(),
        ]
        if self.data:
            counts = "; ".join(
                f"{split} {', '.join(f'{name} {count}' for name, count in classes.items())}"
                for split, classes in self.data["counts"].items()
            )
            lines += ["", f"Data: {self.data['name']}, {' x '.join(map(str, self.data['shape']))}; {counts}."]
        if self.bank:
            counts = ", ".join(f"{name} {count}" for name, count in self.bank["counts"].items())
            lines += ["", f"Bank: {counts}; its generator was trained on: {self.bank['trained_on']}."]
        if self.protocol:
            lines += ["", f"Protocol: {', '.join(f'{name} {value}' for name, value in self.protocol.items())}."]
        if self.versions:
            lines += ["", f"Made with {', '.join(f'{name} {value}' for name, value in self.versions.items())}."]
        for warning in self.warnings:
            lines += ["", f"**Note:** {warning}."]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it: fractions from 0 to 1, null where a score has no meaning."""
        return {
            "data": dict(self.data),
            "bank": None if self.bank is None else dict(self.bank),
            "protocol": dict(self.protocol),
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
            "classes": list(self.classes),
            "summary": {
                arm: {
                    name: {"mean": _or_none(spread.mean), "sd": _or_none(spread.sd), "seeds": spread.seeds}
                    for name, spread in metrics.items()
                }
                for arm, metrics in self.summary().items()
            },
            "runs": [run.to_dict() for run in self.runs],
        }

    def save(self, folder: str | Path) -> None:
        """Write the results as files, each whole or not at all; none holds a path.

        ``results.json`` has everything, ``results.csv`` a line for each arm and seed, ``summary.csv`` a line for each
        arm and score, ``results.md`` the table.

        Args:
            folder: is made if it does not exist; files of these names in it are replaced.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        heading = ["arm", "seed", "steps", "best_step", "seconds"]
        runs = [
            {**{name: getattr(run, name) for name in heading}, **_cells(run.scores.by_name(self.classes))}
            for run in self.runs
        ]
        write_text(folder / "results.csv", _csv([list(runs[0]) if runs else heading, *(run.values() for run in runs)]))
        summary = [
            [arm, name, *_cells({"mean": spread.mean, "sd": spread.sd}).values(), spread.seeds]
            for arm, spreads in self.summary().items()
            for name, spread in spreads.items()
        ]
        write_text(folder / "summary.csv", _csv([["arm", "metric", "mean", "sd", "seeds"], *summary]))
        write_text(folder / "results.md", self.to_markdown())
        write_json(folder / "results.json", self.to_dict())

    def _rows(self, *, joint: str, divider: str) -> list[list[str]]:
        heading = ["arm", "Acc", "F1", "Bal Acc", *(f"{name} sens{divider}spec" for name in self.classes)]
        rows = [heading]
        for arm, spreads in self.summary().items():
            overall = [spreads[name].percent(joint) for name in ("accuracy", "macro_f1", "balanced_accuracy")]
            by_class = [
                spreads[f"sensitivity_{name}"].percent(joint) + divider + spreads[f"specificity_{name}"].percent(joint)
                for name in self.classes
            ]
            rows.append([arm, *overall, *by_class])
        return rows

    def _caption(self) -> str:
        seeds = len({run.seed for run in self.runs})
        images = len(self.runs[0].predictions) if self.runs else 0
        over = "1 seed" if seeds == 1 else f"Mean and standard deviation over {seeds} seeds"
        return f"Per cent. {over}, {images} test images. F1: macro; Bal Acc: balanced accuracy."


def _escape(cell: str) -> str:
    return cell.replace("|", r"\|")


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cells(scores: Mapping[str, float]) -> dict[str, str]:
    return {name: "" if math.isnan(value) else f"{value:.6f}" for name, value in scores.items()}


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
