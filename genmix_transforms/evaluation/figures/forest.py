"""The differences between arms with their intervals: what the comparison has found, and what it could have."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ALPHA = 0.05
_ROW, _HEAD, _FOOT, _LEGEND = 5.2, 7.0, 9.0, 7.0
"""Millimeters."""

_NUMBERS = 0.74
"""Where the column of differences ends, as a share of the room for numbers; that of p has the rest."""

_COLOURS = {True: "#00366B", False: "#5A5A5A"}
"""Of a difference that is significant, and one that is not; the first is a filled marker, the second a hollow one."""


class Compared(Protocol):
    """A difference of two arms, as fractions: :class:`genmix_transforms.evaluation.statistics.Difference`, or your own.

    It may have ``detectable`` too, the smallest difference that this comparison could have found (None or NaN: not
    known), and ``reference``, the other arm's name.
    """

    @property
    def arm(self) -> str:
        """The arm that is compared."""

    @property
    def difference(self) -> float:
        """Its score minus the reference's."""

    @property
    def low(self) -> float:
        """Where the interval begins; NaN, as ``high`` and ``p``, where it cannot be known."""

    @property
    def high(self) -> float:
        """Where it ends."""

    @property
    def p(self) -> float:
        """Corrected for the number of comparisons."""


def forest_figure(
    differences: Mapping[str, Sequence[Compared]], *, detectable: float | None = None, score: str = "macro F1"
) -> "Figure":
    """A row for each difference: a square with its 95 % interval, the numbers beside it; right of 0 the arm is better.

    The gray band is what the comparison could not have told from nothing (the smallest detectable difference to either
    side). A filled square has p below 0.05 after the correction, a hollow one has not.

    Args:
        differences: by what they are against ("baseline"), in the order of the panels and rows. Where the rows of a
            panel have several references, each row names its own.
        detectable: one smallest detectable difference for all, as a fraction; None: each difference's own, where it has
            one.
        score: what was compared.

    Returns:
        A page-wide figure of matplotlib, see :func:`save_figure`.

    Raises:
        InputError: nothing to draw, or an interval that does not hold its difference.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> from types import SimpleNamespace
        >>> found = SimpleNamespace(arm="genmix", difference=0.021, low=-0.004, high=0.046, p=0.1)
        >>> figure = forest_figure({"baseline": [found]}, detectable=0.03)
        >>> figure.savefig("forest.pdf")
    """
    panels = {reference: list(rows) for reference, rows in differences.items() if rows}
    _check(panels, detectable)
    counts = [len(rows) for rows in panels.values()]
    with style.house_style():
        height = _ROW * (sum(counts) + 0.6 * len(counts)) + _HEAD * len(counts) + _FOOT + _LEGEND
        figure = style.new_figure(height=height)
        grid = figure.subplots(
            len(panels),
            2,
            squeeze=False,
            sharex="col",
            sharey="row",
            width_ratios=[4.2, 1.7],
            height_ratios=[count + 0.6 for count in counts],
        )
        drawn = grid[:, 0]
        for (axes, beside), (reference, rows) in zip(grid, panels.items(), strict=True):
            beside.axis("off")
            _draw(axes, beside, rows, [_detectable(row, detectable) for row in rows])
            axes.set_title(f"against {reference}", loc="left", weight="bold")
        _headings(grid[0, 1])
        everything = [row for rows in panels.values() for row in rows]
        farthest = max(
            abs(value) for row in everything for value in (row.difference, row.low, row.high) if value == value
        )
        widest = max(_detectable(row, detectable) or 0.0 for row in everything)
        limit = 100 * 1.08 * max(farthest, min(widest, 2 * farthest), 0.005)
        drawn[-1].set_xlim(-limit, limit)
        drawn[-1].xaxis.set_major_locator(style.need("matplotlib.ticker").MaxNLocator(9, steps=[1, 2, 5, 10]))
        drawn[-1].set_xlabel(f"difference in {score}, percentage points")
        for axes in drawn[:-1]:
            axes.tick_params(labelbottom=False)
        _legend(figure, banded=widest > 0)
        return style.finished(figure)


