"""A scan in memory: voxels with their place in the patient, and what its header says of whom and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError

AXES = "LPS"
"""Voxels lie as DICOM has the patient: columns to the left, rows to the back, slices to the head."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels in the order slice, row, column; slices from the feet up, rows from front to back, columns from right to
    left.

    An oblique scan keeps its own axes, in the order and direction that are nearest to these.

    Args:
        image: a ``SimpleITK.Image``, 3-D: Hounsfield units for CT, else a scanner's own.
        hounsfield: whether the values are Hounsfield units; None: nobody says.
        notes: what was done on reading, without a word that names anyone.
    """

    image: Any
    hounsfield: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Of columns, rows and slices, mm."""
        return tuple(self.image.GetSpacing())

    @property
    def array(self) -> NDArray[Any]:
        """The voxels ``(slices, rows, columns)``, not copied."""
        import SimpleITK as sitk

        view: NDArray[Any] = sitk.GetArrayViewFromImage(self.image)
        return view


def placed(array: NDArray[Any], *, columns: Sequence[Any], spacing: Sequence[float], origin: Sequence[float]) -> Any:
    """Voxels with their place in the patient, brought to the order of :class:`Volume`.

    Args:
        array: ``(k, j, i)``.
        columns: of the direction matrix: the unit vectors (LPS) along i, j and k.
        spacing: along i, j and k, mm.
        origin: of voxel (0, 0, 0), LPS, mm.

    Returns:
        A ``SimpleITK.Image``.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in spacing])
    image.SetOrigin([float(value) for value in origin])
    image.SetDirection(np.stack([np.asarray(c, dtype=float) for c in columns], axis=1).flatten().tolist())
    return oriented(image)


def oriented(image: Any) -> Any:
    """A ``SimpleITK.Image`` in the order of :class:`Volume`; the image itself, not a copy, where it is already."""
    import SimpleITK as sitk

    found = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return image if found == AXES else sitk.DICOMOrient(image, AXES)


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """The values as int16 where nothing is lost by it, else as float32.

    Raises:
        InputError: values that are no numbers.
    """
    if values.dtype.kind in "iu":
        limits = np.iinfo(np.int16)
        if values.size and (values.min() < limits.min or values.max() > limits.max):
            return values.astype(np.float32)
        return values.astype(np.int16, copy=False)
    if values.dtype.kind != "f":
        raise InputError(f"its voxels are {values.dtype}, no gray values")
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum()):,} of its voxels are NaN or infinite")
    return values.astype(np.float32, copy=False)
