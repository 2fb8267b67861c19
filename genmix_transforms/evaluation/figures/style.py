"""The look that all figures share: colors that survive a gray printer and color blindness, markers, sizes in print.

matplotlib is imported here alone, when the first figure is drawn, and never through pyplot: a figure belongs to whoever
called, and neither the settings of matplotlib nor its list of open figures changes.
"""

import importlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.files.atomic import write_bytes
from genmix_transforms.files.checks import check_output_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 183.0
"""Millimeters: two columns of a journal, and the text width of an A4 page."""

FORMATS = ("pdf", "svg", "png")
"""Of files: vectors for print, and pixels for pages."""

DPI = 300
"""Of the pixels; the two vector formats have none."""

DASH, MINUS, LAMBDA = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{GREEK SMALL LETTER LAMDA}"

INK, FAINT, BAND = "#1A1A1A", "#8A8A8A", "#E4E4E4"
"""Of text and lines; of what stands behind; of shaded bands."""

CLASS_COLOURS = ("#00366B", "#B2334A", "#B8860B", "#56B4E9", "#000000", "#CC79A7", "#009E73", "#777777")
"""A color a class. The first three lie 17 steps of lightness (CIE L*) apart, so a gray print keeps them, and stand
out from white by 3 : 1 (WCAG's limit for graphics); all eight differ for the color-blind; four are Okabe and Ito's."""

KINDS = ("real", "synthetic", "genmix")
"""Where an image comes from."""

MARKERS = {"real": "o", "synthetic": "^", "genmix": "o"}
"""Dots, triangles and (hollow) circles: those of the paper's Fig. 4."""

HOLLOW = frozenset({"genmix"})

KIND_NAMES = {"real": "real", "synthetic": "synthetic", "genmix": "GenMix"}

_SETTINGS = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same letters everywhere
    "text.hinting": "none",  # or letters move with the resolution
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.titlepad": 6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "image.composite_image": False,  # patches keep their own pixels in a vector file
    "pdf.fonttype": 42,  # embedded TrueType: publishers refuse Type 3
    "svg.fonttype": "path",  # letters as outlines: the reader needs no font
    "svg.hashsalt": "genmix_transforms",  # the same identifiers in every run
}


@contextmanager
def house_style() -> Iterator[None]:
    """matplotlib's settings are the figures' inside the block, whatever the user's are, and as before after it."""
    matplotlib = need("matplotlib")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def need(module: str) -> Any:
    """Import a module of the extra ``figures``.

    Raises:
        MissingExtraError: its library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise MissingExtraError(
            f"this figure needs {library}: install it with pip install 'genmix-transforms[figures]'"
        ) from error


def new_figure(*, height: float, width: float = WIDTH, layout: str = "constrained") -> "Figure":
    """An empty figure, sizes in millimeters; call it, and all that draws, inside :func:`house_style`.

    Args:
        height: of the page, in millimeters.
        width: likewise.
        layout: matplotlib's engine; "none": whoever calls places everything.
    """
    size = (width / 25.4, height / 25.4)
    # Laid out at the resolution of print: letters have other widths in fewer pixels.
    figure: Figure = need("matplotlib.figure").Figure(figsize=size, dpi=DPI, layout=layout)
    if layout != "none":
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.05, h_pad=0.04, wspace=0.02, hspace=0.03)
    return figure


def finished(figure: "Figure") -> "Figure":
    """The figure with its layout settled while the house's settings still hold: ticks are made on the first drawing."""
    figure.draw_without_rendering()
    figure.draw_without_rendering()  # what the first layout moved, the second takes into account
    figure.set_layout_engine("none")
    return figure


def class_colours(count: int) -> tuple[str, ...]:
    """A color for each class, hexadecimal; beyond eight classes along cividis, from dark to light.

    Example:
        >>> class_colours(2)
        ('#00366B', '#B2334A')
    """
    if count <= len(CLASS_COLOURS):
        return CLASS_COLOURS[:count]
    cividis = need("matplotlib").colormaps["cividis"]
    to_hex = need("matplotlib.colors").to_hex
    return tuple(to_hex(cividis(0.92 * number / (count - 1))) for number in range(count))


