"""A few shapes of SVG for the figures of the site.

Text and lines have the color of the text around them (``currentColor``) where the site puts the picture into the page,
and gray elsewhere. The three other colors can be told from white and from black.
"""

from html import escape
from pathlib import Path

BLUE, ORANGE, FAINT = "#3f7fbf", "#d2691e", "#8888"


def text(x: float, y: float, words: str, *, anchor: str = "start", size: float = 13, weight: int = 400) -> str:
    """Words with the baseline at ``y``."""
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"{bold} fill="currentColor">'
        f"{escape(words)}</text>"
    )


def rect(x: float, y: float, width: float, height: float, *, fill: str, opacity: float = 1) -> str:
    """A filled rectangle; no width or height is none."""
    shade = f' fill-opacity="{opacity:.3g}"' if opacity < 1 else ""
    return f'<rect x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}" fill="{fill}"{shade}/>'


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = "currentColor", width: float = 1) -> str:
    """A line."""
    return f'<line x1="{x1:.4g}" y1="{y1:.4g}" x2="{x2:.4g}" y2="{y2:.4g}" stroke="{stroke}" stroke-width="{width:g}"/>'


def path(points: list[tuple[float, float]], *, stroke: str = "none", fill: str = "none", opacity: float = 1) -> str:
    """Straight lines from point to point; with a color to fill, the area between them."""
    joined = " ".join(f"{x:.4g},{y:.4g}" for x, y in points)
    shade = f' fill-opacity="{opacity:.3g}"' if opacity < 1 else ""
    kind = "polyline" if fill == "none" else "polygon"
    return f'<{kind} points="{joined}" stroke="{stroke}" stroke-width="2" fill="{fill}"{shade}/>'


def save(path: Path, shapes: list[str], *, width: float, height: float) -> None:
    """Write a picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" color="#808080" font-family="sans-serif">'
    )
    path.write_text("\n".join([head, *shapes, "</svg>"]) + "\n", encoding="utf-8")
