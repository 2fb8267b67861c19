"""Draw the time of a mix beside that of v2.MixUp, from the tables of docs/benchmarks/mixing.md.

python docs/figures/speed.py docs/benchmarks/mixing.md docs/assets/speed.svg
"""

import argparse
import re
from pathlib import Path

from svg import BLUE, FAINT, ORANGE, line, rect, save, text

SHAPES = ("(64,3,224,224)", "(8,3,224,224)", "(64,1,64,64)")
NAMES = {
    "timm Mixup batch, in place": "timm Mixup, in place",
    "MONAI MixUp (images only)": "MONAI MixUp, images only",
    "kornia RandomMixUpV2 (labels paired, not mixed)": "kornia RandomMixUpV2",
}
LEFT, PANEL, GAP, ROW, TOP = 190, 200, 40, 26, 46


def read_table(page: str, after: str) -> tuple[list[str], list[list[str]]]:
    """The heading and the rows of the first table after a text."""
    start = page.index("\n|", page.index(after)) + 1
    lines = [[cell.strip() for cell in row.strip("|").split("|")] for row in page[start:].split("\n\n")[0].splitlines()]
    return lines[0], lines[2:]


def main() -> None:
    """Draw it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("page", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    page = given.page.read_text(encoding="utf-8")
    heading, rows = read_table(page, "### float32, 1 thread\n")
    rivals = {row[0]: row for row in rows}
    own_heading, own = read_table(page, "The tables are of the version before")
    ours = next(row for row in own if row[:2] == ["1", "now"])
    bars = {"GenMix": [float(re.search(r"\(([\d.]+)\)", ours[own_heading.index(shape)])[1]) for shape in SHAPES]}
    bars["torchvision v2.MixUp"] = [1.0] * len(SHAPES)
    for there, name in NAMES.items():
        bars[name] = [float(rivals[there][heading.index(shape)].split()[0]) for shape in SHAPES]
    most = max(max(values) for values in bars.values())
    bottom = TOP + len(bars) * ROW
    shapes = [
        text(LEFT - 12, TOP + n * ROW + 17, name, anchor="end", weight=700 if n == 0 else 400)
        for n, name in enumerate(bars)
    ]
    for column, shape in enumerate(SHAPES):
        x, scale = LEFT + column * (PANEL + GAP), PANEL / most
        shapes.append(text(x, 20, shape, size=15, weight=700))
        for number, values in enumerate(bars.values()):
            y = TOP + number * ROW
            shapes.append(rect(x, y + 4, values[column] * scale, ROW - 8, fill=ORANGE if number == 0 else BLUE))
            shapes.append(text(x + values[column] * scale + 5, y + 17, f"{values[column]:.2f}"))
        shapes.append(line(x + scale, TOP, x + scale, bottom, stroke=FAINT))
    shapes.append(
        text(
            LEFT,
            bottom + 24,
            "Time of one call in float32 on one CPU thread, divided by that of v2.MixUp. Shorter is faster.",
        )
    )
    save(given.out, shapes, width=LEFT + len(SHAPES) * (PANEL + GAP), height=bottom + 34)


if __name__ == "__main__":
    main()
