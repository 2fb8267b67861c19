"""Which class was taken for which, a panel an arm."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import style
from genmix_transforms.files.checks import whole_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _TITLE, _LINE, _LARGEST = 3.5, 7.0, 3.5, 15.0
"""Millimeters; the last of a cell's side."""

_NARROWEST, _WHOLE_LINE = 84.0, 115.0
"""Millimeters: what the numbers mean has room on two lines, and on one."""

_LEAST = 5.0
"""Points: smaller letters are not for print."""

_LETTER = 1.5
"""The width of a letter of a tick's label, in millimeters."""

_MAP, _DARKEST = "Blues", 0.62
"""Of one hue, from white to dark: it prints in gray as it is meant; and no darker than black letters can be read on."""


def confusion_figure(
    confusions: Mapping[str, ArrayLike], classes: Sequence[str], *, columns: int | None = None
) -> "Figure":
    """A confusion matrix an arm: rows are true classes and add up to 100 %, columns predicted ones.

    In each cell the per cent of the row, the mean over the seeds, and below it, where there is room, the mean number of
    images. A class without images is gray and has dashes.

    Args:
        confusions: for each arm by its name ``(K, K)`` or ``(seeds, K, K)`` counts, row = true class. Of several folds,
            the sum: every seed then has tested each image once.
        classes: K names.
        columns: of panels; None: up to four.

    Returns:
        A page-wide figure of matplotlib, see :func:`save_figure`.

    Raises:
        InputError: no arm, another shape, or counts that are none.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> figure = confusion_figure({"baseline": [[8, 2], [1, 9]]}, ["cyst", "metastasis"])
        >>> figure.savefig("confusion.pdf")
    """
    names = style.check_classes(classes)
    matrices = {arm: _counts(arm, found, len(names)) for arm, found in confusions.items()}
    if not matrices:
        raise InputError("confusion_figure: no arms; give {name: counts}")
    columns = style.balanced(len(matrices)) if columns is None else whole_number(columns, name="columns", least=1)
    lines, longest = -(-len(matrices) // columns), max(map(len, names)) * _LETTER
    left = longest + 10
    cell = min(_LARGEST, ((style.WIDTH - left) / columns - _GAP) / len(names))
    side, turned = cell * len(names), longest > cell
    counted = _size(cell, counted=True) >= _LEAST
    with style.house_style():
        titles = {arm: style.name_in_lines(arm, width=side + _GAP, size=8) for arm in matrices}
        title = _TITLE + _LINE * max(text.count("\n") for text in titles.values())
        foot = 12 + (0.75 * longest if turned else 4)
        width, height = max(_NARROWEST, left + columns * (side + _GAP)), lines * (side + title) + foot
        figure = style.new_figure(height=height, width=width, layout="compressed")
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for number, (axes, (arm, counts)) in enumerate(zip(panels, matrices.items(), strict=False)):
            axes.set_title(titles[arm])
            _draw(axes, counts, size=_size(cell, counted=counted), counted=counted)
            # All panels have the same classes: the outer ones name them.
            below = number // columns == lines - 1
            _ticks(axes, names, turned=turned, left=number % columns == 0, below=below)
        for axes in panels[len(matrices) :]:
            axes.remove()
        meaning = "per cent of the true class" + (", mean number of images" if counted else "")
        figure.supylabel("true class", size=8)
        between = " " if width > _WHOLE_LINE else "\n"
        figure.supxlabel(f"predicted class{between}({meaning})", size=8)
        return style.finished(figure)


def _size(cell: float, *, counted: bool) -> float:
    """Of the letters in a cell of that many millimeters, in points: six in a row, or three, fit in."""
    return min(7.0, cell * (0.68 if counted else 1.3))


def _counts(arm: str, found: ArrayLike, classes: int) -> NDArray[np.float64]:
    counts = np.asarray(found, np.float64)
    counts = counts[None] if counts.ndim == 2 else counts
    if counts.ndim != 3 or counts.shape[1:] != (classes, classes) or not len(counts):
        raise InputError(
            f"{arm}: a confusion matrix of {classes} classes is ({classes}, {classes}), or "
            f"(seeds, {classes}, {classes}), got {np.shape(found)}"
        )
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise InputError(f"{arm}: numbers of images cannot be negative, infinite or NaN")
    return counts


def shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per cent of each row ``(K, K)``, the mean over seeds; NaN where a class has no images in any.

    Example:
        >>> shares(np.array([[[3, 1], [0, 0]], [[4, 0], [0, 0]]]))
        array([[87.5, 12.5],
               [ nan,  nan]])
    """
    total = counts.sum(axis=2, keepdims=True)
    of_row = np.divide(100 * counts, total, out=np.zeros(counts.shape), where=total > 0).sum(axis=0)
    seeds = (total > 0).sum(axis=0)
    mean: NDArray[np.float64] = np.divide(of_row, seeds, out=np.full(of_row.shape, np.nan), where=seeds > 0)
    return mean


def _draw(axes: "Axes", counts: NDArray[np.float64], *, size: float, counted: bool) -> None:
    colours = style.need("matplotlib").colormaps[_MAP].with_extremes(bad=style.BAND)
    of_row, images = shares(counts), counts.mean(axis=0)
    classes = len(images)
    axes.imshow(np.ma.masked_invalid(of_row), cmap=colours, vmin=0, vmax=100 / _DARKEST, interpolation="none")
    decimals = int((images != images.round()).any() and images.max() < 1000)
    for row in range(classes):
        for column in range(classes):
            known = np.isfinite(of_row[row, column])
            text = f"{of_row[row, column]:.0f}" if known else style.DASH
            if known and counted:
                text += f"\n({images[row, column]:.{decimals}f})"
            axes.text(column, row, text, ha="center", va="center", size=size, color=style.INK, linespacing=1.25)
    edges = np.arange(classes + 1) - 0.5
    axes.hlines(edges, -0.5, classes - 0.5, color="white", linewidth=0.8)
    axes.vlines(edges, -0.5, classes - 0.5, color="white", linewidth=0.8)


def _ticks(axes: "Axes", classes: tuple[str, ...], *, turned: bool, left: bool, below: bool) -> None:
    places = range(len(classes))
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks(places, classes if left else [""] * len(classes))
    axes.set_xticks(places, classes if below else [""] * len(classes), rotation=45 if turned else 0)
    if turned:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
