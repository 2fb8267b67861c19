"""The liver simulator's lesions beside the dark lesions that the same CT slices show: size, contrast, edge, interior.

    python benchmarks/liver_lesions.py --data liver_ct_256.npz --sheet liver_lesions.png

The slices carry no labels of lesions. A candidate is what one rule finds: connected pixels of the liver darker than
parenchyma (as `genmix_transforms.data.liver_parenchyma` says it), at least 8 of them, none within 3 pixels of the
liver's border, filling at least 45 % of the circle about them, at least 9 mm across and 25 HU below their surroundings.
The modelled lesions are put into their slices and go through the same rule and the same measurements.
"""

import argparse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genmix_transforms.data import LiverLesionSimulator, LiverSlices
from genmix_transforms.data.liver_parenchyma import (
    SPECK,
    Parenchyma,
    count_dark,
    depth_inside,
    find_parenchyma,
    part_noise,
    smooth_within,
    spread,
)
from genmix_transforms.data.phantom import CLASSES
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.files.sheet import draw_sheet, save_picture

Mask = NDArray[np.bool_]

LEAST_PIXELS, LEAST_DEPTH, LEAST_FILLED = 8, 3, 0.45
LEAST_DIAMETER, LEAST_CONTRAST = 9.0, 25.0
AROUND = 12
"""Pixels about a lesion within which it is measured; distances are told apart up to here."""

WINDOW = 32


class Lesion(NamedTuple):
    """What was measured of one lesion."""

    diameter: float  # of the circle with the area within the contour of half contrast, mm
    contrast: float  # median of what lies 4 to 8 pixels around, less the mean of the inside, HU
    relative: float  # the same over that median
    edge: float  # contrast over its change from the pixels inside the contour to those outside, mm; a step: 1 pixel
    interior: float  # standard deviation 2 or more pixels inside the contour, over that of the slice's noise


class Candidate(NamedTuple):
    """A lesion, and where it is: number of the slice, row and column of its middle."""

    lesion: Lesion
    slice: int
    row: int
    column: int


def connected(mask: Mask) -> Iterator[Mask]:
    """The connected parts (sides, not corners) of a mask, each as a mask."""
    left = mask.copy()
    height, width = mask.shape
    for seed in map(tuple, np.argwhere(mask)):
        if not left[seed]:
            continue
        part, edge = np.zeros_like(mask), [seed]
        left[seed] = False
        while edge:
            row, column = edge.pop()
            part[row, column] = True
            for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= place[0] < height and 0 <= place[1] < width and left[place]:
                    left[place] = False
                    edge.append(place)
        yield part


def dark_parts(parenchyma: Parenchyma, liver: Mask) -> list[Mask]:
    """The dark parts of a slice ``(H, W)`` that have a lesion's shape and lie within the liver."""
    dark = np.zeros_like(liver)
    height, width = parenchyma.dark.shape
    dark[parenchyma.top : parenchyma.top + height, parenchyma.left : parenchyma.left + width] = parenchyma.dark
    shallow = depth_inside(liver, LEAST_DEPTH + 1) < LEAST_DEPTH
    return [part for part in connected(dark) if _is_round(part) and not (part & shallow).any()]


def _is_round(part: Mask) -> bool:
    points = np.argwhere(part)
    reach = np.hypot(*(points - points.mean(axis=0)).T).max() + 0.5
    return len(points) >= LEAST_PIXELS and len(points) >= LEAST_FILLED * np.pi * reach**2


def measure(
    image: NDArray[np.generic], liver: Mask, part: Mask, *, pixel_spacing: float, noise: float
) -> Lesion | None:
    """Measure a dark part of a slice; None if it does not stand out from its surroundings, or they are not liver.

    Args:
        image: ``(H, W)``, HU.
        liver: ``(H, W)``.
        part: ``(H, W)``, where the liver is dark.
        pixel_spacing: mm.
        noise: standard deviation of the slice's noise, HU.
    """
    rows, columns = np.nonzero(part)
    box = tuple(slice(max(0, axis.min() - AROUND), axis.max() + 1 + AROUND) for axis in (rows, columns))
    piece, liver, part = image[box].astype(np.float32), liver[box], part[box]
    outside, inside = distance_to(part), depth_inside(part, AROUND)
    ring = liver & (outside >= 4) & (outside <= 8)
    if ring.sum() < 20:
        return None
    level = float(np.median(piece[ring]))
    core = inside >= min(2.0, float(inside.max()))
    contrast = level - float(piece[core].mean())
    if contrast <= 0:
        return None
    halves = list(connected(liver & (smooth_within(piece, liver, 1.0) < level - contrast / 2)))
    if not halves:
        return None
    lesion = max(halves, key=lambda half: int((half & core).sum()))
    depth = depth_inside(lesion, AROUND)
    border, beyond = lesion & (depth <= 1), liver & ~lesion & (distance_to(lesion) <= 1)
    if not beyond.any():
        return None
    step = float(piece[beyond].mean() - piece[border].mean())
    deep = depth >= 2
    return Lesion(
        diameter=2 * float(np.sqrt(lesion.sum() / np.pi)) * pixel_spacing,
        contrast=contrast,
        relative=contrast / level,
        edge=contrast / step * pixel_spacing if step > 0 else float("nan"),
        interior=float(piece[deep].std()) / noise if deep.sum() >= LEAST_PIXELS else float("nan"),
    )


