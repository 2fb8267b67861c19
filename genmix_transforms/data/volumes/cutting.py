"""Patches cut out of a scan: around a lesion, resampled by SimpleITK, through a window."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.volumes.lesions import Lesion
from genmix_transforms.data.volumes.settings import PatchSettings
from genmix_transforms.data.volumes.volume import Volume
from genmix_transforms.data.windowing import to_gray

_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
"""Standard deviation of a Gaussian a pixel wide at half its height."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch, and where it comes from.

    Args:
        pixels: ``(H, W)``, for 2.5-D ``(H, W, C)``, for 3-D ``(D, H, W)``; uint8 or uint16.
        lesion: it shows.
        slice: its (middle) slice, counted from the feet up.
        spacing: mm a pixel.
        outside: share of it that lies beyond the scan, filled with the lowest value.
        cut: whether the lesion and its margin are larger than the patch.
        mask: ``(H, W)``, for 3-D ``(D, H, W)``: the scan's mask at each pixel, uint16; None: not asked for.
    """

    pixels: NDArray[Any]
    lesion: Lesion
    slice: int
    spacing: float
    outside: float
    cut: bool
    mask: NDArray[Any] | None = None


def cut_patches(volume: Volume, lesion: Lesion, settings: PatchSettings, *, mask: Any = None) -> Iterator[Patch]:
    """Cut the patches of a lesion.

    2-D patches lie in a slice as it was acquired: nothing is interpolated from slice to slice. Where pixels become
    larger than the scan's, these are smoothed first (a Gaussian), so that nothing is skipped.

    Args:
        volume: the scan.
        lesion: in it.
        settings: what is cut.
        mask: a ``SimpleITK.Image`` of the scan's voxels, whose nearest values the patches have as :attr:`Patch.mask`,
            for 2.5-D those of the middle slice; None: the patches have no masks.
    """
    if settings.kind == "3d":
        yield _cube(volume, lesion, settings, mask)
        return
    middle = lesion.middle_slice
    places = [middle]
    if settings.every is not None:
        places = [place for place in sorted(lesion.boxes) if (place - middle) % settings.every == 0]
    for place in places:
        left, right, top, bottom = lesion.boxes[place]
        x_spacing, y_spacing, _ = volume.spacing
        center = ((left + right) / 2 * x_spacing, (top + bottom) / 2 * y_spacing)
        box = max((right - left + 1) * x_spacing, (bottom - top + 1) * y_spacing) + 2 * settings.margin
        pixel = box / settings.size if settings.spacing is None else settings.spacing
        around = settings.neighbors if settings.kind == "2.5d" else 0
        last = volume.image.GetSize()[2] - 1
        planes = [
            _resampled(volume.image, center, settings, pixel, place=min(max(place + step, 0), last))
            for step in range(-around, around + 1)
        ]
        values = planes[0][0] if settings.kind == "2d" else np.stack([plane for plane, _ in planes], axis=-1)
        yield Patch(
            pixels=_gray(values, settings),
            lesion=lesion,
            slice=place,
            spacing=pixel,
            outside=planes[0][1],
            cut=box > pixel * settings.size * (1 + 1e-9),
            mask=None if mask is None else _mask_there(mask, center, settings, pixel, place=place),
        )


def _cube(volume: Volume, lesion: Lesion, settings: PatchSettings, mask: Any) -> Patch:
    spacing = np.array(volume.spacing)
    low, high = np.array(lesion.low), np.array(lesion.high)
    box = float(((high - low + 1) * spacing).max()) + 2 * settings.margin
    pixel = box / settings.size if settings.spacing is None else settings.spacing
    center = tuple((low + high) / 2 * spacing)
    values, outside = _resampled(volume.image, center, settings, pixel)
    return Patch(
        pixels=_gray(values, settings),
        lesion=lesion,
        slice=lesion.middle_slice,
        spacing=pixel,
        outside=outside,
        cut=box > pixel * settings.size * (1 + 1e-9),
        mask=None if mask is None else _mask_there(mask, center, settings, pixel),
    )


def _mask_there(
    mask: Any, center: tuple[float, ...], settings: PatchSettings, pixel: float, *, place: int | None = None
) -> NDArray[Any]:
    return _resampled(mask, center, settings, pixel, place=place, nearest=True)[0].astype(np.uint16)


def _resampled(
    image: Any,
    center: tuple[float, ...],
    settings: PatchSettings,
    pixel: float,
    *,
    place: int | None = None,
    nearest: bool = False,
) -> tuple[NDArray[Any], float]:
    """A square around a point of a slice, or a cube of the volume, and how much of it lies beyond the scan.

    ``center`` is in mm from the first voxel's center, along columns, rows (and slices). With ``nearest`` values are
    taken as they are, and are 0 beyond the scan.
    """
    import SimpleITK as sitk

    dimensions = len(center)
    spacing, size = image.GetSpacing()[:dimensions], image.GetSize()[:dimensions]
    reach = (settings.size / 2 + 4) * pixel
    starts = [max(0, int((middle - reach) / step)) for middle, step in zip(center, spacing, strict=True)]
    ends = [
        min(whole, int((middle + reach) / step) + 2) for middle, step, whole in zip(center, spacing, size, strict=True)
    ]
    region = tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))
    part = image[(*region, place)] if place is not None else image[region]
    part = sitk.Cast(part, sitk.sitkFloat32)
    # In the scan's own axes: where the patient lies in the scanner is of no concern here.
    part.SetDirection(np.eye(dimensions).flatten().tolist())
    part.SetOrigin([start * step for start, step in zip(starts, spacing, strict=True)])
    for axis, step in enumerate(spacing):
        if not nearest and pixel > step * 1.01 and part.GetSize()[axis] >= 4:
            sigma = _SIGMA * float(np.sqrt(pixel**2 - step**2))
            part = sitk.RecursiveGaussian(part, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    first = [middle - (settings.size - 1) / 2 * pixel for middle in center]
    # ITK takes a point for one within if it is at most half a voxel beyond the centers of the outermost.
    fill, between = (0.0, sitk.sitkNearestNeighbor) if nearest else (settings.gray_range[0], sitk.sitkLinear)
    grid = ([settings.size] * dimensions, sitk.Transform(dimensions, sitk.sitkIdentity), between, first)
    values = sitk.Resample(part, *grid, [pixel] * dimensions, np.eye(dimensions).flatten().tolist(), fill)
    outside = 1.0
    for middle, step, whole in zip(center, spacing, size, strict=True):
        points = (np.arange(settings.size) - (settings.size - 1) / 2) * pixel + middle
        outside *= float(((points >= -step / 2) & (points <= (whole - 0.5) * step)).mean())
    return sitk.GetArrayFromImage(values), 1 - outside


def _gray(values: NDArray[Any], settings: PatchSettings) -> NDArray[Any]:
    low, high = settings.gray_range
    if settings.window is not None:
        return to_gray(values, (low, high))
    return np.rint(np.clip((values - low) * 65535 / (high - low), 0, 65535)).astype(np.uint16)
