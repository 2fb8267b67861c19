"""The phantom's lesions brought to a real slice: how much of each pixel they cover, and with what."""

from dataclasses import dataclass, replace

import numpy as np

from genmix_transforms.data.phantom_lesions import LESIONS, Liver, Outline
from genmix_transforms.data.phantom_scanner import Array, Grid

PHANTOM_LEVEL = 100.0
"""HU of the parenchyma that the phantom's lesions are described in."""

THICKNESS = (3.0, 5.0)
"""Thickness of the slices in the paper, mm: a small lesion shares its slice with the liver above and below it."""

BLUR = 0.6
"""Standard deviation of the scanner's point spread in the plane, mm."""

_SUBPIXELS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Footprint:
    """A lesion as the scanner would see it without noise.

    Args:
        coverage: ``(size, size)``, float32 in [0, 1], its share of each pixel (partial volume and point spread).
        content: ``(size, size)``, float32, HU times coverage: a pixel is ``(1 - coverage) * liver + content``.
    """

    coverage: Array
    content: Array


def draw_lesion(label: str, rng: np.random.Generator, *, largest: float) -> tuple[Outline, float]:
    """A lesion's outline, no longer than ``largest`` mm, and the thickness of the slice through it, mm."""
    draw_outline, _ = LESIONS[label]
    outline = draw_outline(rng)
    return replace(outline, diameter=min(outline.diameter, largest)), float(rng.uniform(*THICKNESS))


def render_footprint(
    label: str,
    outline: Outline,
    rng: np.random.Generator,
    *,
    thickness: float,
    level: float,
    size: int,
    pixel_spacing: float,
) -> Footprint:
    """Paint a lesion and look at it through the scanner.

    Args:
        label: its class.
        outline: its surface; the center is that of pixel ``(size // 2, size // 2)``, give or take ``outline.centre``.
        rng: of what is inside.
        thickness: of the slice, mm.
        level: of the parenchyma about it, HU. The phantom's Hounsfield scale is stretched between water and
            parenchyma, so that its contrast is relative to this liver, and shifted above.
        size: side of the window, pixels.
        pixel_spacing: mm.
    """
    _, paint = LESIONS[label]
    grid = Grid(side=outline.patch_side, spacing=pixel_spacing / _SUBPIXELS, thickness=thickness)
    liver = Liver(parenchyma=PHANTOM_LEVEL, vessels=PHANTOM_LEVEL + float(rng.uniform(30, 60)))
    state = rng.bit_generator.state
    content = np.zeros((len(grid.levels), grid.count, grid.count), dtype=np.float32)
    paint(content, grid, outline, liver, rng)
    # All paint is a share of the new value and the rest of the old one: painted again upon 1 instead of 0, the
    # difference is what was left of the old.
    rng.bit_generator.state = state
    left = np.ones_like(content)
    paint(left, grid, outline, liver, rng)
    coverage = np.clip(1 - (left - content), 0, 1)
    value = content / np.maximum(coverage, np.float32(1e-3))
    value = np.where(value < PHANTOM_LEVEL, value * np.float32(level / PHANTOM_LEVEL), value + (level - PHANTOM_LEVEL))
    coverage *= _fade(grid, outline)
    weights = _pixel_weights(grid, size, pixel_spacing)
    seen, filled = (weights @ planes.mean(axis=0) @ weights.T for planes in (coverage, coverage * value))
    return Footprint(coverage=np.clip(seen, 0, 1), content=filled)


def _fade(grid: Grid, outline: Outline) -> Array:
    """1 about the lesion, falling to 0 at the sides of its patch, ``(1, n, n)``: a feeding vessel leaves the slice."""
    distance = np.sqrt(grid.x**2 + grid.y**2)
    fade: Array = np.clip((np.float32(outline.patch_side / 2) - distance) / 4, 0, 1)
    return fade


def _pixel_weights(grid: Grid, size: int, pixel_spacing: float) -> Array:
    """The share of every point of the grid's axis in every pixel, ``(size, n)``: point spread and the pixel's width."""
    # A pixel's box has a variance of its width squared over 12.
    sigma = np.sqrt(BLUR**2 + pixel_spacing**2 / 12)
    # The axis goes on past the grid, where there is no lesion: pixels there see less of it, or nothing.
    beyond = int(np.ceil((size * pixel_spacing / 2 + 4 * sigma) / grid.spacing))
    axis = np.arange(-beyond, grid.count + beyond) * grid.spacing + float(grid.axis[0])
    distance = ((np.arange(size) - size // 2)[:, None] * pixel_spacing - axis[None, :]) / sigma
    weights = np.where(np.abs(distance) < 3, np.exp(-0.5 * distance**2), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights[:, beyond : beyond + grid.count].astype(np.float32)
