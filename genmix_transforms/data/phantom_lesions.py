"""The phantom's anatomy: liver, vessels, and the three kinds of focal lesion, in Hounsfield units and millimeters.

Everything is painted into ``planes`` ``(levels, n, n)``, the object at the points of a
:class:`~genmix_transforms.data.phantom_scanner.Grid`, before the scanner blurs it and adds its noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.phantom_scanner import Array, Grid

Vector = NDArray[np.float64]

DIAMETERS = (6.0, 40.0)
"""The smallest and the largest lesion, mm."""

# How far a vein's heading (a unit vector) strays at each step and at a branch; less along z, where slices are thick.
_TURNING = np.array([0.18, 0.18, 0.10])
_BRANCHING = np.array([0.7, 0.7, 0.4])

_THINNEST = 0.45
"""Radius below which veins drown in the noise and are not painted, mm."""


@dataclass(frozen=True, kw_only=True)
class Liver:
    """A patient's liver in the portal-venous phase.

    Args:
        parenchyma: mean of the liver tissue, HU.
        vessels: portal and hepatic veins, HU.
    """

    parenchyma: float
    vessels: float


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A lesion's surface: a spheroid, flattened in the plane of the slice and waved around its circumference.

    Args:
        diameter: the longest, mm.
        flattening: short over long axis, in (0, 1].
        tilt: direction of the long axis, radians.
        waves: ``(n, 2)``, relative amplitude and phase of the circumference's waves number 2, 3, ...
        centre: ``(x, y, z)`` from the middle of the patch, mm.
    """

    diameter: float
    flattening: float
    tilt: float
    waves: Vector
    centre: Vector

    @property
    def radius(self) -> float:
        """Half the longest diameter, mm."""
        return self.diameter / 2

    @property
    def patch_side(self) -> float:
        """Side of the patch cropped around the lesion, mm: its bounding box, a little more, and a margin of liver."""
        return 1.2 * self.diameter + 12.0

    def depth(self, grid: Grid) -> Array:
        """How deep every point lies under the surface, ``(levels, n, n)``, mm; negative outside."""
        x, y, z = (
            axis - np.float32(middle) for axis, middle in zip((grid.x, grid.y, grid.z), self.centre, strict=True)
        )
        cos, sin = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        along = x * cos + y * sin
        across = (y * cos - x * sin) / np.float32(self.flattening)
        surface = self._surface(np.arctan2(across, along))
        surface *= np.float32(self.radius) / self._surface(np.linspace(0, 2 * np.pi, 64, dtype=np.float32)).max()
        return surface - np.sqrt(along**2 + across**2 + z**2)

    def _surface(self, angle: Array) -> Array:
        surface = np.ones_like(angle)
        for number, (amplitude, phase) in enumerate(self.waves.astype(np.float32), start=2):
            surface += amplitude * np.cos(number * angle + phase)
        return surface


def draw_outline(
    rng: np.random.Generator, *, median: float, spread: float, flattening: tuple[float, float], waviness: float
) -> Outline:
    """Draw a surface, its diameter log-normal (``spread`` is that of the logarithm) within ``DIAMETERS``.

    ``waviness`` is the relative amplitude of the second wave; the others fall off with their number.
    """
    waves = waviness / np.arange(1.0, 6.0) * rng.standard_normal(5)
    diameter = float(np.clip(median * np.exp(spread * rng.standard_normal()), *DIAMETERS))
    off_centre = 0.02 * diameter + 0.3  # whoever crops a patch does not hit the middle exactly
    return Outline(
        diameter=diameter,
        flattening=float(rng.uniform(*flattening)),
        tilt=float(rng.uniform(0, np.pi)),
        waves=np.stack([waves, rng.uniform(0, 2 * np.pi, 5)], axis=1),
        centre=np.array([*rng.normal(0, off_centre, 2), rng.uniform(-1, 1)]),
    )


