"""Draw the table of docs/results/does-genmix-help.md: differences in macro F1 from the baseline, with their intervals.

python docs/figures/forest.py docs/results/does-genmix-help.md docs/assets/forest.svg
"""

import argparse
import re
from pathlib import Path

from svg import BLUE, FAINT, ORANGE, line, rect, save, text

LEFT, PANEL, GAP, ROW, TOP = 170, 170, 22, 22, 46
CELL = re.compile(r"^([+-][\d.]+) \(([+-]?[\d.]+) to ([+-]?[\d.]+)\)$")


def read_table(page: str) -> tuple[list[str], dict[str, list[tuple[float, ...] | None]]]:
    """The columns, and by arm the difference and both ends of its interval in each; None where there is none."""
    start = page.index("| arm | ")
    heading, _, *lines = page[start : page.index("\n\n", start)].splitlines()
    rows = {}
    for row in lines:
        arm, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        found = [CELL.match(cell) for cell in cells]
        if any(found):
            rows[arm] = [tuple(map(float, match.groups())) if match else None for match in found]
    return [cell.strip() for cell in heading.strip("|").split("|")][1:], rows


def main() -> None:
    """Draw it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("page", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    columns, rows = read_table(given.page.read_text(encoding="utf-8"))
    height = TOP + len(rows) * ROW + 50
    bottom = TOP + len(rows) * ROW
    shapes = []
    for number, arm in enumerate(rows):
        y = TOP + number * ROW
        if number % 2 == 0:
            shapes.append(rect(0, y, LEFT + len(columns) * (PANEL + GAP), ROW, fill=FAINT, opacity=0.2))
        bold = 700 if arm.startswith("genmix") else 400
        shapes.append(text(LEFT - 14, y + 15.5, arm, anchor="end", weight=bold))
    for column, name in enumerate(columns):
        x = LEFT + column * (PANEL + GAP)
        there = [row[column] for row in rows.values() if row[column]]
        low, high = min(one[1] for one in there), max(one[2] for one in there)
        scale = PANEL / (high - low)
        step = next(step for step in (2, 5, 10, 20) if (high - low) / step < 6)
        shapes.append(text(x + PANEL / 2, 18, name, anchor="middle", size=15, weight=700))
        for tick in range(-40, 41, step):
            if low <= tick <= high:
                place = x + (tick - low) * scale
                shapes.append(line(place, TOP, place, bottom, stroke="currentColor" if tick == 0 else FAINT))
                shapes.append(text(place, bottom + 18, f"{tick:+d}" if tick else "0", anchor="middle"))
        for number, (arm, row) in enumerate(rows.items()):
            if row[column] is None:
                continue
            middle, start, end = (x + (value - low) * scale for value in row[column])
            y, color = TOP + (number + 0.5) * ROW, ORANGE if arm.startswith("genmix") else BLUE
            shapes.append(line(start, y, end, y, stroke=color, width=2))
            shapes.append(rect(middle - 4, y - 4, 8, 8, fill=color))
    shapes.append(
        text(
            LEFT,
            height - 8,
            "Macro F1 less that of the baseline, points, with 95 % intervals. Each column has its own scale.",
        )
    )
    save(given.out, shapes, width=LEFT + len(columns) * (PANEL + GAP), height=height)


if __name__ == "__main__":
    main()
