"""CT slices with a mask of the liver, and the windows in them that have room for a lesion, with what is in them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from genmix_transforms.data.phantom_scanner import Array
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.arrays import read_npz

FIELD_OF_VIEW = 384.0
"""Side of an abdominal slice where the file does not say, mm: 1.5 mm a pixel at 256 pixels, 0.75 mm at 512."""

MARGIN = 2.0
"""Parenchyma around a lesion's outline, mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LiverSlices:
    """Axial CT slices of several patients, each with a mask of the liver.

    Args:
        images: ``(N, H, W)``, Hounsfield units, integers or floats. They may have been clipped (0 to 255 as uint8).
        masks: ``(N, H, W)``, bool, the liver; lesions in it may or may not be part of it.
        patients: ``(N,)``, integers or strings: whose slice it is.
        pixel_spacing: side of a pixel, mm: one number, or ``(N,)``. None takes ``FIELD_OF_VIEW / W``, 1.5 mm at 256
            pixels: a guess, and no more than that.
        name: what to call the data in messages and notes.

    Raises:
        InputError: shapes or dtypes that do not fit together, values that are not finite, a spacing that is not
            positive, or no liver anywhere.

    Example:
        >>> images = np.full((3, 64, 64), 100, dtype=np.int16)
        >>> masks = np.zeros((3, 64, 64), dtype=bool)
        >>> masks[:, 8:56, 8:56] = True
        >>> LiverSlices(images=images, masks=masks, patients=np.array([1, 1, 2]), name="CT")
        CT: 3 slices of 2 patients, 64 x 64
    """

    images: NDArray[Any]
    masks: NDArray[np.bool_]
    patients: NDArray[Any]
    pixel_spacing: float | NDArray[Any] | None = None
    name: str = "liver slices"

    def __post_init__(self) -> None:
        images, masks, patients = (np.asarray(array) for array in (self.images, self.masks, self.patients))
        if images.ndim != 3 or images.dtype.kind not in "iuf" or 0 in images.shape:
            raise InputError(
                f"{self.name}: images must be numbers (Hounsfield units) of shape (N, H, W), "
                f"got {images.dtype} of shape {images.shape}"
            )
        if masks.shape != images.shape or masks.dtype != np.bool_:
            raise InputError(
                f"{self.name}: masks must be bool of the images' shape {images.shape}, "
                f"got {masks.dtype} of shape {masks.shape}"
            )
        if patients.shape != images.shape[:1] or patients.dtype.kind not in "iuUS":
            raise InputError(
                f"{self.name}: patients must be integers or strings of shape ({len(images)},), one for each slice, "
                f"got {patients.dtype} of shape {patients.shape}"
            )
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise InputError(f"{self.name}: images hold values that are not finite; expected Hounsfield units")
        if not masks.any():
            raise InputError(f"{self.name}: no mask has a pixel of liver")
        spacing = FIELD_OF_VIEW / images.shape[2] if self.pixel_spacing is None else self.pixel_spacing
        try:
            spacings = np.broadcast_to(np.asarray(spacing, dtype=np.float64), len(images))
        except (TypeError, ValueError):
            spacings = np.zeros(1)
        if not (np.isfinite(spacings).all() and (spacings > 0).all()):
            raise InputError(
                f"{self.name}: pixel_spacing must be one number above 0 (mm), or {len(images)} of them, one for each "
                f"slice; got {self.pixel_spacing}"
            )
        for key, value in (("images", images), ("masks", masks), ("patients", patients), ("pixel_spacing", spacings)):
            object.__setattr__(self, key, value)

    @classmethod
    def open(cls, path: str | Path) -> "LiverSlices":
        """Read an ``.npz``.

        Its arrays: ``images`` ``(N, H, W)``; ``liver_mask`` ``(N, H, W)``, 0 where there is no liver, or packed to
        bits along the rows (``np.packbits(masks, axis=-1)``); ``patient`` ``(N,)``; and, if known, ``pixel_spacing``
        in mm, one number or ``(N,)``.

        Raises:
            MissingPathError: no such file.
            InputError: not a readable ``.npz``, arrays missing, or of another shape or dtype.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingPathError(
                f"{path}: no such file; expected an .npz of CT slices with images, liver_mask, patient"
            )
        arrays = read_npz(path)
        if missing := [key for key in ("images", "liver_mask", "patient") if key not in arrays]:
            raise InputError(
                f"{path}: no {' and no '.join(missing)} in it; expected images (N, H, W) in Hounsfield units, "
                f"liver_mask and patient; it has {', '.join(arrays) or 'nothing'}"
            )
        images = arrays["images"]
        return cls(
            images=images,
            masks=_unpacked(path, arrays["liver_mask"], images.shape),
            patients=arrays["patient"],
            pixel_spacing=arrays.get("pixel_spacing"),
            name=path.name,
        )

    def spacing_of(self, number: int) -> float:
        """Side of a pixel of slice ``number``, mm."""
        return float(np.asarray(self.pixel_spacing)[number])

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count, height, width = self.images.shape
        return f"{self.name}: {count} slices of {len(np.unique(self.patients))} patients, {height} x {width}"


def _unpacked(path: Path, masks: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A stored mask as bool ``(N, H, W)``."""
    if masks.dtype.kind in "biu" and masks.shape == shape:
        return masks.astype(np.bool_)
    if masks.dtype == np.uint8 and len(shape) == 3 and masks.shape == (*shape[:2], -(-shape[2] // 8)):
        return np.unpackbits(masks, axis=-1, count=shape[2]).astype(np.bool_)
    raise InputError(
        f"{path}: liver_mask is {masks.dtype} of shape {masks.shape}; expected the shape of the images, {shape}, or "
        f"that packed to bits along the rows (np.packbits(masks, axis=-1))"
    )


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
