"""Draw the picture of the rooms, from what the source files import.

    python docs/figures/rooms.py docs/assets/rooms.svg

A room stands above every room that it imports. An arrow that others say already is left out: where A imports B and
B imports C, none goes from A to C. The boxes bring their own ground, and the arrows are gray: the picture is read on a
light page and on a dark one.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2] / "genmix_transforms"

WIDTH, HEIGHT, GAP, RISE = 620, 62, 40, 44
"""Of a box across the whole picture, between boxes side by side, and between rows; SVG units."""

GROUND, EDGE, INK, QUIET, ARROW = "#eef2f6", "#8795a1", "#1f2933", "#3e4c59", "#808a94"


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a source file imports from this package, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def read_rooms(root: Path = ROOT) -> dict[str, set[str]]:
    """The packages directly in ``root``, each with those that its files import."""
    rooms = sorted(folder.name for folder in root.iterdir() if (folder / "__init__.py").is_file())
    found: dict[str, set[str]] = {}
    for room in rooms:
        names = {name for path in (root / room).rglob("*.py") for name in imported(path)}
        parts = [name.split(".") for name in names if name.startswith(f"{root.name}.")]
        found[room] = {part[1] for part in parts if part[1] in rooms} - {room}
    return found


def floors(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """How high each room stands: 0 for one that imports no other, else one more than the highest it imports.

    Raises:
        ValueError: rooms that import each other in a circle.

    Example:
        >>> floors({"cli": {"bank", "files"}, "bank": {"files"}, "files": set()})
        {'files': 0, 'bank': 1, 'cli': 2}
    """
    heights: dict[str, int] = {}
    while len(heights) < len(rooms):
        ready = [room for room in rooms if room not in heights and rooms[room] <= heights.keys()]
        if not ready:
            raise ValueError(f"rooms in a circle: {', '.join(sorted(rooms.keys() - heights.keys()))}")
        heights |= {room: 1 + max((heights[below] for below in rooms[room]), default=-1) for room in ready}
    return heights


def arrows(rooms: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Who imports whom, without what follows from the rest.

    Example:
        >>> arrows({"cli": {"bank", "files"}, "bank": {"files"}, "files": set()})
        [('bank', 'files'), ('cli', 'bank')]
    """

    def reaches(room: str) -> set[str]:
        return rooms[room].union(*map(reaches, rooms[room]))

    return sorted(
        (room, below)
        for room, others in rooms.items()
        for below in others
        if not any(below in reaches(other) for other in others - {below})
    )


def summary(room: str, root: Path = ROOT) -> str:
    """What a room says of itself: the first line of its docstring, without its full stop."""
    text = ast.get_docstring(ast.parse((root / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].replace("``", "").removesuffix(".")


def draw(rooms: Mapping[str, set[str]], summaries: Mapping[str, str]) -> str:
    """The picture, as SVG."""
    heights = floors(rooms)
    top = max(heights.values())
    into = [below for _, below in arrows(rooms)]  # a box that few arrows reach stands at the left: none cross
    boxes: dict[str, tuple[float, float, float]] = {}  # left, top, width
    for height in range(top + 1):
        row = sorted((room for room in rooms if heights[room] == height), key=lambda room: (into.count(room), room))
        width = (WIDTH - GAP * (len(row) - 1)) / len(row)
        for place, room in enumerate(row):
            boxes[room] = (1 + place * (width + GAP), 1 + (top - height) * (HEIGHT + RISE), width)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2} {(top + 1) * (HEIGHT + RISE) - RISE + 2}" '
        'role="img" font-family="system-ui, sans-serif">',
        "<title>The rooms of the package: each imports only rooms below it</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{ARROW}"/></marker></defs>',
    ]
    for room, below in arrows(rooms):
        x1, x2 = _meeting(boxes[room], boxes[below])
        y1, y2 = boxes[room][1] + HEIGHT, boxes[below][1] - 2
        way = f"M{x1:g} {y1:g}L{x2:g} {y2:g}"
        lines.append(f'<path d="{way}" stroke="{ARROW}" stroke-width="2" fill="none" marker-end="url(#tip)"/>')
    for room, (left, above, width) in boxes.items():
        place = f'x="{left:g}" y="{above:g}" width="{width:g}" height="{HEIGHT}"'
        lines.append(f'<rect {place} rx="6" fill="{GROUND}" stroke="{EDGE}"/>')
        lines.append(_text(f"{room}/", left, above + 24, f'font-size="16" font-weight="600" fill="{INK}"'))
        for number, part in enumerate(_wrapped(summaries[room], width)):
            lines.append(_text(part, left, above + 41 + 14 * number, f'font-size="12" fill="{QUIET}"'))
    return "\n".join([*lines, "</svg>", ""])


def _text(text: str, left: float, baseline: float, style: str) -> str:
    return f'<text x="{left + 14:g}" y="{baseline:g}" {style}>{escape(text)}</text>'


def _meeting(upper: tuple[float, float, float], lower: tuple[float, float, float]) -> tuple[float, float]:
    """Where an arrow leaves one box and meets another: straight down, at the middle of what they share."""
    left, right = max(upper[0], lower[0]), min(upper[0] + upper[2], lower[0] + lower[2])
    middle = (left + right) / 2
    return (middle, middle) if left < right else (upper[0] + upper[2] / 2, lower[0] + lower[2] / 2)


def _wrapped(text: str, width: float) -> list[str]:
    """At most two lines of so many SVG units, at about 6 units a letter."""
    letters, lines = int((width - 28) / 6), [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines if len(lines) <= 2 else [lines[0], f"{lines[1].rstrip(',;:')} ..."]


def main() -> None:
    """Draw it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    rooms = read_rooms()
    options.parse_args().out.write_text(draw(rooms, {room: summary(room) for room in rooms}), encoding="utf-8")


if __name__ == "__main__":
    main()
