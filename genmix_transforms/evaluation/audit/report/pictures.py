"""The pictures of a report, each as the address of a PNG within the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.evaluation.audit.review.pictures import to_png
from genmix_transforms.evaluation.audit.transformations import PARTS, box, margin
from genmix_transforms.files.images import HIGHEST_PIXEL, fit_images
from genmix_transforms.files.pages import data_uri

MOST_SIDE = 96
"""Pixels: larger images are made smaller, so that a page stays small."""

SHOWN_DIFFERENCE = 64
"""Gray levels of 255 that are white in a map of differences."""

_OUTSIDE = (38, 70, 92)
"""Of a map of differences, where nothing was compared: a blue that no gray is taken for."""

_GAP, _GAP_GRAY = 2, 128


@dataclass(frozen=True, kw_only=True)
class Window:
    """Pixel values that are shown black and white: the same in all pictures of a page.

    Args:
        low: black.
        high: white.
    """

    low: int
    high: int

    @classmethod
    def of(cls, images: Tensor) -> "Window":
        """Of 8 bits the whole range; of 16 bits that of these images."""
        if images.dtype == torch.uint8 or not images.numel():
            return cls(low=0, high=HIGHEST_PIXEL[images.dtype])
        values = images.to(torch.int32)
        return cls(low=int(values.min()), high=max(int(values.max()), int(values.min()) + 1))


def picture(image: Tensor, window: Window) -> str:
    """An image ``(C, H, W)`` as the address of a PNG of at most 96 pixels a side."""
    return data_uri(to_png(_small(image[None])[0], low=window.low, high=window.high))


def sheet(images: Tensor, window: Window, *, columns: int) -> str:
    """Images ``(N, C, H, W)`` in rows, as the address of one PNG."""
    tiles = _small(images)
    count, channels, height, width = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    gray = round(window.low + (window.high - window.low) * _GAP_GRAY / 255)
    page = torch.full(
        (channels, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP), gray, dtype=torch.int32
    )
    for number, tile in enumerate(tiles):
        down, across = number // columns * (height + _GAP), number % columns * (width + _GAP)
        page[:, down : down + height, across : across + width] = tile.to(torch.int32)
    return data_uri(to_png(page.to(images.dtype), low=window.low, high=window.high))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is left of a pair when one is taken from the other.

    Args:
        picture: the address of a PNG: black where both are the same, white from 64 gray levels of 255 on, blue where
            nothing was compared.
        mean: gray levels of 255, the mean over what was compared.
    """

    picture: str
    mean: float


def difference(laid: Tensor, real: Tensor, *, part: str) -> Difference:
    """The difference of a synthetic image, laid over a real one, from that one.

    Brightness and contrast are brought to the real image's first, by least squares: a copy with another window is a
    copy.

    Args:
        laid: ``(C, H, W)``, uint8 or uint16.
        real: likewise.
        part: the part that was compared, a name of :data:`PARTS`.
    """
    top = HIGHEST_PIXEL[real.dtype] / 255
    ours, theirs = laid.float() / top, real.float() / top
    side = real.shape[-1]
    number = list(PARTS).index(part)
    inside = torch.zeros(real.shape[-2:], dtype=torch.bool)
    rows, columns = box(number, side, margin(side) if number else 0)
    inside[rows, columns] = True
    x, y = ours[:, inside], theirs[:, inside]
    spread = (x - x.mean()).square().sum()
    gain = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if float(spread) > 0 else 0.0
    left = (gain * (ours - x.mean()) + y.mean() - theirs).abs().mean(dim=0)
    gray = (left * (255 / SHOWN_DIFFERENCE)).clamp(0, 255).round().to(torch.uint8)
    outside = torch.tensor(_OUTSIDE, dtype=torch.uint8)[:, None, None]
    colored = torch.where(inside, gray.expand(3, -1, -1), outside)
    shown = colored if number else gray[None]
    return Difference(picture=data_uri(to_png(_small(shown[None])[0])), mean=float(left[inside].mean()))


def _small(images: Tensor) -> Tensor:
    longest = max(images.shape[-2:])
    return images if longest <= MOST_SIDE else fit_images(images, MOST_SIDE)


def total_bytes(addresses: Sequence[str]) -> int:
    """How much of a page these are."""
    return sum(map(len, addresses))