def _check(panels: Mapping[str, Sequence[Compared]], detectable: float | None) -> None:
    if not panels:
        raise InputError("forest_figure: no differences; give {reference: [difference, ...]}")
    if detectable is not None and not 0 <= detectable < math.inf:
        raise InputError(f"detectable must be a fraction, 0 or more, got {detectable}")
    for reference, rows in panels.items():
        for row in rows:
            known = not (math.isnan(row.low) and math.isnan(row.high))
            if not math.isfinite(row.difference) or (known and not -1 <= row.low <= row.difference <= row.high <= 1):
                raise InputError(
                    f"{row.arm} against {reference}: the interval {row.low:g} to {row.high:g} does not hold the "
                    f"difference {row.difference:g}"
                )


def _detectable(row: Compared, given: float | None) -> float | None:
    least = given if given is not None else cast("float | None", getattr(row, "detectable", None))
    return least if least is not None and math.isfinite(least) else None


def _labels(rows: Sequence[Compared]) -> list[str]:
    references = [getattr(row, "reference", None) for row in rows]
    if len(set(references)) == 1:
        return [row.arm for row in rows]
    return [f"{row.arm} {style.MINUS} {reference}" for row, reference in zip(rows, references, strict=True)]


def _draw(axes: "Axes", beside: "Axes", rows: Sequence[Compared], detectable: Sequence[float | None]) -> None:
    where = beside.get_yaxis_transform()
    for place, (row, least) in enumerate(zip(rows, detectable, strict=True)):
        if least is not None:
            axes.fill_betweenx(
                [place - 0.5, place + 0.5], -100 * least, 100 * least, color=style.BAND, linewidth=0, zorder=0
            )
        found = bool(row.p < _ALPHA)
        colour = _COLOURS[found]
        axes.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot(
            [100 * row.difference],
            [place],
            marker="s",
            markersize=5,
            color=colour,
            markerfacecolor=colour if found else "white",
        )
        difference, low, high = (style.percent(value, sign=True) for value in (row.difference, row.low, row.high))
        numbers = f"{difference} [{low}, {high}]"
        beside.text(_NUMBERS, place, numbers, transform=where, ha="right", va="center", size=7)
        beside.text(1, place, probability(row.p), transform=where, ha="right", va="center", size=7)
    axes.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(rows)), _labels(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def probability(p: float) -> str:
    """As journals print it: two digits that count, ``< .001`` below that; a dash for NaN.

    Example:
        >>> probability(0.0421), probability(0.5), probability(0.0002), probability(1.0)
        ('.042', '.50', '< .001', '1.0')
    """
    if math.isnan(p):
        return style.DASH
    if p < 0.001:
        return "< .001"
    if p > 0.995:
        return "1.0"
    return (f"{p:.3f}" if p < 0.0995 else f"{p:.2f}").removeprefix("0")


def _headings(beside: "Axes") -> None:
    """On the line of the panel's own title."""
    for place, text, slant in ((_NUMBERS, "difference [95 % interval]", "normal"), (1, "p", "italic")):
        beside.annotate(
            text,
            (place, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="baseline",
            size=7,
            style=slant,
        )


def _legend(figure: "Figure", *, banded: bool) -> None:
    line, patch = style.need("matplotlib.lines").Line2D, style.need("matplotlib.patches").Patch
    handles = [
        line([], [], color=_COLOURS[found], marker="s", markersize=5, linewidth=1.4, label=label,
             markerfacecolor=_COLOURS[found] if found else "white")
        for found, label in ((True, "p < .05, corrected"), (False, "not significant"))
    ]  # fmt: skip
    if banded:
        handles.append(patch(color=style.BAND, linewidth=0, label="smaller than what could be detected (80 % power)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=2.0)
