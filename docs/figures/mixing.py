"""Draw the pictures of docs/concepts/mixing.md: how lambda is distributed, what it does, and who partners whom.

python docs/figures/mixing.py docs/assets
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from svg import BLUE, FAINT, ORANGE, line, rect, save, text

from genmix_transforms import SyntheticBank
from genmix_transforms.cli.demo import ENLARGE, NOISE, SIZE
from genmix_transforms.data import LesionPhantom
from genmix_transforms.files.sheet import save_picture
from genmix_transforms.transforms import functional, pairing_matrix

ALPHA, BINS = 0.3, 20
PAIRINGS = ("any", "balanced", "same", "other", "inverse")
CLASSES = ("cyst", "hemangioma", "metastasis")
LAMBDAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
CELL, GAP = 104, 8


def draw_histogram(path: Path) -> None:
    """Draw the share of draws in each twentieth, from the distribution function: no sampling noise."""
    width, height, left, top, bottom = 640, 300, 50, 20, 50
    across, up = (width - left - 10) / BINS, (height - top - bottom) / 0.45
    ground = height - bottom
    shapes = []
    for percent in (0, 10, 20, 30, 40):
        y = ground - percent / 100 * up
        shapes += [line(left, y, width - 10, y, stroke=FAINT), text(left - 8, y + 4, f"{percent} %", anchor="end")]
    for number in range(BINS):
        share = ((number + 1) / BINS) ** ALPHA - (number / BINS) ** ALPHA
        x = left + number * across
        shapes.append(rect(x + 1, ground - share * up, across - 2, share * up, fill=BLUE))
        if number % 4 == 0:
            shapes.append(text(x, ground + 18, f"{number / BINS:g}", anchor="middle"))
    shapes.append(text(width - 10, ground + 18, "1", anchor="middle"))
    shapes.append(
        text(left + (width - left) / 2, height - 8, "lambda, the weight of the synthetic image", anchor="middle")
    )
    # (share of lambda)**alpha = 1/2 at the median.
    for place, words, y in ((0.5 ** (1 / ALPHA), "median", top + 18), (ALPHA / (1 + ALPHA), "mean", top + 44)):
        x = left + place * across * BINS
        shapes += [line(x, y - 12, x, ground, stroke=ORANGE, width=2), text(x + 6, y, f"{words} {place:.2f}")]
    save(path, shapes, width=width, height=height)


def draw_pairings(path: Path) -> None:
    """Draw the matrices that the page prints."""
    bank = SyntheticBank(
        torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 1, 2, 2, 2]), classes=CLASSES
    )
    side, left, top, gap = 44, 96, 48, 16
    width = left + len(PAIRINGS) * (3 * side + gap) - gap
    height = top + 3 * side + 50
    shapes = [text(left - 10, top + (row + 0.6) * side, name, anchor="end") for row, name in enumerate(CLASSES)]
    for number, pairing in enumerate(PAIRINGS):
        x = left + number * (3 * side + gap)
        shapes.append(text(x + 1.5 * side, 18, pairing, anchor="middle", size=15, weight=700))
        for row, values in enumerate(pairing_matrix(pairing, bank, class_counts=[433, 70, 178]).tolist()):
            for column, value in enumerate(values):
                place = (x + column * side, top + row * side)
                shapes.append(rect(*place, side - 2, side - 2, fill=FAINT, opacity=0.25))
                shapes.append(rect(*place, side - 2, side - 2, fill=BLUE, opacity=0.75 * value))
                shapes.append(text(place[0] + side / 2 - 1, place[1] + 26, f"{value:.2f}", anchor="middle", size=12))
        for column, name in enumerate(CLASSES):
            shapes.append(text(x + (column + 0.5) * side, top - 8, f"{name[:4]}.", anchor="middle", size=12))
    shapes.append(text(left, height - 26, "Rows: class of the real image. Columns: class of its synthetic partner."))
    shapes.append(text(left, height - 8, "Bank: 4 cysts, 1 hemangioma, 3 metastases. Real data: 433, 70, 178."))
    save(path, shapes, width=width, height=height)


def draw_strip(path: Path) -> None:
    """Draw two patches of the phantom and their mixtures."""
    train, _, _ = LesionPhantom(size=SIZE, noise=NOISE, enlarge=ENLARGE).dataset().split()
    real, synthetic = (
        train.images[train.labels == label][number : number + 1] / 255 for label, number in ((0, 3), (2, 5))
    )
    count, text_height = len(LAMBDAS), 26
    sheet = Image.new("RGBA", (count * (CELL + GAP) - GAP, CELL + text_height), (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    weight = torch.tensor([1.0])
    for column, lam in enumerate(LAMBDAS):
        mixed, _ = functional.genmix(real, weight[None], synthetic, weight[None], torch.tensor([lam]))
        pixels = Image.fromarray((mixed[0, 0] * 255).round().to(torch.uint8).numpy())
        x = column * (CELL + GAP)
        sheet.paste(pixels.resize((CELL, CELL), Image.Resampling.BICUBIC).convert("RGBA"), (x, 0))
        pen.text((x + CELL // 2, CELL + 6), f"lambda {lam:g}", font=font, fill=(128, 128, 128, 255), anchor="mt")
    save_picture(sheet, path)


def main() -> None:
    """Draw them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    folder = options.parse_args().folder
    draw_histogram(folder / "lambda.svg")
    draw_pairings(folder / "pairings.svg")
    draw_strip(folder / "lambda-strip.png")


if __name__ == "__main__":
    main()
