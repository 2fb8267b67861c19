"""NIfTI and other files that hold a whole volume."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.volumes.volume import Volume, compact, oriented, placed
from genmix_transforms.errors import InputError

NIFTI = (".nii", ".nii.gz", ".mgz")
"""What nibabel reads here."""

LABEL_VOLUMES = (".mha", ".mhd", ".nrrd")
"""What SimpleITK reads besides, as masks."""

_TO_MM = {"meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI volume: scaled by its header, from RAS to LPS.

    Raises:
        InputError: 4-D, color, sheared axes, values that are no numbers, or a file that is none.
    """
    array, columns, spacing, origin = _opened(path)
    return Volume(image=placed(array, columns=columns, spacing=spacing, origin=origin))


def read_labels(path: Path) -> Any:
    """Read a mask: a ``SimpleITK.Image`` of whole numbers, in the order of :class:`Volume`.

    Raises:
        InputError: as :func:`read_nifti`, or values that are no labels.
    """
    import SimpleITK as sitk

    if path.name.lower().endswith(NIFTI):
        image = read_nifti(path).image
    else:
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            raise InputError("its mask cannot be read") from error
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise InputError(f"its mask has {image.GetDimension()} dimensions; expected 3, one number a voxel")
        image = oriented(image)
    values = sitk.GetArrayViewFromImage(image)
    whole = values.dtype.kind in "iu" or np.array_equal(values, np.rint(values))
    if not whole or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise InputError("its mask holds other values than whole numbers from 0 up; no probabilities, please")
    return sitk.Cast(image, sitk.sitkUInt16)


def _opened(path: Path) -> tuple[NDArray[Any], list[NDArray[Any]], list[float], list[float]]:
    """The voxels ``(k, j, i)``, directions of i, j, k (LPS), spacing and origin."""
    import nibabel

    try:
        file: Any = nibabel.load(path)
        shape = file.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise InputError(f"{len(file.shape)}-D ({'x'.join(map(str, file.shape))}); give one volume of it")
        voxels = np.asanyarray(file.dataobj).reshape(shape)
        units = file.header.get_xyzt_units()[0] if hasattr(file.header, "get_xyzt_units") else "mm"
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"not a readable volume ({type(error).__name__})") from error
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ file.affine  # RAS to LPS
    if not np.isfinite(affine).all():
        raise InputError("a position that is no number")
    edges = affine[:3, :3] * _TO_MM.get(units, 1.0)
    spacing = np.linalg.norm(edges, axis=0)
    if spacing.min() <= 0:
        raise InputError("a voxel spacing that is not above 0")
    axes = edges / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise InputError("sheared axes (gantry tilt?): resample it to right angles first")
    # float32 in the header: right angles to the last digit, as SimpleITK wants them
    left, _, right = np.linalg.svd(axes)
    axes = left @ right
    array = compact(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    origin = affine[:3, 3] * _TO_MM.get(units, 1.0)
    return array, list(axes.T), spacing.tolist(), origin.tolist()
