"""The report of few_labels.py: scores against labels a class, and what the differences between arms are worth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genmix_transforms.data import PatchDataset
from genmix_transforms.evaluation import Results
from genmix_transforms.evaluation.statistics import Difference, Estimate, differences, estimate
from genmix_transforms.files.atomic import write_text

BASELINE = "baseline"
RECIPE = "recipe"
"""The name of whatever a draw chose for itself."""

PRETRAINED = "pretrained "
"""Before the name of an arm whose classifier was pre-trained on the pool."""

METRIC = "macro_f1"


CONTROLS = (
    ("blend:{bank}@0.25", "repeat"),
    ("pretrain:{bank}", "pretrain-repeat"),
    ("genmix:{bank}", "mixup"),
    ("genmix:{bank}", "blend:{bank}@0.25"),
    ("genmix:{bank}", "genmix-real"),
    ("blend:{bank}@0.25@keep=0.5", "blend:{bank}@0.25@keep=0.5@keep_by=random"),
)
"""Arms, each with the arm that differs in the one thing asked about: synthetic images or real ones, mixed or blended,
filtered or dropped at random."""

TITLES = {
    RECIPE: "What a draw chose for itself, less the baseline",
    "arms": "Each arm less the baseline",
    "controls": "Each arm less its control",
    "pretrained": "The classifier pre-trained on the pool: its baseline less the other, its arms less its baseline",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """All arms at one number of labels.

    Args:
        scores: macro F1 of each arm, over draws and test cases.
        differences: by the family (of ``TITLES``) within which their p values are corrected.
        draws: how many.
    """

    scores: Mapping[str, Estimate]
    differences: Mapping[str, Sequence[Difference]]
    draws: int


def joined(results: Sequence[Results]) -> Results:
    """The draws of one comparison as the seeds of one: they were tested on the same cases."""
    first = results[0]
    runs = [run for found in results for run in found.runs]
    order = first.arms
    return replace(
        first, runs=tuple(sorted(runs, key=lambda run: (order.index(run.arm), run.seed))), order=order, warnings=()
    )


def under_one_name(tested: Results) -> Results:
    """The test of what a draw chose, as that of an arm "recipe"; where it chose the baseline, it is that."""
    chosen = tested.arms[-1]
    run = next(run for run in tested.runs if run.arm == chosen)
    return replace(tested, runs=(replace(run, arm=RECIPE),), order=(RECIPE,))


def compared(scratch: Results, pretrained: Results, *more: Results, bank: str) -> Point:
    """The scores, and the differences by family.

    Args:
        scratch: of all draws, from random weights.
        pretrained: likewise, with the pre-trained classifier.
        more: of some or all draws: of other banks, or what the draws chose. Arms are paired by their draws.
        bank: the one that is tried everywhere.
    """
    arms = {arm: found for results in (*more, scratch) for arm, found in results.resampled.items()}
    known = {PRETRAINED + arm: found for arm, found in pretrained.resampled.items()}
    every = {**arms, **known}
    pairs = {
        RECIPE: [(RECIPE, BASELINE)],
        "arms": [(arm, BASELINE) for arm in arms if arm not in (BASELINE, RECIPE)],
        "controls": [(arm.format(bank=bank), other.format(bank=bank)) for arm, other in CONTROLS],
        "pretrained": [
            (PRETRAINED + BASELINE, BASELINE),
            *((arm, PRETRAINED + BASELINE) for arm in known if arm != PRETRAINED + BASELINE),
        ],
    }
    there = {family: [pair for pair in found if set(pair) <= set(every)] for family, found in pairs.items()}
    return Point(
        scores={arm: estimate(found, METRIC) for arm, found in every.items()},
        differences={family: differences(every, found, metric=METRIC) for family, found in there.items() if found},
        draws=len(scratch.outcomes[BASELINE].seeds),
    )


def write_report(points: Mapping[str, Point], out: Path, *, test: PatchDataset) -> None:
    """Write ``curves.json``, ``curves.md`` and, with matplotlib, ``curves.png``."""
    content = {labels: asdict(point) for labels, point in points.items()}
    write_text(out / "curves.json", json.dumps(content, indent=1, default=float))
    write_text(out / "curves.md", "\n".join(markdown(points, test=test)) + "\n")
    figure = curves_figure(points)
    figure.savefig(out / "curves.png", dpi=150)


def markdown(points: Mapping[str, Point], *, test: PatchDataset) -> list[str]:
    """The curves as a table, then a table of differences for each number of labels."""
    lines = [f"Macro F1, %, on {len(test):,} test images; means over draws.", ""]
    labels = list(points)
    lines += [
        "| arm | " + " | ".join(f"{each} ({points[each].draws} draws)" for each in labels) + " |",
        "| --- |" + " ---: |" * len(labels),
    ]
    for arm in dict.fromkeys(arm for point in points.values() for arm in point.scores):
        cells = [f"{100 * points[each].scores[arm].mean:.1f}" if arm in points[each].scores else "" for each in labels]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    for each, point in points.items():
        for family, found in point.differences.items():
            lines += [
                "",
                f"{each} labels a class. {TITLES[family]}, points (95 % interval):",
                "",
                "| arm | less | difference | p | p (Holm) | could be found | draws |",
                "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
            ]
            for one in found:
                interval = f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
                sure = f"{one.p_single:.3f} | {one.p:.3f} | {100 * one.detectable:.1f} | {one.seeds}"
                lines.append(f"| {one.arm} | {one.reference} | {interval} | {sure} |")
    return lines


def curves_figure(points: Mapping[str, Point]):  # type: ignore[no-untyped-def]
    """A line an arm, with a band of its interval for the baseline; the best few arms in color, the others gray."""
    from matplotlib.figure import Figure

    labels = list(points)
    places = np.arange(len(labels))
    arms = list(dict.fromkeys(arm for point in points.values() for arm in point.scores))

    def curve(arm: str, part: str) -> np.ndarray:
        return 100 * np.array([getattr(points[each].scores[arm], part, np.nan) if arm in points[each].scores else np.nan
                               for each in labels])  # fmt: skip

    best = sorted((arm for arm in arms if arm != BASELINE), key=lambda arm: -np.nanmean(curve(arm, "mean")))[:6]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(places, curve(BASELINE, "low"), curve(BASELINE, "high"), color="0.85", label="baseline, 95 %")
    for arm in arms:
        options: dict[str, Any] = {"color": "0.75", "linewidth": 0.8}
        if arm == BASELINE or arm in best:
            options = {"label": arm, "color": "black" if arm == BASELINE else None}
        axes.plot(places, curve(arm, "mean"), marker="o", markersize=3, **options)
    axes.set_xticks(places, labels)
    axes.set_xlabel("labels a class")
    axes.set_ylabel("macro F1, %")
    axes.legend(fontsize=8)
    return figure
