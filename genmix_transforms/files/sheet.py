"""Contact sheets: rows of images with their names, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.atomic import write_bytes
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.images import encode_png, to_picture

_GAP = 2
_BACKGROUND = 255
_INK = 0


def to_eight_bits(images: Tensor) -> Tensor:
    """Integer images as uint8 for display: uint16 is scaled from its own range."""
    if images.dtype == torch.uint8:
        return images
    values = images.to(torch.int32)
    low, high = (int(values.min()), int(values.max())) if values.numel() else (0, 1)
    return ((values - low).float() * (255 / max(1, high - low))).round().to(torch.uint8)


def as_pictures(images: Tensor) -> Tensor:
    """What a picture can show of images: of a volume its middle slice, of a stack of slices the middle one.

    Args:
        images: ``(N, C, H, W)`` or ``(N, C, D, H, W)``. Five channels or more are a stack; three are colors.

    Returns:
        ``(N, C, H, W)``, C below five.

    Example:
        >>> as_pictures(torch.arange(5).view(1, 1, 5, 1, 1)).flatten()
        tensor([2])
    """
    if images.ndim == 5:
        images = images[:, :, images.shape[2] // 2]
    middle = images.shape[1] // 2
    return images if images.shape[1] < 5 else images[:, middle : middle + 1]


def draw_sheet(
    rows: Sequence[Tensor],
    titles: Sequence[str],
    *,
    headings: Sequence[tuple[str, int]] = (),
    magnify: int | None = None,
) -> Image.Image:
    """Draw rows of images.

    Args:
        rows: each ``(n, C, H, W)`` or ``(n, C, D, H, W)``, uint8 or uint16, all of one shape. Three channels are
            colors. Stacks and volumes show what :func:`as_pictures` takes of them, other channel counts their first.
        titles: a name for each row, written to its left.
        headings: texts over the columns, each with the number of columns it spans; nothing is written without them.
        magnify: whole-number enlargement; None enlarges small patches to about 96 pixels.
    """
    height, width = rows[0].shape[-2:]
    magnify = magnify or max(1, 96 // max(height, width))
    cell_height, cell_width = height * magnify + _GAP, width * magnify + _GAP
    font = ImageFont.load_default(size=14)
    longest = max(font.getlength(text) for title in titles for text in title.split("\n"))
    margin = int(longest) + 12
    top = 24 if headings else _GAP
    columns = max(row.shape[0] for row in rows)
    sheet = Image.new("RGB", (margin + columns * cell_width, top + len(rows) * cell_height), (_BACKGROUND,) * 3)
    pen = ImageDraw.Draw(sheet)
    column = 0
    for text, span in headings:
        pen.text((margin + column * cell_width, 4), text, font=font, fill=(_INK,) * 3)
        column += span
    for number, (row, title) in enumerate(zip(rows, titles, strict=True)):
        y = top + number * cell_height
        pen.text((4, y + cell_height // 2), title, font=font, fill=(_INK,) * 3, anchor="lm")
        for column, image in enumerate(to_eight_bits(as_pictures(row.detach()).cpu())):
            patch = to_picture(image).resize((width * magnify, height * magnify), Image.Resampling.NEAREST)
            sheet.paste(patch, (margin + column * cell_width, y))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Save a picture as PNG, whole or not at all; its folder is made if need be."""
    if path.suffix.lower() != ".png" or path.is_dir():
        raise InputError(f"{path}: a picture is a .png file; give such a name")
    check_output_folder(path.parent)
    content = encode_png(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
