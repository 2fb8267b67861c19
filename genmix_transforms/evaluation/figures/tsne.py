"""How a classifier of each arm sees real, synthetic and mixed images: the paper's Fig. 4."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import style
from genmix_transforms.evaluation.figures.points import FeaturePoints
from genmix_transforms.files.checks import check_seed, whole_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPONENTS = 50
_SIZES = {"real": 9.0, "synthetic": 11.0, "genmix": 15.0}
"""Of the markers, in square points."""

_BACK_TO_FRONT = ("genmix", "synthetic", "real")
_LETTER, _MARK, _LEGEND, _TITLE, _LINE = 1.35, 9.0, 4.2, 6.5, 3.5
"""Millimeters: of the legend a letter's width, the room around a name, and a row's height; a title's height."""

_ROUNDS = 50
"""Of moving names apart; names that have no room at all still overlap after them."""

_KIND_OF = {name: kind for kind, name in style.KIND_NAMES.items()}


def tsne_figure(
    arms: Mapping[str, FeaturePoints],
    classes: Sequence[str],
    *,
    columns: int | None = None,
    perplexity: float = 30.0,
    seed: int = 0,
) -> "Figure":
    """A panel an arm: real images as dots, synthetic ones as triangles, GenMix's as circles, a color a class.

    Each panel is embedded on its own, for each arm has a classifier of its own: distances and axes mean nothing across
    panels, and t-SNE keeps neighbors, not distances, within one. A class is named where its real images lie (their
    median), so that it can be told without the colors.

    Args:
        arms: the points of each arm by its name, see :func:`feature_points`.
        classes: the class names.
        columns: of panels; None: up to four.
        perplexity: about how many neighbors count; less where there are too few points.
        seed: of the embedding.

    Returns:
        A page-wide figure of matplotlib, see :func:`save_figure`.

    Raises:
        InputError: no arm, an arm of fewer than 5 points, or labels beyond the classes.
        MissingExtraError: matplotlib or scikit-learn is not installed.

    Source: Lee, Lee, Hong (arXiv 2405.20650), Fig. 4; van der Maaten and Hinton, JMLR 9 (2008), 2579.

    Example:
        >>> random = np.random.default_rng(0)
        >>> points = FeaturePoints(features=random.normal(size=(12, 8)), labels=np.arange(12) % 2, kinds=["real"] * 12)
        >>> figure = tsne_figure({"baseline": points}, ["cyst", "metastasis"])
        >>> figure.savefig("tsne.pdf")
    """
    names, seed = style.check_classes(classes), check_seed(seed)
    _check(arms, names, perplexity)
    columns = style.balanced(len(arms)) if columns is None else whole_number(columns, name="columns", least=1)
    places = {arm: embed(points.features, perplexity=perplexity, seed=seed) for arm, points in arms.items()}
    lines, side = -(-len(arms) // columns), min(style.WIDTH / columns, 95.0)
    present = {kind for points in arms.values() for kind in points.kinds.tolist()}
    legend = _legend_rows(names, [kind for kind in style.KINDS if kind in present], side * columns)
    with style.house_style():
        titles = {arm: style.name_in_lines(arm, width=side, size=8) for arm in arms}
        title = _TITLE + _LINE * max(text.count("\n") for text in titles.values())
        height = lines * (side + title) + len(legend) * _LEGEND + 3
        figure = style.new_figure(height=height, width=side * columns, layout="compressed")
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (arm, points) in zip(panels, arms.items(), strict=False):
            axes.set_title(titles[arm])
            _draw(axes, places[arm], points, names, scale=min(1.0, max(0.5, side / 75)))
        for axes in panels[len(arms) :]:
            axes.remove()
        _legend(figure, legend, dict(zip(names, style.class_colours(len(names)), strict=True)))
        figure = style.finished(figure)
        for axes in figure.axes:
            _part_names(axes)
        return figure


def embed(features: ArrayLike, *, perplexity: float = 30.0, seed: int = 0) -> NDArray[np.float64]:
    """t-SNE of rows of features, from their two principal components on; above 50 dimensions the leading 50 count.

    Args:
        features: ``(N, D)``, N at least 5.
        perplexity: at most a third of the other points.
        seed: the same one gives the same places.

    Returns:
        ``(N, 2)``, centered, the farthest point at a distance of 1 along x or y.

    Example:
        >>> embed(np.random.default_rng(0).normal(size=(9, 4))).shape
        (9, 2)
    """
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or len(rows) < 5:
        raise InputError(f"t-SNE needs at least 5 rows of features, (N, D), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError("t-SNE: some features are not finite numbers")
    manifold, decomposition = style.need("sklearn.manifold"), style.need("sklearn.decomposition")
    rows = rows - rows.mean(axis=0)
    if rows.shape[1] > _COMPONENTS:
        kept = min(_COMPONENTS, len(rows))
        rows = decomposition.PCA(kept, svd_solver="full").fit_transform(rows)
    if rows.shape[1] < 2 or not rows.any():
        # Nothing to reduce, and no principal components to begin from.
        places = np.column_stack([rows, np.zeros((len(rows), 2))])[:, :2]
    else:
        places = manifold.TSNE(
            perplexity=min(perplexity, (len(rows) - 1) / 3), init="pca", learning_rate="auto", random_state=seed % 2**32
        ).fit_transform(rows)
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    scaled: NDArray[np.float64] = places / max(float(np.abs(places).max()), 1e-12)
    return scaled


def _check(arms: Mapping[str, FeaturePoints], classes: tuple[str, ...], perplexity: float) -> None:
    if not isinstance(arms, Mapping) or not arms:
        raise InputError("tsne_figure: no arms; give {name: FeaturePoints}")
    if not perplexity > 0:
        raise InputError(f"perplexity must be positive, got {perplexity}")
    for arm, points in arms.items():
        if len(points) < 5:
            raise InputError(f"{arm}: t-SNE needs at least 5 points, got {len(points)}")
        if points.labels.max() >= len(classes):
            raise InputError(
                f"{arm}: labels run to {points.labels.max()}, but there are {len(classes)} classes, "
                f"{', '.join(classes)}"
            )


def _draw(
    axes: "Axes", places: NDArray[np.float64], points: FeaturePoints, classes: tuple[str, ...], *, scale: float
) -> None:
    colours = style.class_colours(len(classes))
    effects = style.need("matplotlib.patheffects")
    for kind in _BACK_TO_FRONT:
        for label in range(len(classes)):
            here = (points.kinds == kind) & (points.labels == label)
            if here.any():
                axes.scatter(*places[here].T, **_look(kind, colours[label], scale), label=f"{kind} {classes[label]}")
    for label, name in enumerate(classes):
        here = points.labels == label
        real = here & (points.kinds == "real")
        here = real if real.any() else here
        if here.any():
            x, y = np.median(places[here], axis=0)
            halo = [effects.withStroke(linewidth=2.2, foreground="white")]
            axes.text(x, y, name, color=style.INK, ha="center", va="center", size=7, path_effects=halo, clip_on=False)
    style.bare(axes)
    axes.set(xlim=(-1.06, 1.06), ylim=(-1.06, 1.06), aspect="equal")
    for spine in axes.spines.values():
        spine.set(visible=True, color="#C8C8C8", linewidth=0.5)


def _part_names(axes: "Axes") -> None:
    """Move names into the panel, and up and down until none lies on another."""
    to_data = axes.transData.inverted()
    boxes = np.array([to_data.transform(text.get_window_extent().get_points()) for text in axes.texts])
    if not len(boxes):
        return
    middles, sizes = boxes.mean(axis=1), boxes[:, 1] - boxes[:, 0]
    room = np.maximum(np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())]) / 2 - sizes / 2, 0)
    moved = np.clip(middles, -room, room)
    for _ in range(_ROUNDS):
        for one, other in itertools.combinations(range(len(moved)), 2):
            beside, above = moved[other] - moved[one]
            least = (sizes[one] + sizes[other]) / 2
            if abs(beside) < least[0] and abs(above) < least[1]:
                step = (least[1] - abs(above)) / 2 * (1 if above >= 0 else -1)
                moved[[one, other], 1] += -step, step
        moved = np.clip(moved, -room, room)
    for text, (x, y) in zip(axes.texts, moved - middles, strict=True):
        if x or y:
            left, bottom = text.get_position()
            text.set_position((left + x, bottom + y))


