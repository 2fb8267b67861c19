"""DICOM series in: slices put in order, and every reason for which they make no volume, one sentence each."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.volumes.volume import Volume, compact, oriented, placed
from genmix_transforms.errors import InputError

_SAME_PLACE = 0.01
"""mm; positions nearer to each other than this are one."""

_UNEVEN = 0.02
"""Of the spacing; scanners write positions with so few digits."""

_TILT = 0.5
"""Degrees."""


def read_series(files: Sequence[Path]) -> Volume:
    """Read the slices of one series, in whatever order the files come.

    Modality and rescale tags are applied slice by slice, compressed transfer syntaxes are decoded by the plugins of
    pydicom that are installed. One file with several frames (enhanced CT and MR) is read by highdicom.

    Raises:
        InputError: what makes no volume: slices of different sizes, orientations or pixel spacings, a missing slice,
            uneven distances, several images in one place, gantry tilt, color, no position, no rescale tags in CT, pixel
            data that cannot be decoded. The message names no file and nobody.
    """
    import pydicom

    with quiet():
        try:
            slices = []
            seen = set()
            for file in files:
                header = pydicom.dcmread(file, force=True)
                if (identity := str(header.get("SOPInstanceUID", file))) not in seen:
                    seen.add(identity)
                    slices.append(header)
            if len(slices) == 1 and int(slices[0].get("NumberOfFrames") or 1) > 1:
                return _read_frames(files[0], slices[0])
            return _stack(slices, copies=len(files) - len(slices))
        except InputError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError, EOFError) as error:
            raise InputError(f"a damaged header ({type(error).__name__})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's notes on odd headers: they show what stands in these."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _stack(slices: list[Any], *, copies: int) -> Volume:
    for header in slices:
        _check_slice(header)
    first = slices[0]
    shape, orientation, pixel = _common(slices)
    right, down = orientation[:3], orientation[3:]
    normal = np.cross(right, down)
    positions = np.array([[float(value) for value in header.ImagePositionPatient] for header in slices])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    slices, positions, along = [slices[place] for place in order], positions[order], along[order]
    notes = [f"{copies} files are copies of others"] if copies else []
    kept = _without_twins(slices, along)
    if len(kept) < len(slices):
        notes.append(f"{len(slices) - len(kept)} slices are there twice, voxel by voxel")
        slices, positions, along = [slices[place] for place in kept], positions[kept], along[kept]
    spacing = _slice_spacing(along, first)
    _refuse_tilt(first, positions, right, down, along)
    voxels: NDArray[Any] | None = None
    for place, header in enumerate(slices):
        values = compact(_values(header))
        if voxels is None:
            voxels = np.empty((len(slices), *shape), dtype=values.dtype)
        elif values.dtype != voxels.dtype and voxels.dtype == np.int16:
            voxels = voxels.astype(np.float32)
        voxels[place] = values
        header.PixelData = None  # a slice is held once
        header._pixel_array = None
    assert voxels is not None
    image = placed(voxels, columns=(right, down, normal), spacing=(pixel[1], pixel[0], spacing), origin=positions[0])
    return Volume(image=image, hounsfield=_is_ct(first), notes=tuple(notes))


def _check_slice(header: Any) -> None:
    """Refuse what is no gray slice with a place."""
    if "PixelData" not in header:
        raise InputError("no pixel data in it")
    if int(header.get("SamplesPerPixel") or 1) != 1 or header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise InputError(
            f"{header.get('PhotometricInterpretation', 'no')} images; only gray ones (MONOCHROME2) are scans"
        )
    for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        values = header.get(name)
        if values is None or len(values) != count:
            raise InputError(f"no {name} in it: where its slices lie is not said")
    if min(float(value) for value in header.PixelSpacing) <= 0:
        raise InputError("a PixelSpacing that is not above 0")
    if _is_ct(header) and ("RescaleIntercept" not in header or header.get("RescaleType", "HU") not in ("HU", "")):
        raise InputError("CT whose rescale tags do not lead to Hounsfield units")


def _is_ct(header: Any) -> bool:
    return str(header.get("Modality", "")) == "CT"


def _common(slices: Sequence[Any]) -> tuple[tuple[int, int], NDArray[Any], tuple[float, float]]:
    """Rows and columns, orientation and pixel spacing that all slices share."""
    shapes = {(int(header.Rows), int(header.Columns)) for header in slices}
    if len(shapes) > 1:
        raise InputError(
            f"slices of {len(shapes)} sizes ({_listed(f'{h}x{w}' for h, w in shapes)}) under one series number"
        )
    orientations = np.array([[float(value) for value in header.ImageOrientationPatient] for header in slices])
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise InputError("slices of several orientations under one series number: a localizer among them?")
    right, down = orientations[0][:3], orientations[0][3:]
    if abs(right @ down) > 1e-3 or abs(np.linalg.norm(right) - 1) > 1e-2 or abs(np.linalg.norm(down) - 1) > 1e-2:
        raise InputError("an ImageOrientationPatient that is no pair of directions at right angles")
    spacings = np.array([[float(value) for value in header.PixelSpacing] for header in slices])
    if np.abs(spacings / spacings[0] - 1).max() > 1e-3:
        raise InputError(f"pixel spacings from {spacings.min():.4g} to {spacings.max():.4g} mm under one series number")
    if len({_is_ct(header) for header in slices}) > 1:
        raise InputError("slices of several modalities under one series number")
    return next(iter(shapes)), orientations[0], (float(spacings[0][0]), float(spacings[0][1]))


def _without_twins(slices: Sequence[Any], along: NDArray[Any]) -> list[int]:
    """The places that are left when a slice that is there twice, voxel by voxel, is there once."""
    kept = [0]
    for place in range(1, len(slices)):
        if along[place] - along[kept[-1]] > _SAME_PLACE:
            kept.append(place)
        elif not np.array_equal(_values(slices[place]), _values(slices[kept[-1]])):
            twins = int((np.diff(along) <= _SAME_PLACE).sum())
            places = len(slices) - twins
            if len(slices) % places == 0 and places > 1:
                raise InputError(f"4-D: {len(slices) // places} images in each of its {places} places; give one phase")
            raise InputError("several different slices in one place: two reconstructions or phases under one number")
    return kept


def _slice_spacing(along: NDArray[Any], header: Any) -> float:
    """The distance of slices, mm, if it is one and the same."""
    if len(along) == 1:
        said = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0
        return abs(float(said)) or 1.0
    steps = np.diff(along)
    usual = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - usual) > max(_UNEVEN * usual, _SAME_PLACE))
    if not len(uneven):
        return float(steps.mean())
    times = steps[uneven] / usual
    if (np.abs(times - np.round(times)) < 0.1).all() and (times > 1.5).all():
        missing = int(np.round(times).sum()) - len(uneven)
        place = int(uneven[0])
        raise InputError(
            f"{missing} of {len(along) + missing} slices missing: after slice {place + 1} there is a gap of "
            f"{steps[place]:.4g} mm, the others are {usual:.4g} mm"
        )
    raise InputError(f"slices are not evenly spaced: from {steps.min():.4g} to {steps.max():.4g} mm")


def _refuse_tilt(
    header: Any, positions: NDArray[Any], right: NDArray[Any], down: NDArray[Any], along: NDArray[Any]
) -> None:
    """Refuse slices that drift sideways: voxels would be sheared."""
    if len(positions) < 2:
        return
    way = positions[-1] - positions[0]
    sideways = float(np.hypot(way @ right, way @ down))
    angle = float(np.degrees(np.arctan2(sideways, along[-1] - along[0])))
    if angle > _TILT:
        raise InputError(
            f"gantry tilt: each slice lies aside of the one before, by {angle:.1f} degrees in all; correct it first "
            "(dcm2niix does), and give the NIfTI"
        )


def _values(header: Any) -> NDArray[Any]:
    """The rescaled values of a slice, integers where they are some."""
    from pydicom.pixels.processing import apply_rescale

    try:
        stored = header.pixel_array
    except Exception as error:  # each decoder fails in ways of its own
        syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
        name = getattr(syntax, "name", "unknown")
        raise InputError(
            f"its pixel data ({name}) cannot be decoded: damaged, or no decoder is installed "
            f"(pip install 'pylibjpeg[all]'): {type(error).__name__}"
        ) from error
    values: NDArray[Any] = apply_rescale(stored, header)
    if values.dtype.kind == "f" and np.array_equal(whole := np.rint(values), values) and np.abs(whole).max() < 2**31:
        values = whole.astype(np.int32)
    return values


def _read_frames(file: Path, header: Any) -> Volume:
    """One file with all slices."""
    import highdicom
    import SimpleITK as sitk

    try:
        volume = highdicom.imread(file).get_volume(dtype=np.float32)
        image = volume.to_simpleitk()
    except Exception as error:
        raise InputError(f"several frames that make no volume ({_first_sentence(error)})") from error
    values = compact(sitk.GetArrayFromImage(image))
    whole = sitk.GetImageFromArray(values)
    whole.CopyInformation(image)
    return Volume(image=oriented(whole), hounsfield=_is_ct(header))


def _first_sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).split('.')[0][:120]}"


def _listed(words: Any) -> str:
    return ", ".join(sorted(words))
