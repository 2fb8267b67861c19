"""The score of every seed, with mean and interval: how far the arms lie apart, and how far the seeds."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_names import ArmName
from genmix_transforms.evaluation.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _FOOT, _HEAD = 7.0, 16.0, 5.0
"""Millimeters."""

GROUPS = {
    "real": ("real images only", "o", "#3A3A3A"),
    "blend": ("real and synthetic, blended", "^", "#B2334A"),
    "pretrain": ("synthetic first, then real", "s", "#7A5200"),
    "genmix": ("GenMix", "D", "#00366B"),
}
"""What an arm trains on: a name, a marker and a color each."""

_REASON = 72
"""Letters of a reason that fit into a row."""

_REAL_ONLY = frozenset({"genmix-real", "pretrain-repeat"})


def scores_figure(
    seeds: Mapping[str, Sequence[float]],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    missing: Mapping[str, str] | None = None,
    reference: str | None = "baseline",
    score: str = "macro F1",
) -> "Figure":
    """A row an arm: every seed as a small mark, below them the mean with its interval, and both as numbers.

    The dashed line is the mean of the reference. What an arm trains on shows in marker and color.

    Args:
        seeds: for each arm by its name, a score a seed, as fractions.
        intervals: of the mean, low and high; arms without one show the mean alone.
        missing: arms that have no score, and why; a long reason is cut short.
        reference: the arm of the dashed line, if it is there; None: no line.
        score: its name.

    Returns:
        A page-wide figure of matplotlib, see :func:`save_figure`.

    Raises:
        InputError: no arm, an arm without seeds, a score that is none, or an interval of an arm that is not there.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> figure = scores_figure({"baseline": [0.55, 0.57], "genmix": [0.6, 0.58]})
        >>> figure.savefig("scores.pdf")
    """
    intervals, missing = dict(intervals or {}), dict(missing or {})
    _check(seeds, intervals, missing)
    with style.house_style():
        rows = len(seeds) + len(missing)
        figure = style.new_figure(height=rows * _ROW + _FOOT + _HEAD)
        axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=[5, 1.15])
        beside.axis("off")
        if reference is not None and reference in seeds:
            mean = 100 * float(np.mean(seeds[reference]))
            axes.axvline(mean, color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for place, (arm, values) in enumerate(seeds.items()):
            _draw(axes, beside, place, arm, values, intervals.get(arm))
        for place, reason in enumerate(missing.values(), start=len(seeds)):
            where = axes.get_yaxis_transform()
            # Cut where the row ends, and left out of the layout: a long reason would push everything else off the page.
            text = textwrap.shorten(f"no result: {reason}", _REASON, placeholder=" ...")
            written = axes.text(0.01, place, text, transform=where, va="center", size=7, style="italic")
            written.set_in_layout(False)
        axes.set_yticks(range(rows), [*seeds, *missing])
        axes.set_ylim(rows - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#EAEAEA", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(style.need("matplotlib.ticker").MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.set_xlabel(f"{score}, %")
        heading = "mean [95 % interval]" if intervals else "mean"
        beside.text(1, 1, heading, transform=beside.transAxes, ha="right", va="bottom", size=7)
        _legend(figure, [group_of(arm) for arm in seeds])
        return style.finished(figure)


def group_of(arm: str) -> str:
    """What an arm trains on, by its name: "real", "blend", "pretrain" or "genmix".

    Example:
        >>> group_of("baseline"), group_of("blend:dcgan"), group_of("genmix-union:adm"), group_of("genmix-real")
        ('real', 'blend', 'genmix', 'real')
    """
    kind = ArmName.parse(arm).kind
    if kind in _REAL_ONLY:
        return "real"
    return next(
        (group for group in ("blend", "pretrain", "genmix") if kind == group or kind.startswith(f"{group}-")), "real"
    )


def _check(
    seeds: Mapping[str, Sequence[float]], intervals: Mapping[str, tuple[float, float]], missing: Mapping[str, str]
) -> None:
    if not seeds:
        raise InputError("scores_figure: no arms; give {name: [a score a seed]}")
    for arm, values in seeds.items():
        if not len(values) or not all(math.isfinite(value) for value in values):
            raise InputError(f"{arm}: every seed needs a score, got {list(values)}")
    for arm in intervals:
        if arm not in seeds:
            raise InputError(f"an interval for {arm!r}, which is none of the arms {', '.join(seeds)}")
    for arm in missing:
        if arm in seeds:
            raise InputError(f"{arm!r} is missing, and has scores: it can only be one of them")


def _draw(
    axes: "Axes",
    beside: "Axes",
    place: int,
    arm: str,
    values: Sequence[float],
    interval: tuple[float, float] | None,
) -> None:
    _, marker, colour = GROUPS[group_of(arm)]
    axes.scatter(
        100 * np.asarray(values),
        [place - 0.24] * len(values),
        marker=marker,
        s=11,
        facecolors="none",
        edgecolors=colour,
        linewidths=0.7,
    )
    mean = float(np.mean(values))
    text = style.percent(mean)
    if interval is not None:
        axes.plot(
            [100 * interval[0], 100 * interval[1]],
            [place + 0.14] * 2,
            color=colour,
            linewidth=1.6,
            solid_capstyle="butt",
        )
        text += f" [{style.percent(interval[0])}, {style.percent(interval[1])}]"
    axes.plot(
        [100 * mean],
        [place + 0.14],
        marker=marker,
        markersize=5.5,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.5,
    )
    beside.text(1, place, text, transform=beside.get_yaxis_transform(), ha="right", va="center", size=7)


def _legend(figure: "Figure", present: Sequence[str]) -> None:
    line = style.need("matplotlib.lines").Line2D
    handles = [
        line([], [], linestyle="", marker=marker, markersize=5.5, color=colour, markeredgecolor="white", label=name)
        for group, (name, marker, colour) in GROUPS.items()
        if group in present
    ]
    handles.append(
        line(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=3.4,
            markerfacecolor="none",
            markeredgecolor=style.INK,
            markeredgewidth=0.7,
            label="one seed",
        )
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=2.0)
