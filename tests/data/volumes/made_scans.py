"""Scans whose every voxel has a closed form, and ways to spoil them."""

from pathlib import Path

import numpy as np
import pydicom

from genmix_transforms.data.volumes.writing import write_nifti, write_series

SHAPE = (9, 20, 22)
SPACING = (3.0, 0.8, 0.8)
STRAIGHT = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
RADIUS = 4.0
KEY = "a key for tests alone"


def hounsfield(points):
    """HU at points ``(..., 3)``, LPS, mm: a ramp, which linear interpolation keeps to the digit."""
    return -20 + points @ np.array([4.0, -3.0, 2.0])


def points_of(shape=SHAPE, spacing=SPACING, origin=(0.0, 0.0, 0.0), axes=STRAIGHT):
    """The place of each voxel ``(slices, rows, columns, 3)``; axes are those of columns, rows and slices."""
    along = [np.arange(count) * step for count, step in zip(shape, spacing, strict=True)]
    slices, rows, columns = np.meshgrid(*along, indexing="ij")
    right, down, up = (np.array(axis, dtype=float) for axis in axes)
    return np.array(origin) + columns[..., None] * right + rows[..., None] * down + slices[..., None] * up


def ball(points, center, radius=RADIUS):
    """A mask: 1 within a ball."""
    return (np.linalg.norm(points - center, axis=-1) <= radius).astype(np.uint8)


def write_ct(folder: Path, *, identity="series", voxels=None, spacing=SPACING, axes=STRAIGHT, **elements):
    """A DICOM series of the ramp, or of other voxels."""
    if voxels is None:
        voxels = np.rint(hounsfield(points_of(spacing=spacing, axes=axes))).astype(np.int16)
    return write_series(folder, voxels, spacing=spacing, identity=identity, axes=axes, **elements)


def write_ct_nifti(folder: Path, name: str, *, value=1, shift=0):
    """A NIfTI of the ramp and its mask, a ball in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    points = points_of()
    voxels = np.rint(hounsfield(points)).astype(np.int16) + shift
    mask = ball(points, points[4, 10, 11]) * value
    write_nifti(folder / f"{name}.nii.gz", voxels, spacing=SPACING)
    write_nifti(folder / f"{name}_mask.nii.gz", mask.astype(np.uint8), spacing=SPACING)


def slices_of(folder: Path):
    """The files of a series, in order."""
    return sorted(folder.glob("*.dcm"))


def change(file: Path, change):
    """Rewrite a DICOM file with a changed header."""
    header = pydicom.dcmread(file)
    change(header)
    header.save_as(file)
