"""The report of few_labels.py: scores against labels a class, and what the differences between arms are worth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from genmix_transforms.data import PatchDataset
from genmix_transforms.evaluation import Results
from genmix_transforms.evaluation.statistics import Difference, Estimate, differences, estimate
from genmix_transforms.files.atomic import write_text

BASELINE = "baseline"
PRETRAINED = "pretrained "
"""Before the name of an arm whose classifier was pre-trained on the pool."""

METRIC = "macro_f1"


@dataclass(frozen=True, kw_only=True)
class Point:
    """All arms at one number of labels.

    Args:
        scores: macro F1 of each arm, over draws and test cases.
        differences: of each arm from the baseline, one family; and of each arm with the pre-trained classifier from
            that classifier's baseline, another.
        draws: how many.
    """

    scores: Mapping[str, Estimate]
    differences: Sequence[Difference]
    draws: int


def joined(results: Sequence[Results]) -> Results:
    """The draws of one comparison as the seeds of one: they were tested on the same cases."""
    first = results[0]
    runs = [run for found in results for run in found.runs]
    order = first.arms
    return replace(
        first, runs=tuple(sorted(runs, key=lambda run: (order.index(run.arm), run.seed))), order=order, warnings=()
    )


def compared(scratch: Results, pretrained: Results) -> Point:
    """The scores and the two families of differences."""
    known = {PRETRAINED + arm: found for arm, found in pretrained.resampled.items()}
    arms = {**scratch.resampled, **known}
    plain = [(arm, BASELINE) for arm in scratch.arms if arm != BASELINE]
    others = [(arm, PRETRAINED + BASELINE) for arm in known if arm != PRETRAINED + BASELINE]
    return Point(
        scores={arm: estimate(found, METRIC) for arm, found in arms.items()},
        differences=(
            *differences(arms, [*plain, (PRETRAINED + BASELINE, BASELINE)], metric=METRIC),
            *differences(arms, others, metric=METRIC),
        ),
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
        lines += [
            "",
            f"{each} labels a class, difference from the baseline, points (95 % interval):",
            "",
            "| arm | difference | p | p (Holm) | could be found |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for one in point.differences:
            name = one.arm if one.reference == BASELINE else f"{one.arm} less {one.reference}"
            interval = f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
            lines.append(f"| {name} | {interval} | {one.p_single:.3f} | {one.p:.3f} | {100 * one.detectable:.1f} |")
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
        color = {} if arm in best else {"color": "black"} if arm == BASELINE else {"color": "0.75", "linewidth": 0.8}
        name = {"label": arm} if arm in best or arm == BASELINE else {}
        axes.plot(places, curve(arm, "mean"), marker="o", markersize=3, **color, **name)
    axes.set_xticks(places, labels)
    axes.set_xlabel("labels a class")
    axes.set_ylabel("macro F1, %")
    axes.legend(fontsize=8)
    return figure