def balanced(panels: int) -> int:
    """How many columns of panels: up to four, so that the last line is as full as may be.

    Example:
        >>> [balanced(panels) for panels in (1, 4, 5, 9, 11)]
        [1, 4, 3, 3, 4]
    """
    return -(-panels // -(-panels // 4))


def bare(axes: "Axes") -> None:
    """Take away the ticks and the frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def show_patch(axes: "Axes", patch: Tensor, *, left: float, top: float, side: float) -> None:
    """Draw a patch ``(C, H, W)``, uint8, on axes whose y grows downward.

    Three channels are color; of others the first is shown.
    """
    axes.imshow(
        patch.movedim(0, -1).numpy() if patch.shape[0] == 3 else patch[0].numpy(),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="none",
        aspect="auto",
        extent=(left, left + side, top + side, top),
    )


def text_width(text: str, *, size: float, weight: str = "normal") -> float:
    """Millimeters that a line of text takes in the figures' letters, of ``size`` points."""
    paths, fonts = need("matplotlib.textpath"), need("matplotlib.font_manager")
    if not text.strip():
        return 0.0
    letters = fonts.FontProperties(family=_SETTINGS["font.family"], weight=weight, size=size)
    width: float = paths.TextPath((0, 0), text, prop=letters).get_extents().width
    return width / 72 * 25.4


def name_in_lines(name: str, *, width: float, size: float) -> str:
    """An arm's name in lines no wider than ``width``, in millimeters, broken before its bank and its options.

    Args:
        name: such as ``genmix:dcgan@pairing=same``.
        width: in millimeters; a part that is wider stays whole.
        size: of the letters, in points.
    """
    lines: list[str] = []
    for part in re.split("(?=[:@])", name):
        if lines and text_width(lines[-1] + part, size=size) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(lines)


def percent(value: float, *, sign: bool = False) -> str:
    """A fraction in per cent, one decimal, with a true minus; a dash for NaN.

    Example:
        >>> percent(-0.0123, sign=True), percent(0.5), percent(0.0, sign=True)
        ('−1.2', '50.0', '0.0')
    """
    if math.isnan(value):
        return DASH
    text = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names, at least one."""
    if isinstance(classes, str) or not len(classes):
        raise InputError(f"classes must be a list of names, got {classes!r}")
    return tuple(classes)


def save_figure(figure: "Figure", path: str | Path, *, description: str = "", dpi: int = DPI) -> None:
    """Save a figure, whole or not at all; the same figure gives the same bytes, for a file holds no date.

    Args:
        figure: what a function of this room returned, or any figure of matplotlib.
        path: ends in ``.pdf``, ``.svg`` or ``.png``; an older file is replaced, and its folder is made if need be.
        description: kept in the file, for whoever finds it alone: where its numbers come from.
        dpi: of a ``.png``.

    Raises:
        InputError: another ending, or a folder that cannot be one.

    Example:
        >>> figure = scores_figure({"baseline": [0.55, 0.57]})  # doctest: +SKIP
        >>> save_figure(figure, "scores.pdf")  # doctest: +SKIP
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS or path.is_dir():
        raise InputError(f"{path}: a figure is a .pdf, .svg or .png file; give such a name")
    check_output_folder(path.parent)
    content = rendered(figure, kind, description=description, dpi=dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)


def rendered(figure: "Figure", kind: str, *, description: str = "", dpi: int = DPI) -> bytes:
    """The bytes of a file of that kind, see :func:`save_figure`."""
    dates: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Subject": description or None},
        "svg": {"Date": None, "Description": description or None},
        "png": {"Software": None, "Description": description or None},
    }
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(
            buffer, format=kind, dpi=dpi, metadata={k: v for k, v in dates[kind].items() if v or k != "Description"}
        )
    return buffer.getvalue()