def distance_to(part: Mask) -> NDArray[np.float32]:
    """Distance of every pixel to the nearest one of ``part``, pixels, at most ``AROUND``."""
    inner = slice(AROUND, -AROUND)  # beyond the picture there is nothing of the part either
    return depth_inside(np.pad(~part, AROUND, constant_values=True), AROUND)[inner, inner]


def noise_of(image: NDArray[np.generic], liver: Mask) -> float:
    """Standard deviation of a slice's noise in the liver, HU."""
    _, noise = part_noise(image.astype(np.float32), liver)
    return spread(noise[liver])


def find_candidates(slices: LiverSlices) -> list[Candidate]:
    """The dark lesions that the slices show, as the rule has it."""
    found = []
    for number in progress_bar(range(len(slices)), desc="looking for lesions"):
        image, liver = slices.images[number], slices.masks[number]
        parenchyma = find_parenchyma(image, liver, reach=1)
        if parenchyma is None:
            continue
        noise, spacing = noise_of(image, liver), slices.spacing_of(number)
        for part in dark_parts(parenchyma, liver):
            lesion = measure(image, liver, part, pixel_spacing=spacing, noise=noise)
            if lesion and lesion.diameter >= LEAST_DIAMETER and lesion.contrast >= LEAST_CONTRAST:
                row, column = np.argwhere(part).mean(axis=0).round().astype(int).tolist()
                found.append(Candidate(lesion, number, row, column))
    return found


def measure_modelled(simulator: LiverLesionSimulator) -> dict[str, list[Lesion]]:
    """The simulator's lesions that the same rule finds, by class."""
    slices, half = simulator.slices, simulator.size // 2
    found: dict[str, list[Lesion]] = {name: [] for name in CLASSES}
    for placed in progress_bar(simulator.lesions, desc="measuring lesions"):
        number, row, column = placed.place.slice, placed.place.row, placed.place.column
        liver, image = slices.masks[number], slices.images[number].copy()
        noise = noise_of(image, liver)
        top, left = row - half, column - half
        # Stored as the slices are: rounded, and clipped to their range.
        pixels = np.clip(np.rint(placed.image), slices.images.min(), slices.images.max())
        image[top : top + simulator.size, left : left + simulator.size] = pixels
        parenchyma = find_parenchyma(image, liver, reach=1)
        parts = dark_parts(parenchyma, liver) if parenchyma else []
        near = (slice(max(0, row - 5), row + 6), slice(max(0, column - 5), column + 6))
        part = max(parts, key=lambda part: int(part[near].sum()), default=None)
        if part is None or not part[near].any():
            continue
        lesion = measure(image, liver, part, pixel_spacing=slices.spacing_of(number), noise=noise)
        if lesion and lesion.diameter >= LEAST_DIAMETER and lesion.contrast >= LEAST_CONTRAST:
            found[placed.label].append(lesion)
    return found


