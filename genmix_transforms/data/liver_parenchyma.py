"""Parenchyma in a real CT slice: its level, its noise, and where a lesion of a given size has room.

No label says what in a liver is healthy. The rule here goes by brightness, smoothed so that noise does not count: what
lies far from the liver's median is taken for a lesion (dark) or a vessel (bright), and kept clear of.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.phantom_scanner import Array

LEVELS = (60.0, 190.0)
"""Median of a plausible liver, HU: from fatty without contrast medium to strongly enhanced. Others are not used."""

SMOOTHING = 1.5
"""Standard deviation of the smoothing that shows lesions and vessels through the noise, pixels."""

NOISE_SMOOTHING = 2.5
"""Standard deviation of the smoothing that is taken off to leave the noise, pixels: wider, for noise is coarse, too."""

DEVIATES = 15.0
"""What lies so many HU off the liver's level after smoothing is no parenchyma ..."""

NOISE_FACTOR = 1.2
"""... or so many standard deviations of the noise, if that is more: about three of what the smoothing leaves of it."""

SPECK = 5
"""Dark pixels in a window from which on they count as a lesion that is there already: noise makes fewer."""

SURFACE = 2.0
"""Pixels along the liver's surface that share their volume with what lies beyond."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parenchyma:
    """The liver in one slice, cut to its bounding box.

    Args:
        top: row of the box in the slice.
        left: column of the box in the slice.
        level: median of the liver away from its surface, HU.
        dark: ``(h, w)``, bool: where the liver is darker than parenchyma, its surface aside: lesions, fissures, ducts.
        room: ``(h, w)``, float32: distance to the nearest pixel that is no parenchyma, pixels, at most the reach.
    """

    top: int
    left: int
    level: float
    dark: NDArray[np.bool_]
    room: Array


def find_parenchyma(image: NDArray[Any], liver: NDArray[np.bool_], *, reach: int) -> Parenchyma | None:
    """Find the parenchyma of a slice.

    Args:
        image: ``(H, W)``, HU.
        liver: ``(H, W)``, its mask.
        reach: pixels up to which distances are told apart.

    Returns:
        None where the mask is empty, or thinner than its surface, or its level is not that of a liver.
    """
    rows, columns = np.flatnonzero(liver.any(axis=1)), np.flatnonzero(liver.any(axis=0))
    if not len(rows):
        return None
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    image, liver = image[box].astype(np.float32), liver[box]
    core = depth_inside(liver, int(SURFACE) + 2) > SURFACE
    if not core.any():
        return None
    level = float(np.median(image[core]))
    if not LEVELS[0] <= level <= LEVELS[1]:
        return None
    smooth = smooth_within(image, liver, SMOOTHING)
    _, noise = part_noise(image, liver)
    tolerance = max(DEVIATES, NOISE_FACTOR * spread(noise[core]))
    even = core & (np.abs(smooth - level) <= tolerance)
    return Parenchyma(
        top=int(rows[0]),
        left=int(columns[0]),
        level=level,
        dark=core & (smooth < level - tolerance),
        room=depth_inside(even, reach),
    )


def find_sites(parenchyma: Parenchyma, *, radius: float, size: int, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Find where a lesion of ``radius`` pixels, its margin included, fits in a slice of that ``shape``.

    Returns:
        ``(n, 2)``, int64: rows and columns (of the slice) of the centers at which parenchyma reaches ``radius`` far on
        all sides, the window lies within the slice, and nothing in it looks like a lesion already.
    """
    corner = (parenchyma.top, parenchyma.left)
    sites = np.argwhere(parenchyma.room >= radius) + corner
    low = sites - size // 2
    sites = sites[((low >= 0) & (low + size <= shape)).all(axis=1)]
    return sites[count_dark(parenchyma, sites - corner, size=size) < SPECK]


def count_dark(parenchyma: Parenchyma, centres: NDArray[np.int64], *, size: int) -> NDArray[np.int64]:
    """Count the pixels darker than parenchyma, ``(n,)``, in the windows about ``centres`` ``(n, 2)`` of the box."""
    sums = np.pad(parenchyma.dark.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    low = centres - size // 2
    top, left = np.clip(low, 0, parenchyma.dark.shape).T
    bottom, right = np.clip(low + size, 0, parenchyma.dark.shape).T
    counts: NDArray[np.int64] = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return counts


def part_noise(image: Array, liver: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Part a piece of a slice into its structure and the scanner's noise, both ``(h, w)``, HU.

    Structure is the mean over a few pixels of the liver. What it leaves over of small vessels is cut to three standard
    deviations of the noise. Outside the liver neither means anything.
    """
    structure = smooth_within(image, liver, NOISE_SMOOTHING)
    rest = image - structure
    bound = np.float32(3 * spread(rest[liver]))
    return structure, np.clip(rest, -bound, bound)


def spread(values: Array) -> float:
    """Standard deviation of Gaussian values, whatever a few others do: 1.4826 times the median deviation from 0."""
    return 1.4826 * float(np.median(np.abs(values)))


def smooth_within(image: Array, mask: NDArray[np.bool_], sigma: float) -> Array:
    """A Gaussian mean over the pixels of ``mask`` alone, ``(h, w)``: nothing leaks in across its border."""
    weight = mask.astype(np.float32)
    rows, columns = (_gaussian(count, sigma) for count in image.shape)
    amount = rows @ weight @ columns
    smooth = (rows @ (image * weight) @ columns) / np.maximum(amount, np.float32(1e-6))
    return smooth.astype(np.float32, copy=False)


def _gaussian(count: int, sigma: float) -> Array:
    axis = np.arange(count, dtype=np.float32)
    weights: Array = np.exp(-0.5 * ((axis[:, None] - axis[None, :]) / np.float32(sigma)) ** 2)
    return weights


def depth_inside(mask: NDArray[np.bool_], reach: int) -> Array:
    """Euclidean distance of every pixel to the nearest one outside ``mask``, pixels; 0 outside, at most ``reach``.

    Beyond the picture there is nothing of the mask.
    """
    padded = np.pad(mask, 1)
    along = np.where(padded, np.float32(reach), np.float32(0))
    for row in range(1, len(along)):  # distance along columns, from above and from below
        np.minimum(along[row], along[row - 1] + 1, out=along[row])
    for row in range(len(along) - 2, -1, -1):
        np.minimum(along[row], along[row + 1] + 1, out=along[row])
    squared = along**2
    nearest = squared.copy()
    for step in range(1, reach):
        np.minimum(nearest[:, step:], squared[:, :-step] + step**2, out=nearest[:, step:])
        np.minimum(nearest[:, :-step], squared[:, step:] + step**2, out=nearest[:, :-step])
    depth: Array = np.sqrt(nearest)[1:-1, 1:-1]
    return depth
