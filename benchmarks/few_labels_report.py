"""The report of few_labels.py: scores against labels a class, and what the differences between arms are worth."""

import itertools
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
RECIPES = ("recipe", "pool-recipe")
"""The names of what a draw chose for itself: among the arms of all, or among these and the classifier that knows the
pool."""

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
    "recipe": "What a draw chose for itself, less the baseline",
    "pool-recipe": "What a draw chose for itself where it could also start from the pool's weights, less the baseline",
    "arms": "Each arm less the baseline",
    "controls": "Each arm less its control",
    "pool": "Each arm whose classifier was pre-trained on the pool, less the baseline whose classifier was not",
    "pretrained": "Each arm whose classifier was pre-trained on the pool, less the baseline whose classifier was too",
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


def under_one_name(tested: Results, recipe: str) -> Results:
    """The test of what a draw chose, as that of an arm of this name; where it chose the baseline, it is that."""
    chosen = tested.arms[-1]
    run = next(run for run in tested.runs if run.arm == chosen)
    return replace(tested, runs=(replace(run, arm=recipe),), order=(recipe,))


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
        **{recipe: [(recipe, BASELINE)] for recipe in RECIPES},
        "arms": [(arm, BASELINE) for arm in arms if arm not in (BASELINE, *RECIPES)],
        "controls": [(arm.format(bank=bank), other.format(bank=bank)) for arm, other in CONTROLS],
        "pool": [(arm, BASELINE) for arm in known],
        "pretrained": [(arm, PRETRAINED + BASELINE) for arm in known if arm != PRETRAINED + BASELINE],
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
    """The curves as a table, the differences by number of labels, then all that is known of each of them."""
    lines = [f"Macro F1, %, on {len(test):,} test images; means over draws.", ""]
    labels = list(points)
    lines += [
        "| arm | " + " | ".join(f"{each} ({points[each].draws} draws)" for each in labels) + " |",
        "| --- |" + " ---: |" * len(labels),
    ]
    for arm in dict.fromkeys(arm for point in points.values() for arm in point.scores):
        cells = [f"{100 * points[each].scores[arm].mean:.1f}" if arm in points[each].scores else "" for each in labels]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    for family, title in TITLES.items():
        lines += _by_labels(points, family, title)
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
                sure = f"{one.p_single:.3f} | {one.p:.3f} | {100 * one.detectable:.1f} | {one.seeds}"
                lines.append(f"| {one.arm} | {one.reference} | {_interval(one)} | {sure} |")
    return lines


def _by_labels(points: Mapping[str, Point], family: str, title: str) -> list[str]:
    """The differences of a family, a column a number of labels; bold where p < 0.05 after Holm."""
    found = {
        (one.arm, one.reference, labels): f"**{_interval(one)}**" if one.p < 0.05 else _interval(one)
        for labels, point in points.items()
        for one in point.differences.get(family, ())
    }
    rows = dict.fromkeys((arm, reference) for arm, reference, _ in found)
    if not rows:
        return []
    lines = ["", f"{title}, points (95 % interval; bold: p < 0.05 after Holm):", ""]
    lines += ["| arm | less | " + " | ".join(points) + " |", "| --- | --- |" + " ---: |" * len(points)]
    for arm, reference in rows:
        cells = [found.get((arm, reference, labels), "") for labels in points]
        lines.append(f"| {arm} | {reference} | " + " | ".join(cells) + " |")
    return lines


def _interval(one: Difference) -> str:
    return f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#999999", "#7A5200", "#B2334A")
"""Okabe and Ito's, which the color-blind tell apart, and two more."""


def curves_figure(points: Mapping[str, Point]):  # type: ignore[no-untyped-def]
    """The scores, a line an arm, and beside them the differences from the baseline with their intervals as bands.

    Of the arms that every number of labels has.
    """
    from matplotlib.figure import Figure

    labels = list(points)
    places = np.arange(len(labels))
    arms = [arm for arm in points[labels[0]].scores if all(arm in point.scores for point in points.values())]
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    scores, gains = figure.subplots(1, 2)
    for arm, color in zip(arms, itertools.cycle(COLORS)):
        style: dict[str, Any] = {"color": color, "linestyle": "--" if arm.startswith(PRETRAINED) else "-"}
        band: dict[str, Any] = {"color": color, "alpha": 0.12, "linewidth": 0}
        found = [points[each].scores[arm] for each in labels]
        scores.plot(places, [100 * one.mean for one in found], marker="o", markersize=3, label=arm, **style)
        if arm.endswith(BASELINE):
            scores.fill_between(places, [100 * one.low for one in found], [100 * one.high for one in found], **band)
        less = [_from_baseline(points[each], arm) for each in labels]
        if all(less):
            rows = 100 * np.array([(one.low, one.difference, one.high) for one in less if one is not None])
            gains.plot(places, rows[:, 1], marker="o", markersize=3, **style)
            gains.fill_between(places, rows[:, 0], rows[:, 2], **band)
    gains.axhline(0, color="black", linewidth=0.8)
    for axes, title in ((scores, "macro F1, %"), (gains, "less the baseline, points, 95 %")):
        axes.set_xticks(places, labels)
        axes.set_xlabel("labels a class")
        axes.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _from_baseline(point: Point, arm: str) -> Difference | None:
    every = [one for found in point.differences.values() for one in found]
    return next((one for one in every if (one.arm, one.reference) == (arm, BASELINE)), None)
