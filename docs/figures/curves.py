"""Draw the tables of docs/results/when-it-helps.md: the gain over the baseline against the number of labels.

python docs/figures/curves.py docs/results/when-it-helps.md docs/assets/curves.svg
"""

import argparse
import re
from pathlib import Path

from svg import BLUE, FAINT, ORANGE, line, path, rect, save, text

HEADING = "| less the baseline |"
CELL = re.compile(r"([+-][\d.]+) \(([+-]?[\d.]+) to ([+-]?[\d.]+)\)")
COLORS = (ORANGE, BLUE, "#2f9e6e", "#a066c8", "#c94f6d", "#8a8a8a", "#a67c00", "#4aa8b5")
"""From the arm with the largest gain down. Each line has its name beside it, so that nothing depends on the colors."""

PANEL, HEIGHT, TOP, LEFT, NAMES, LABEL = 330, 330, 40, 44, 190, 16

Row = list[tuple[float, float, float]]


def read_tables(page: str) -> dict[str, tuple[list[str], dict[str, Row]]]:
    """By the section's heading: the numbers of labels, and each arm's differences with both ends of their intervals."""
    found = {}
    for part in page.split("\n### ")[1:]:
        if HEADING in part:
            start = part.index(HEADING)
            end = part.find("\n\n", start)
            heading, _, *lines = part[start : None if end < 0 else end].strip().splitlines()
            rows = {}
            for each in lines:
                arm, *cells = (cell.strip(" *") for cell in each.strip("|").split("|"))
                values = [tuple(map(float, match.groups())) for cell in cells if (match := CELL.search(cell))]
                if len(values) == len(cells):
                    rows[arm] = values
            found[part.splitlines()[0]] = ([cell.strip() for cell in heading.strip("|").split("|")][1:], rows)
    return found


def apart(heights: list[float], least: float) -> list[float]:
    """The same heights, from the top down, moved down where two are closer than ``least``."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + least) if placed else height)
    return placed


def draw_panel(x: float, title: str, labels: list[str], rows: dict[str, Row], low: float, high: float) -> list[str]:
    """One data set."""
    places = [x + (number + 0.3) * PANEL / len(labels) for number in range(len(labels))]

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * HEIGHT

    shapes = [text(x, 18, title, size=15, weight=700)]
    step = 2 if high - low < 16 else 4
    for tick in range(-40, 41, step):
        if low <= tick <= high:
            end = places[-1] + 6
            shapes.append(line(x, y(tick), end, y(tick), stroke="currentColor" if tick == 0 else FAINT))
            shapes.append(text(x - 8, y(tick) + 4, f"{tick:+d}" if tick else "0", anchor="end"))
    for place, label in zip(places, labels, strict=True):
        shapes.append(text(place, TOP + HEIGHT + 20, label, anchor="middle"))
    order = sorted(rows, key=lambda arm: -rows[arm][-1][0])
    by_gain = sorted(rows, key=lambda arm: -sum(value for value, _, _ in rows[arm]))
    names = apart([y(rows[arm][-1][0]) + 4 for arm in order], LABEL)
    for arm in reversed(order):
        color, row = COLORS[by_gain.index(arm) % len(COLORS)], rows[arm]
        band = [(place, y(top)) for place, (_, _, top) in zip(places, row, strict=True)]
        band += [(place, y(bottom)) for place, (_, bottom, _) in reversed(list(zip(places, row, strict=True)))]
        shapes.append(path(band, fill=color, opacity=0.12))
        middle = [(place, y(value)) for place, (value, _, _) in zip(places, row, strict=True)]
        shapes.append(path(middle, stroke=color))
        shapes += [rect(px - 3, py - 3, 6, 6, fill=color) for px, py in middle]
        beside = names[order.index(arm)]
        shapes.append(line(places[-1] + 6, middle[-1][1], places[-1] + 18, beside - 4, stroke=color))
        shapes.append(text(places[-1] + 22, beside, arm, size=12))
    return shapes


def main() -> None:
    """Draw it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("page", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    tables = read_tables(given.page.read_text(encoding="utf-8"))
    ends = [end for _, rows in tables.values() for row in rows.values() for _, *both in row for end in both]
    low, high = min(ends) - 0.5, max(ends) + 0.5
    shapes = []
    for number, (title, (labels, rows)) in enumerate(tables.items()):
        shapes += draw_panel(LEFT + number * (PANEL + NAMES), title, labels, rows, low, high)
    words = (
        "Labels a class. Macro F1 less that of the baseline, points; bands are 95 % intervals over draws and patients."
    )
    shapes.append(text(LEFT, TOP + HEIGHT + 46, words))
    save(given.out, shapes, width=LEFT + len(tables) * (PANEL + NAMES), height=TOP + HEIGHT + 58)


if __name__ == "__main__":
    main()
