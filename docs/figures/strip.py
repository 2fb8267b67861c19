"""Draw the README's picture: real patches, synthetic partners, and what GenMix makes of the two.

    genmix demo
    python docs/figures/strip.py genmix-demo/bank docs/assets/strip.png

The real patches are the demo's phantom. Text and gaps are drawn for light and dark pages alike: gray, on nothing.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.cli.demo import ENLARGE, NOISE, SIZE
from genmix_transforms.data import LesionPhantom
from genmix_transforms.files.sheet import save_picture

CELL, GAP, MARGIN, COLUMNS = 104, 8, 96, 7
INK = (128, 128, 128, 255)


def patch(image: torch.Tensor) -> Image.Image:
    """A gray image ``(1, H, W)`` in [0, 1], enlarged."""
    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.BICUBIC).convert("RGBA")


def main() -> None:
    """Draw it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bank", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--seed", type=int, default=2, help="which patches, partners and lambdas")
    given = options.parse_args()
    train, _, _ = LesionPhantom(size=SIZE, noise=NOISE, enlarge=ENLARGE).dataset().split()
    bank = SyntheticBank.load(given.bank, classes=train.classes)
    generator = torch.Generator().manual_seed(given.seed)
    order = torch.randperm(len(train), generator=generator)
    rows = [order[train.labels[order] == label][: COLUMNS // 3 + 1] for label in range(3)]
    chosen = torch.stack([row[column] for column in range(COLUMNS // 3 + 1) for row in rows])[:COLUMNS]
    images, labels = train.images[chosen] / 255, train.labels[chosen]
    genmix = GenMix(bank, generator=generator)
    mixed, soft = genmix(images, labels)
    lam = genmix.params["lam"].flatten()
    lines = (images, bank.images[genmix.params["index"]] / 255, mixed)
    text = 44
    sheet = Image.new("RGBA", (MARGIN + COLUMNS * (CELL + GAP), 3 * (CELL + GAP) + text), (0, 0, 0, 0))
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(size=15), ImageFont.load_default(size=13)
    for row, (title, line) in enumerate(zip(("real", "synthetic", "mixed"), lines, strict=True)):
        y = row * (CELL + GAP)
        pen.text((0, y + CELL // 2), title, font=font, fill=INK, anchor="lm")
        for column, image in enumerate(line):
            sheet.paste(patch(image), (MARGIN + column * (CELL + GAP), y))
    for column in range(COLUMNS):
        x = MARGIN + column * (CELL + GAP) + CELL // 2
        y = 3 * (CELL + GAP)
        pen.text((x, y), f"lambda {lam[column]:.2f}", font=font, fill=INK, anchor="mt")
        share, label = soft[column].max(dim=0)
        pen.text((x, y + 22), f"{share:.0%} {train.classes[label]}", font=small, fill=INK, anchor="mt")
    save_picture(sheet, given.out)


if __name__ == "__main__":
    main()