def _look(kind: str, colour: str, scale: float) -> dict[str, Any]:
    hollow = kind in style.HOLLOW
    return {
        "marker": style.MARKERS[kind],
        "s": _SIZES[kind] * scale,
        "facecolors": "none" if hollow else colour,
        "edgecolors": colour if hollow else "white",
        "linewidths": 0.7 if hollow else 0.25,
    }


def _legend(figure: "Figure", rows: list[list[str]], colours: Mapping[str, str]) -> None:
    """Below the panels: the colors first, then the markers, in one ink, for they mean the same in every color."""
    line = style.need("matplotlib.lines").Line2D

    def handle(entry: str) -> object:
        if entry in colours:
            look = {"marker": "s", "markersize": 5, "color": colours[entry], "markeredgewidth": 0, "label": entry}
        elif entry in _KIND_OF:
            kind = _KIND_OF[entry]
            look = {
                "marker": style.MARKERS[kind],
                "markersize": _SIZES[kind] ** 0.5 + 0.8,
                "markerfacecolor": "none" if kind in style.HOLLOW else style.INK,
                "markeredgecolor": style.INK,
                "markeredgewidth": 0.7 if kind in style.HOLLOW else 0,
                "label": entry,
            }
        else:
            look = {"label": " "}
        return line([], [], linestyle="", **look)

    # A legend is filled column by column.
    most = max(map(len, rows))
    handles = [handle(row[place] if place < len(row) else "") for place in range(most) for row in rows]
    figure.legend(handles=handles, loc="outside lower center", ncols=most, columnspacing=1.4, handletextpad=0.3)


def _legend_rows(classes: tuple[str, ...], kinds: list[str], width: float) -> list[list[str]]:
    """The legend's entries, in as many rows as the width needs: the classes', then the kinds'."""
    names = [style.KIND_NAMES[kind] for kind in kinds]
    longest = max(map(len, [*classes, *names])) * _LETTER + _MARK
    room = max(1, int(width / longest))
    if len(classes) + len(names) <= room:
        return [[*classes, *names]]
    return [list(classes[start : start + room]) for start in range(0, len(classes), room)] + [names]
