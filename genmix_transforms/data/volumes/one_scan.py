"""One scan: read, its lesions found, its patches written as one file. What a process of several does at a time."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.volumes.cutting import Patch, cut_patches
from genmix_transforms.data.volumes.dicom_series import read_series
from genmix_transforms.data.volumes.lesions import Lesion, find_lesions
from genmix_transforms.data.volumes.masks import read_mask
from genmix_transforms.data.volumes.nifti import read_nifti
from genmix_transforms.data.volumes.scans import Scan
from genmix_transforms.data.volumes.settings import PatchSettings
from genmix_transforms.errors import InputError
from genmix_transforms.files.arrays import write_npz


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a scan: how many patches, or why there are none; and what a user should know."""

    patches: int = 0
    fault: str = ""
    notes: tuple[str, ...] = ()


def extract_scan(scan: Scan, out: Path, settings: PatchSettings) -> Done:
    """Cut the patches of a scan, and write them to ``out``, an ``.npz``, whole or not at all.

    Returns:
        What came of it. A scan that cannot be used is no exception: the others can.
    """
    try:
        if scan.fault or scan.mask is None:
            raise InputError(scan.fault or "no mask found for it")
        volume = read_series(scan.files) if scan.is_dicom else read_nifti(scan.files[0])
        if volume.hounsfield is False and settings.window is None:
            raise InputError("no CT, so that its values are no Hounsfield units; give the window that shows it")
        mask = read_mask(scan.mask, volume)
        lesions = _wanted(find_lesions(mask, values=_values(scan, settings)), settings)
        kept = mask if settings.keep_masks else None
        patches = [patch for lesion in lesions for patch in cut_patches(volume, lesion, settings, mask=kept)]
    except InputError as error:
        return Done(fault=str(error))
    except MemoryError:
        return Done(fault="more than fits into memory")
    except Exception as error:  # damage shows in whatever a library meets first; the other scans go on
        return Done(fault=f"{type(error).__name__} while it was read")
    notes = [*volume.notes]
    if cut := sum(patch.cut for patch in patches):
        notes.append(f"{cut} patches are smaller than their lesion and its margin")
    if outside := sum(patch.outside > 0 for patch in patches):
        notes.append(f"{outside} patches reach beyond the scan; what is not there has the lowest value")
    columns: dict[str, NDArray[Any]] = {
        "images": np.stack([patch.pixels for patch in patches]),
        "class_name": np.array([_class(scan, patch.lesion.value, settings) for patch in patches]),
        "lesion": np.array([patch.lesion.number for patch in patches]),
        "slice": np.array([patch.slice for patch in patches]),
        "diameter_mm": np.array([round(patch.lesion.diameter, 3) for patch in patches]),
        "volume_mm3": np.array([round(patch.lesion.volume, 2) for patch in patches]),
        "spacing_mm": np.array([round(patch.spacing, 5) for patch in patches]),
        "outside": np.array([round(patch.outside, 4) for patch in patches]),
    }
    if settings.keep_masks:
        columns |= _masks(scan, patches, settings)
    write_npz(out, columns)
    return Done(patches=len(patches), notes=tuple(notes))


def prepare_process() -> None:
    """Prepare a process of several: one thread each, and an end with the process that started it."""
    import os
    import signal
    import threading
    from multiprocessing import parent_process

    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the first decides
    warnings.simplefilter("ignore")
    parent = parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _values(scan: Scan, settings: PatchSettings) -> list[int] | None:
    """The mask's values that are lesions; None: all."""
    if settings.labels is not None:
        return [int(value) for value in settings.labels]
    if scan.classes and 0 not in scan.classes:
        return list(scan.classes)
    return None


def _class(scan: Scan, value: int, settings: PatchSettings) -> str:
    if value in scan.classes:
        return scan.classes[value]
    if 0 in scan.classes:
        return scan.classes[0]
    return (settings.labels or {}).get(str(value), str(value))


def _masks(scan: Scan, patches: list[Patch], settings: PatchSettings) -> dict[str, NDArray[Any]]:
    """The mask of each patch, as places in a list of classes, from 1 on; 0: of no value that is a lesion."""
    values = np.stack([patch.mask for patch in patches if patch.mask is not None])
    lesions = _values(scan, settings)
    present = [int(value) for value in np.unique(values) if value and (lesions is None or value in lesions)]
    names = sorted({_class(scan, value, settings) for value in present})
    masks = np.zeros(values.shape, dtype=np.uint16)
    for value in present:
        masks[values == value] = 1 + names.index(_class(scan, value, settings))
    return {"masks": masks, "mask_names": np.array(names, dtype=np.str_)}


def _wanted(lesions: list[Lesion], settings: PatchSettings) -> list[Lesion]:
    wanted = [lesion for lesion in lesions if lesion.diameter >= settings.smallest]
    if not wanted:
        what = f"of at least {settings.smallest:g} mm" if lesions else "of the values that are asked for"
        raise InputError(f"no lesion {what} in its mask")
    return wanted
