"""What may have been done to a copied image: turned, flipped, zoomed, shifted, cut, inverted."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FLIPS_AND_QUARTERS = 8
"""Four quarter turns, mirrored or not."""

SHIFT = 0.08
"""The largest shift that is looked for, as a share of the side."""

WARPS = ((0.0, 1.0), (-10.0, 1.0), (-5.0, 1.0), (5.0, 1.0), (10.0, 1.0), (0.0, 0.93), (0.0, 1.07))
"""Turns in degrees and zooms of the exhaustive search. What lies between them is found when candidates are aligned."""

WHOLE = "whole"
PARTS = {
    WHOLE: (0.0, 1.0, 0.0, 1.0),
    "upper half": (0.0, 0.5, 0.0, 1.0),
    "lower half": (0.5, 1.0, 0.0, 1.0),
    "left half": (0.0, 1.0, 0.0, 0.5),
    "right half": (0.0, 1.0, 0.5, 1.0),
    "upper left quarter": (0.0, 0.5, 0.0, 0.5),
    "upper right quarter": (0.0, 0.5, 0.5, 1.0),
    "lower left quarter": (0.5, 1.0, 0.0, 0.5),
    "lower right quarter": (0.5, 1.0, 0.5, 1.0),
}
"""The parts of a training image that are compared: first and last row, first and last column, as shares of the side."""

FAMILIES = ((0,), (1, 2, 3, 4), (5, 6, 7, 8))
"""Numbers of the parts that are alike by chance equally often: the whole, halves, quarters."""

IN_PLACE = (0, 4)
"""Ways to flip and turn in which parts are compared: as they are, and mirrored left to right."""

_BESIDE = 1
"""Pixels between a part and what stands beside it that are not compared: texture reaches across."""


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """What lays a synthetic image over its nearest training image.

    Args:
        mirrored: mirrored left to right, first of all.
        quarters: then turned by so many quarters, counterclockwise.
        angle: then turned by so many degrees.
        zoom: and enlarged so many times.
        shift: then shifted down and right, as shares of the side.
        inverted: light and dark change places.
        part: the part of the training image that is compared, of :data:`PARTS`.
    """

    mirrored: bool = False
    quarters: int = 0
    angle: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    inverted: bool = False
    part: str = WHOLE

    def apply(self, images: Tensor) -> Tensor:
        """Lay synthetic images over their training image: flip, turn, zoom, shift, invert; of the same part all.

        Args:
            images: uint8 or uint16 ``(N, C, S, S)``.

        Returns:
            The same type and shape; borders are mirrored where something from outside would be seen.
        """
        most = torch.iinfo(images.dtype).max if images.dtype == torch.uint8 else 65535
        values = images.to(torch.float32)
        values = flip_and_turn(values, 4 * self.mirrored + self.quarters)
        side = images.shape[-1]
        values = warp(values, self.angle, self.zoom, move=(self.shift[0] * side, self.shift[1] * side))
        values = most - values if self.inverted else values
        return values.round().clamp(0, most).to(images.dtype)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON can hold them."""
        return {**asdict(self), "shift": list(self.shift)}

    @property
    def text(self) -> str:
        """In words.

        Example:
            >>> Transformation(mirrored=True, shift=(0.05, 0.0)).text
            'mirrored, shifted by 5 %'
            >>> Transformation(quarters=2, angle=-4.0).text
            'turned by 176 degrees'
            >>> Transformation().text
            'as it is'
        """
        far = max(map(abs, self.shift))
        turn = 90 * self.quarters + (self.angle if abs(self.angle) >= 1 else 0.0)
        turn = turn - 360 if turn > 180 else turn
        said = [
            "mirrored" if self.mirrored else "",
            f"turned by {turn:.0f} degrees" if turn else "",
            f"zoomed {self.zoom:.2f} times" if abs(self.zoom - 1) >= 0.02 else "",
            f"shifted by {100 * far:.0f} %" if far >= 0.015 else "",
            "inverted" if self.inverted else "",
            f"{self.part} only" if self.part != WHOLE else "",
        ]
        return ", ".join(filter(None, said)) or "as it is"


def flip_and_turn(images: Tensor, number: int) -> Tensor:
    """One of the eight ways to flip and turn square images ``(N, C, S, S)`` by quarters: mirrored from number 4 on."""
    mirrored, quarters = divmod(number, 4)
    return (images.flip(-1) if mirrored else images).rot90(quarters, (-2, -1))


def warp(
    images: Tensor, angle: Tensor | float, zoom: Tensor | float, *, move: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    """Turn and enlarge images about their middle, then move them, bilinear, borders mirrored.

    Args:
        images: float ``(N, C, S, S)``.
        angle: degrees, counterclockwise, one or one an image.
        zoom: times, likewise.
        move: pixels down and right.
    """
    count, device = len(images), images.device
    angle = torch.deg2rad(torch.as_tensor(angle, dtype=torch.float32, device=device)).expand(count)
    zoom = torch.as_tensor(zoom, dtype=torch.float32, device=device).expand(count)
    # Where each pixel of the result is taken from; rows count downward.
    cos, sin = (angle.cos() / zoom)[:, None, None], (angle.sin() / zoom)[:, None, None]
    side = images.shape[-1]
    at = (torch.arange(side, device=device) * 2 + 1) / side - 1
    across, down = at[None, None] - 2 * move[1] / side, at[None, :, None] - 2 * move[0] / side
    grid = torch.stack([cos * across - sin * down, sin * across + cos * down], dim=3)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def margin(side: int) -> int:
    """How many pixels of each border a comparison leaves out, so that a shift brings nothing in from outside."""
    return max(1, math.ceil(SHIFT * side - 0.5))


def box(part: int, side: int, border: int) -> tuple[slice, slice]:
    """Rows and columns of a part of images, without the images' borders and what touches other parts."""
    top, bottom, left, right = list(PARTS.values())[part]
    return _within(top, bottom, side, border), _within(left, right, side, border)


def _within(first: float, last: float, side: int, border: int) -> slice:
    start = border if first == 0 else round(first * side) + _BESIDE
    stop = side - border if last == 1 else round(last * side) - _BESIDE
    return slice(start, stop)