def ramp(depth: Array, width: float) -> Array:
    """0 outside, 1 inside, smoothly over ``width`` mm about depth 0."""
    t: Array = np.clip(depth * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def paint_parenchyma(grid: Grid, liver: Liver, rng: np.random.Generator) -> Array:
    """Liver tissue, ``(levels, n, n)``, HU: even but for a little perfusion, fat and the smallest vessels."""
    tissue = np.float32(liver.parenchyma) + 4 * grid.texture(rng, 2.0) + 4 * grid.texture(rng, 7.0)
    return np.repeat(tissue[None], len(grid.levels), axis=0)


def paint_vessels(planes: Array, grid: Grid, liver: Liver, rng: np.random.Generator) -> None:
    """Paint branching veins: some run along the slice, more cross it."""
    side = grid.side
    for _ in range(rng.poisson(0.5 + side / 24)):
        start = _on_edge(rng, side)
        target = np.array([*rng.uniform(-0.45 * side, 0.45 * side, 2), rng.normal(0, 3)])
        radius = float(np.clip(1.5 * np.exp(0.45 * rng.standard_normal()), 0.4, 4.0))
        paint_vein(planes, grid, liver, rng, start=start, heading=target - start, radius=radius, reach=1.6 * side)
    for _ in range(rng.poisson(side**2 / 450)):
        crossing = np.array([*rng.uniform(-0.55 * side, 0.55 * side, 2), 0.0])
        heading = np.array([0.5, 0.5, 1.0]) * rng.standard_normal(3)
        start = crossing - 6 * heading / np.linalg.norm(heading)
        radius = float(np.clip(1.2 * np.exp(0.45 * rng.standard_normal()), 0.4, 4.0))
        paint_vein(planes, grid, liver, rng, start=start, heading=heading, radius=radius, reach=12.0)


def _on_edge(rng: np.random.Generator, side: float) -> Vector:
    """A point just outside the patch, near the slice."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([0.75 * side * np.cos(angle), 0.75 * side * np.sin(angle), rng.normal(0, 3)])


def paint_vein(
    planes: Array,
    grid: Grid,
    liver: Liver,
    rng: np.random.Generator,
    *,
    start: Vector,
    heading: Vector,
    radius: float,
    reach: float,
) -> None:
    """Paint a vein and its branches: a walk of tapering tubes, turning a little at each.

    It goes from ``start`` ``(x, y, z)`` in the direction of ``heading``, of any length, ``reach`` mm far.
    """
    heading = heading / np.linalg.norm(heading)
    step = min(max(5 * radius, 3.0), 8.0)
    while reach > 0 and radius > _THINNEST and np.abs(start).max() < 0.8 * grid.side:
        step = min(step, reach)
        end = start + step * heading
        paint_tube(planes, grid, start, end, radius, liver.vessels)
        if radius > 0.6 and rng.random() < 0.22:
            aside = heading + _BRANCHING * rng.standard_normal(3)
            paint_vein(planes, grid, liver, rng, start=end, heading=aside, radius=0.7 * radius, reach=0.6 * reach)
            radius *= 0.9
        start, reach, radius = end, reach - step, 0.96 * radius
        heading = heading + _TURNING * rng.standard_normal(3)
        heading /= np.sqrt(heading @ heading)


def paint_tube(planes: Array, grid: Grid, start: Vector, end: Vector, radius: float, value: float) -> None:
    """Paint a straight round tube with hemispherical ends from ``start`` to ``end`` (mm), ``value`` HU inside."""
    reach = radius + grid.spacing
    if max(start[2], end[2]) + reach < grid.levels[0] or min(start[2], end[2]) - reach > grid.levels[-1]:
        return
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
    (left, top), (right, bottom) = np.searchsorted(grid.axis, low[:2]), np.searchsorted(grid.axis, high[:2])
    part = planes[:, top:bottom, left:right]
    if not part.size:
        return
    x = grid.x[..., left:right] - np.float32(start[0])
    y = grid.y[:, top:bottom] - np.float32(start[1])
    z = grid.z - np.float32(start[2])
    span = (end - start).astype(np.float32)
    along = np.clip((x * span[0] + y * span[1] + z * span[2]) / (span @ span), 0, 1)
    distance = np.sqrt((x - along * span[0]) ** 2 + (y - along * span[1]) ** 2 + (z - along * span[2]) ** 2)
    inside = ramp(radius - distance, 1.2 * grid.spacing)
    # Where tubes meet, the brighter counts: they are one lumen, and a thin branch must not dim its parent.
    np.maximum(part, part + inside * (np.float32(value) - part), out=part)


def paint_cyst(planes: Array, grid: Grid, outline: Outline, liver: Liver, rng: np.random.Generator) -> None:
    """Water without texture behind a sharp border; one in five is dense (blood, protein) and its border less sharp."""
    value, width = np.clip(rng.normal(9, 5), 0, 20), rng.uniform(0.4, 1.0)
    if rng.random() < 0.2:
        value, width = rng.uniform(20, 55), rng.uniform(0.5, 2.5)
    planes += ramp(outline.depth(grid), width) * (np.float32(value) - planes)


def paint_hemangioma(planes: Array, grid: Grid, outline: Outline, liver: Liver, rng: np.random.Generator) -> None:
    """Pools of contrast medium as discontinuous nodules along the wall, about as bright as vessels; a hypodense center.

    One in four is barely nodular; some of the small ones fill evenly ("flash-filling"). Most have a feeding vessel.
    """
    if rng.random() < 0.6:
        start = _on_edge(rng, grid.side)
        reach = float(np.linalg.norm(outline.centre - start)) - 0.9 * outline.radius
        feeder = float(rng.uniform(0.7, 1.6))
        paint_vein(planes, grid, liver, rng, start=start, heading=outline.centre - start, radius=feeder, reach=reach)
    depth = outline.depth(grid)
    centre, pool = rng.uniform(35, 75), np.clip(liver.vessels + rng.normal(15, 12), 140, 200)
    if rng.random() < 0.25:
        centre, pool = rng.uniform(45, 80), liver.parenchyma + rng.uniform(5, 35)
    if outline.diameter < 13 and rng.random() < 0.15:
        filled = np.ones_like(depth)
    else:
        filled = np.zeros_like(depth)
        bumps = grid.texture(rng, max(0.9, 0.14 * outline.radius)) * np.float32(0.09 * outline.radius)
        for _ in range(rng.integers(3, 8)):
            np.maximum(filled, _nodule(grid, outline, bumps, rng), out=filled)
    values = np.float32(centre) + 5 * grid.texture(rng, 2.0)
    values = values + filled * (np.float32(pool) - values)
    planes += ramp(depth, rng.uniform(0.6, 1.6)) * (values - planes)


def _nodule(grid: Grid, outline: Outline, bumps: Array, rng: np.random.Generator) -> Array:
    """One pool of contrast medium at the wall, ``(levels, n, n)`` in [0, 1]: longer along the wall than across it."""
    size = max(outline.radius * rng.uniform(0.25, 0.45), 1.2)
    inward = outline.radius - rng.uniform(0.3, 0.8) * size
    around, up = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35)
    cos, sin = np.float32(np.cos(around)), np.float32(np.sin(around))
    centre = (outline.centre + inward * np.array([cos * np.cos(up), sin * np.cos(up), np.sin(up)])).astype(np.float32)
    x, y, z = grid.x - centre[0], grid.y - centre[1], grid.z - centre[2]
    across, along = x * cos + y * sin, (y * cos - x * sin) / np.float32(rng.uniform(1.0, 1.8))
    return ramp(size - np.sqrt(across**2 + along**2 + z**2) + bumps, 0.8 + 0.2 * size)


def paint_metastasis(planes: Array, grid: Grid, outline: Outline, liver: Liver, rng: np.random.Generator) -> None:
    """Hypodense tissue behind an indistinct, ragged border; most are uneven and necrotic inside, some have a rim.

    One in four is homogeneous.
    """
    radius = outline.radius
    plain = rng.random() < 0.25
    fine, coarse = grid.texture(rng, max(0.8, 0.13 * radius)), grid.texture(rng, max(1.2, 0.3 * radius))
    ragged = grid.texture(rng, max(0.8, 0.2 * radius)) * np.float32(0.08 * radius)
    depth = outline.depth(grid) + ragged
    unevenness = rng.uniform(0, 1, 2) * ((3, 2) if plain else (16, 12))
    tissue = np.float32(rng.uniform(40, 75)) + fine * np.float32(unevenness[0]) + coarse * np.float32(unevenness[1])
    values = np.repeat(tissue[None], len(grid.levels), axis=0)
    if not plain and rng.random() < 0.7:
        necrosis = np.float32(rng.uniform(12, 40))
        core = depth - np.float32(radius * rng.uniform(0.35, 0.75)) + np.float32(0.25 * radius) * coarse
        values += ramp(core, 0.35 * radius + 0.5) * (necrosis - values)
    if not plain and rng.random() < 0.5:
        bright = np.float32(liver.parenchyma + rng.uniform(15, 55))
        thickness = np.float32(rng.uniform(0.8, 1.4) + 0.06 * radius)
        around = np.clip(0.75 + 0.35 * ragged / np.float32(0.08 * radius), 0, 1)
        values += np.exp(-(((depth - thickness) / thickness) ** 2)) * around * (bright - values)
    planes += ramp(depth, min(rng.uniform(1.0, 3.5) + 0.15 * radius, 0.9 * radius)) * (values - planes)


Draw = Callable[[np.random.Generator], Outline]
Paint = Callable[[Array, Grid, Outline, Liver, np.random.Generator], None]

_round = partial(draw_outline, median=11.0, spread=0.5, flattening=(0.8, 1.0), waviness=0.02)
_lobulated = partial(draw_outline, median=17.0, spread=0.45, flattening=(0.7, 1.0), waviness=0.06)

LESIONS: dict[str, tuple[Draw, Paint]] = {
    "cyst": (_round, paint_cyst),
    "hemangioma": (_lobulated, paint_hemangioma),
    "metastasis": (_lobulated, paint_metastasis),
}
"""The classes, each with its outline and what is inside: drawn first, since the outline decides the patch's side."""
