"""Windows of liver slices: where one with room for a lesion is found, and what is in it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.liver_parenchyma import (
    NOISE_SMOOTHING,
    SURFACE,
    Parenchyma,
    depth_inside,
    find_parenchyma,
    find_sites,
    part_noise,
)
from genmix_transforms.data.liver_slices import LiverSlices
from genmix_transforms.data.phantom_scanner import Array

MARGIN = 2.0
"""Parenchyma around a lesion's outline, mm."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The pixel of a slice that a window's pixel ``(size // 2, size // 2)`` is: number of the slice, row, column."""

    slice: int
    row: int
    column: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """What is in a window before a lesion is placed, each ``(size, size)``.

    Args:
        image: float32, HU.
        structure: float32, HU, the image without noise; means nothing outside the liver.
        noise: float32, HU, the scanner's; means nothing outside the liver.
        depth: float32, distance to the liver's border from inside, pixels; told apart up to its surface only.
    """

    image: Array
    structure: Array
    noise: Array
    depth: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class LiverWindows:
    """Windows of one size in the livers of CT slices.

    Args:
        slices: the slices.
        size: side of the windows, pixels.
        largest: longest diameter of a lesion that is ever asked for, mm.
    """

    slices: LiverSlices
    size: int
    largest: float
    _found: dict[int, Parenchyma | None] = field(default_factory=dict, init=False, repr=False)

    def sites(self, where: int, diameter: float) -> NDArray[np.int64]:
        """Rows and columns of a slice about which a lesion of so many mm has room, ``(n, 2)``."""
        spacing = self.slices.spacing_of(where)
        image, liver = self.slices.images[where], self.slices.masks[where]
        if where not in self._found:
            reach = int(np.ceil((self.largest / 2 + MARGIN) / spacing)) + 1
            self._found[where] = find_parenchyma(image, liver, reach=reach)
        parenchyma = self._found[where]
        if parenchyma is None:
            return np.empty((0, 2), dtype=np.int64)
        height, width = image.shape
        radius = (diameter / 2 + MARGIN) / spacing
        return find_sites(parenchyma, radius=radius, size=self.size, shape=(height, width))

    def largest_fitting(self, among: NDArray[np.int64], *, least: float, most: float) -> int | None:
        """The longest diameter, in whole mm, that has room in any of the slices ``among``; None if none has."""
        for diameter in range(int(most), int(np.ceil(least)) - 1, -1):
            if any(len(self.sites(where, diameter)) for where in among.tolist()):
                return diameter
        return None

    def find(self, among: NDArray[np.int64], diameter: float, rng: np.random.Generator) -> Place | None:
        """A place for a lesion of so many mm in one of the slices ``among``; None if there is no room.

        First a patient at random, of those that have room; then a slice; then a place in it.
        """
        owners = self.slices.patients[among]
        for patient in rng.permutation(np.unique(owners)):
            for where in rng.permutation(among[owners == patient]).tolist():
                sites = self.sites(where, diameter)
                if len(sites):
                    row, column = sites[rng.integers(len(sites))].tolist()
                    return Place(slice=where, row=row, column=column)
        return None

    def cut(self, place: Place) -> Window:
        """The window at a place."""
        image, liver = self.slices.images[place.slice], self.slices.masks[place.slice]
        # With what lies around, so that the smoothing ends where the slice does and not where the window does.
        around = 4 * int(np.ceil(NOISE_SMOOTHING))
        first = [max(0, middle - self.size // 2 - around) for middle in (place.row, place.column)]
        start = [middle - self.size // 2 - edge for middle, edge in zip((place.row, place.column), first, strict=True)]
        wide = tuple(slice(a, a + b + self.size + around) for a, b in zip(first, start, strict=True))
        window = tuple(slice(a, a + self.size) for a in start)
        whole = image[wide].astype(np.float32)
        structure, noise = part_noise(whole, liver[wide])
        depth = depth_inside(liver[wide], int(SURFACE) + 1)
        return Window(image=whole[window], structure=structure[window], noise=noise[window], depth=depth[window])
