"""The phantom's scanner: a model object sampled on the CT matrix, blurred, made noisy, and cropped to a patch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SLICE_LEVELS = 4
"""Planes through the thickness of a slice at which the object is sampled; their mean is the slice (partial volume)."""

_BORDER = 6
"""Pixels of the matrix rendered around the patch, so that resampling sees no edge (from 32 pixels a patch up)."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The sampling points of one slice around a lesion, in millimeters from the patch's center.

    Args:
        side: of the square patch, mm; the grid reaches a few pixels beyond it.
        spacing: of the pixels of the CT matrix, mm.
        thickness: of a slice, mm.
        slices: how many there are, side by side; the middle of them is at 0.
    """

    side: float
    spacing: float
    thickness: float
    slices: int = 1
    axis: Array = field(init=False, repr=False)
    levels: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = 2 * (int(np.ceil(self.side / self.spacing / 2)) + _BORDER)
        axis = (np.arange(count) - (count - 1) / 2) * self.spacing
        levels = ((np.arange(self.slices * SLICE_LEVELS) + 0.5) / SLICE_LEVELS - self.slices / 2) * self.thickness
        object.__setattr__(self, "axis", axis.astype(np.float32))
        object.__setattr__(self, "levels", levels.astype(np.float32))

    @property
    def count(self) -> int:
        """Pixels along a side of the grid, even."""
        return len(self.axis)

    @property
    def x(self) -> Array:
        """Positions of the columns, ``(1, 1, n)``, mm."""
        return self.axis[None, None, :]

    @property
    def y(self) -> Array:
        """Positions of the rows, ``(1, n, 1)``, mm."""
        return self.axis[None, :, None]

    @property
    def z(self) -> Array:
        """Positions of the planes through the slices, ``(slices * SLICE_LEVELS, 1, 1)``, mm."""
        return self.levels[:, None, None]

    def frequencies(self) -> tuple[Array, Array]:
        """Spatial frequencies of ``np.fft.rfft2`` on this grid, ``(n, 1)`` and ``(1, n / 2 + 1)``, cycles per mm."""
        rows = np.fft.fftfreq(self.count, self.spacing).astype(np.float32)
        columns = np.fft.rfftfreq(self.count, self.spacing).astype(np.float32)
        return rows[:, None], columns[None, :]

    def texture(self, rng: np.random.Generator, length: float) -> Array:
        """A smooth random field ``(n, n)``: mean 0, variance 1, correlation ``exp(-d^2 / 2 length^2)`` at ``d`` mm."""
        rows, columns = self.frequencies()
        return self.coloured_noise(rng, np.exp(-2 * (np.pi * length) ** 2 * (rows**2 + columns**2)))

    def coloured_noise(self, rng: np.random.Generator, power: Array) -> Array:
        """Gaussian noise ``(n, n)`` of mean 0 and variance 1.

        Args:
            rng: of the noise.
            power: its power spectrum ``(n, n / 2 + 1)`` at ``frequencies()``, in any unit.
        """
        halves = np.full(power.shape[1], 2.0, dtype=np.float32)
        halves[[0, -1]] = 1.0  # rfft2 keeps one of each pair of conjugate frequencies, but all of these two columns
        gain = np.sqrt(power * (self.count**2 / float((power * halves).sum())))
        spectrum = np.fft.rfft2(rng.standard_normal((self.count, self.count), dtype=np.float32)) * gain
        return np.fft.irfft2(spectrum, s=(self.count, self.count)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How one patient was scanned.

    Args:
        pixel_spacing: side of a pixel of the CT matrix, mm.
        slice_thickness: mm.
        blur: standard deviation of the point spread in the plane, mm.
        noise: standard deviation of a pixel of the CT matrix, HU.
        cutoff: where the reconstruction kernel rolls the noise off, cycles per mm.
        anisotropy: above 1, the noise is correlated further along rows than along columns: a body is wider than it is
            deep, and the horizontal rays are the starved ones.
    """

    pixel_spacing: float
    slice_thickness: float
    blur: float
    noise: float
    cutoff: float
    anisotropy: float = 1.0

    def grid(self, side: float, *, slices: int = 1) -> Grid:
        """The sampling points for a patch of ``side`` mm, or for so many slices of it."""
        return Grid(side=side, spacing=self.pixel_spacing, thickness=self.slice_thickness, slices=slices)

    def acquire(self, planes: Array, grid: Grid, rng: np.random.Generator) -> Array:
        """What the scanner makes of the object: its mean over the slice, blurred, with correlated noise.

        The noise power spectrum is that of filtered back-projection: a ramp, rolled off by the reconstruction kernel,
        ``(f + f0) exp(-(f / cutoff)^2)``. It is band-pass, so that neighboring pixels go together and those a few
        millimeters apart do not. ``f0`` fills in what the ramp alone would lack at low frequencies.

        Args:
            planes: ``(SLICE_LEVELS, n, n)``, HU.
            grid: where the planes were sampled.
            rng: of the noise.

        Returns:
            ``(n, n)``, HU.
        """
        rows, columns = grid.frequencies()
        transfer = np.exp(-2 * (np.pi * self.blur) ** 2 * (rows**2 + columns**2))
        image = np.fft.irfft2(np.fft.rfft2(planes.mean(axis=0)) * transfer, s=(grid.count, grid.count))
        frequency = np.hypot(rows / self.anisotropy, columns * self.anisotropy)
        noise = grid.coloured_noise(rng, (frequency + 0.05) * np.exp(-((frequency / self.cutoff) ** 2)))
        return (image + self.noise * noise).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class DrawnScan:
    """A scan that a model has drawn.

    Args:
        voxels: ``(slices, rows, columns)``, int16, HU; slices from the feet up.
        mask: likewise, uint8: 0, or the lesion's class, counted from 1.
        spacing: of slices, rows and columns, mm.
        name: of the scan, without a word on the patient.
        patient: a made-up number.
        day: of the acquisition, counted from any.
    """

    voxels: NDArray[np.int16]
    mask: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    name: str
    patient: str
    day: int


def crop(image: Array, grid: Grid, size: int) -> Array:
    """The patch: ``grid.side`` mm around the grid's center, resampled to ``(size, size)`` pixels.

    Separable cubic interpolation, widened where pixels are merged (antialiased), as image libraries do it. The content
    is that of the CT matrix whatever the size: small lesions come out smooth, large ones at 32 pixels lose fine grain.
    """
    pixel = grid.side / size
    centres = (np.arange(size) + 0.5) * pixel - grid.side / 2
    distance = np.abs(centres[:, None] - grid.axis[None, :]) / max(pixel, grid.spacing)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    patch: Array = weights @ image @ weights.T
    return patch