def print_lesions(groups: dict[str, list[Lesion]]) -> None:
    """A table: medians of each group, 10 to 90 % in brackets."""
    print("\n### Lesions\n")
    print("| | lesions | diameter, mm | contrast, HU | contrast / liver | edge, mm | interior / noise |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    digits = (0, 0, 2, 1, 2)
    for name, lesions in groups.items():
        cells = ["-"] * len(digits)
        if lesions:
            with warnings.catch_warnings():  # an interior of too few pixels in all of them
                warnings.simplefilter("ignore", RuntimeWarning)
                low, middle, high = np.nanpercentile(np.array(lesions), (10, 50, 90), axis=0)
            values = zip(low, middle, high, digits, strict=True)
            cells = [f"{m:.{d}f} ({a:.{d}f} to {b:.{d}f})" for a, m, b, d in values]
        print(f"| {name} | {len(lesions)} | {' | '.join(cells)} |")


def print_noise(simulator: LiverLesionSimulator) -> None:
    """A table: the noise inside large cysts, which have none of their own, and at the same pixels before."""
    pairs = []
    for lesion in simulator.lesions:
        inside = lesion.coverage > 0.98
        if lesion.label == "cyst" and inside.sum() >= 60:
            pairs.append([_texture(pixels, inside) for pixels in (lesion.image, lesion.background)])
    print(f"\n### Noise inside {len(pairs)} large cysts\n")
    print("| | standard deviation, HU | correlation of neighbours in a row |")
    print("|---|---:|---:|")
    if pairs:
        for name, (deviation, neighbours) in zip(("lesion", "before"), np.median(pairs, axis=0), strict=True):
            print(f"| {name} | {deviation:.1f} | {neighbours:.2f} |")


def _texture(pixels: NDArray[np.float32], inside: Mask) -> tuple[float, float]:
    rest = pixels - pixels[inside].mean()
    both = inside[:, 1:] & inside[:, :-1]
    variance = float((rest[inside] ** 2).mean())
    return variance**0.5, float((rest[:, 1:] * rest[:, :-1])[both].mean()) / variance


def print_windows(slices: LiverSlices, simulator: LiverLesionSimulator) -> None:
    """A table: how many windows wholly inside the liver show something dark, and where the simulator's lie."""
    inside = shown = without = 0
    for number in range(len(slices)):
        image, liver = slices.images[number], slices.masks[number]
        parenchyma = find_parenchyma(image, liver, reach=1)
        height, width = liver.shape
        corners = [
            (row, column)
            for row in range(0, height - WINDOW + 1, WINDOW // 4)
            for column in range(0, width - WINDOW + 1, WINDOW // 4)
            if liver[row : row + WINDOW, column : column + WINDOW].all()
        ]
        inside += len(corners)
        if parenchyma is None:
            without += len(corners)
        elif corners:
            centres = np.array(corners) + WINDOW // 2 - (parenchyma.top, parenchyma.left)
            shown += int((count_dark(parenchyma, centres, size=WINDOW) >= SPECK).sum())
    beyond, half = [], simulator.size // 2
    for lesion in simulator.lesions:
        top, left = lesion.place.row - half, lesion.place.column - half
        window = slices.masks[lesion.place.slice][top : top + simulator.size, left : left + simulator.size]
        beyond.append((CLASSES.index(lesion.label), 1 - window.mean()))
    used = np.unique(slices.patients[[lesion.place.slice for lesion in simulator.lesions]], return_counts=True)[1]
    print("\n### Windows\n")
    print("| | |")
    print("|---|---:|")
    print(f"| windows of {WINDOW} x {WINDOW} wholly inside the liver, every {WINDOW // 4} pixels | {inside} |")
    print(f"| of these, with a dark spot | {shown} |")
    print(f"| of these, in slices whose brightness is not that of a liver | {without} |")
    print(f"| patients that the simulator drew from | {len(used)} of {len(np.unique(slices.patients))} |")
    print(f"| lesions of one patient | {used.min()} to {used.max()} |")
    print(f"| the simulator's windows wholly inside the liver | {np.mean([share == 0 for _, share in beyond]):.0%} |")
    for index, name in enumerate(CLASSES):
        print(f"| share of a {name}'s window beyond the liver | {np.mean([s for c, s in beyond if c == index]):.0%} |")


def save_sheet(
    slices: LiverSlices, candidates: Sequence[Candidate], simulator: LiverLesionSimulator, path: Path
) -> None:
    """Draw real lesions over modelled ones: two rows each, windows of 32 pixels, black 0 HU and white 200 HU."""
    columns, half = 12, WINDOW // 2
    height, width = slices.images.shape[1:]
    order = np.random.default_rng(0).permutation(len(candidates))
    real = [
        slices.images[c.slice][c.row - half : c.row + half, c.column - half : c.column + half]
        for c in (candidates[number] for number in order)
        if half <= c.row <= height - half and half <= c.column <= width - half
    ]
    rows, titles = [real[:columns], real[columns : 2 * columns]], ["real", "real"]
    for name in CLASSES:
        drawn = [lesion.image for lesion in simulator.lesions if lesion.label == name][: 2 * columns]
        rows += [drawn[:columns], drawn[columns:]]
        titles += [name, name]
    pictures = [
        torch.from_numpy(np.clip(np.rint(np.stack(row).astype(np.float32) * (255 / 200)), 0, 255).astype(np.uint8))[
            :, None
        ]
        for row in rows
        if row
    ]
    sheet = draw_sheet(pictures, [title for title, row in zip(titles, rows, strict=True) if row], magnify=3)
    save_picture(sheet.convert("L"), path)


def main() -> None:
    """Measure, print, and draw the sheet if asked to."""
    parser = argparse.ArgumentParser(description="The liver simulator's lesions beside real ones.")
    parser.add_argument("--data", type=Path, required=True, help="an .npz of CT slices: images, liver_mask, patient")
    parser.add_argument("--seed", type=int, default=0, help="of the simulator")
    parser.add_argument("--sheet", type=Path, help="a .png to draw: real lesions above, modelled ones below")
    options = parser.parse_args()
    slices = LiverSlices.open(options.data)
    simulator = LiverLesionSimulator(slices, size=WINDOW, seed=options.seed)
    candidates = find_candidates(slices)
    patients = len(np.unique(slices.patients[[candidate.slice for candidate in candidates]]))
    print(f"{slices}; the rule finds {len(candidates)} lesions in {patients} patients")
    real = {"real": [candidate.lesion for candidate in candidates]}
    print_lesions(real | measure_modelled(simulator))
    print_noise(simulator)
    print_windows(slices, simulator)
    if options.sheet:
        save_sheet(slices, candidates, simulator, options.sheet)


if __name__ == "__main__":
    main()
