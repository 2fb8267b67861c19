"""Masks: from NIfTI, label volumes and DICOM-SEG, on the very voxels of their scan."""

from pathlib import Path
from typing import Any

import numpy as np

from genmix_transforms.data.volumes.dicom_series import quiet
from genmix_transforms.data.volumes.nifti import LABEL_VOLUMES, NIFTI, read_labels
from genmix_transforms.data.volumes.volume import Volume, oriented
from genmix_transforms.errors import InputError

_OFF = 0.1
"""Of a voxel: how far mask and scan may lie apart. Headers round."""


def read_mask(path: Path, volume: Volume) -> Any:
    """Read the mask of a scan.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.mgz``, ``.mha``, ``.mhd``, ``.nrrd``, or a DICOM-SEG, whose values are then the
            numbers of its segments.
        volume: the scan.

    Returns:
        A ``SimpleITK.Image`` of UInt16 with the size and the place of the scan's.

    Raises:
        InputError: a mask of other voxels than the scan's, an empty one, or one that cannot be read.
    """
    import SimpleITK as sitk

    if path.name.lower().endswith((*NIFTI, *LABEL_VOLUMES)):
        mask = read_labels(path)
        if mask.GetSize() != volume.image.GetSize():
            raise InputError(f"a mask with a different shape: {_size(mask)} voxels, the scan has {_size(volume.image)}")
    else:
        mask = _read_segmentation(path)
    offset = _offset(mask, volume.image)
    if any(offset) or mask.GetSize() != volume.image.GetSize():
        outside = [
            start < 0 or start + length > whole
            for start, length, whole in zip(offset, mask.GetSize(), volume.image.GetSize(), strict=True)
        ]
        if any(outside):
            raise InputError("a mask that reaches beyond the scan")
        whole = sitk.Image(volume.image.GetSize(), sitk.sitkUInt16)
        whole.CopyInformation(volume.image)
        mask = sitk.Paste(whole, mask, mask.GetSize(), [0, 0, 0], offset)
    if not sitk.GetArrayViewFromImage(mask).any():
        raise InputError("an empty mask: no voxel of it is of a lesion")
    return mask


def _read_segmentation(path: Path) -> Any:
    import highdicom
    import SimpleITK as sitk

    try:
        with quiet():
            segmentation = highdicom.seg.segread(path)
            found = segmentation.get_volume(combine_segments=True, dtype=np.uint16)
    except Exception as error:
        reason = "segments overlap" if "overlap" in str(error).lower() else type(error).__name__
        raise InputError(f"its DICOM-SEG makes no label volume ({reason})") from error
    return oriented(sitk.Cast(found.to_simpleitk(), sitk.sitkUInt16))


def _offset(mask: Any, image: Any) -> list[int]:
    """Where in the scan the mask's first voxel lies.

    Raises:
        InputError: voxels of another size or direction, or such that lie between the scan's.
    """
    spacing = np.array(image.GetSpacing())
    apart = np.abs(np.array(mask.GetSpacing()) / spacing - 1) * np.array(mask.GetSize())
    turned = np.abs(np.array(mask.GetDirection()) - np.array(image.GetDirection())).max() * max(mask.GetSize())
    if mask.GetSize()[2] == 1:  # of a single slice nobody can tell the distance to the next
        apart[2] = 0
    if apart.max() > _OFF or turned > 2 * _OFF:
        raise InputError(
            f"a mask of other voxels: {_spacing(mask)} mm, the scan's are {_spacing(image)} mm"
            + ("" if apart.max() > _OFF else ", and with a different orientation")
        )
    first = np.array(image.TransformPhysicalPointToContinuousIndex(mask.GetOrigin()))
    if np.abs(first - np.rint(first)).max() > _OFF:
        raise InputError(
            f"a mask that lies elsewhere: its voxels are {np.abs((first - np.rint(first)) * spacing).max():.3g} mm off"
        )
    offset = np.rint(first).astype(int).tolist()
    if any(offset) and mask.GetSize() == image.GetSize():
        raise InputError(f"a mask that lies elsewhere: {', '.join(map(str, offset))} voxels off the scan")
    return offset  # type: ignore[no-any-return]


def _size(image: Any) -> str:
    return "x".join(map(str, image.GetSize()))


def _spacing(image: Any) -> str:
    return "x".join(f"{value:.4g}" for value in image.GetSpacing())
