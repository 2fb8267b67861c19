"""What scans there are in a folder, and which mask, class, patient and date belong to each."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genmix_transforms.data.csv_file import read_csv
from genmix_transforms.data.volumes.dicom_series import quiet
from genmix_transforms.data.volumes.nifti import LABEL_VOLUMES, NIFTI
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.progress import progress_bar

_MASK_WORDS = ("mask", "masks", "seg", "segmentation", "label", "labels", "lesion", "lesions", "roi")
_SCAN_WORDS = ("image", "img", "ct", "mr", "mri", "scan", "volume", "0000")
_MASK_FOLDERS = re.compile(r"masks?|segs?|segmentations?|labels?(tr|ts)?", re.IGNORECASE)
_NO_DICOM = {
    ".csv",
    ".txt",
    ".json",
    ".xml",
    ".pdf",
    ".png",
    ".jpg",
    ".jpeg",
    ".zip",
    ".gz",
    ".py",
    ".md",
    ".npz",
    ".html",
}
_DICOM = {".dcm", ".dicom", ".ima"}
_TAGS = (
    "SOPClassUID", "Modality", "SeriesInstanceUID", "PatientID", "PatientName", "StudyInstanceUID", "AcquisitionDate",
    "SeriesDate", "StudyDate", "BurnedInAnnotation", "ReferencedSeriesSequence", "Rows", "ImageType",
)  # fmt: skip
_IMAGES = {"CT", "MR", "PT", "NM", "US", "OT", "DX", "CR", "MG", "XA"}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan that is to be read.

    Args:
        shown: what the user knows it by, for messages: its path. It is written nowhere.
        identity: what tells it from all others: the series' number, or the path within the folder.
        files: of its slices; one, for a NIfTI.
        mask: its mask; None: there is none, or several.
        patient: whoever it is of; "" where nobody says.
        date: of the acquisition, as digits; "" where nobody says.
        classes: by mask value; key 0 for all values that have no class of their own.
        fault: why it cannot be read; "" if it may be.
        burned_in: whether the header says that there is text in the pixels.
    """

    shown: str
    identity: str
    files: tuple[Path, ...]
    mask: Path | None = None
    patient: str = ""
    date: str = ""
    classes: Mapping[int, str] = field(default_factory=dict)
    fault: str = ""
    burned_in: bool = False

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series."""
        return not self.files[0].name.lower().endswith(NIFTI)


@dataclass
class _Series:
    files: list[Path] = field(default_factory=list)
    header: Any = None


def find_scans(folder: Path, *, masks: Path | None = None, table: Path | None = None) -> list[Scan]:
    """Find the scans of a folder, and what belongs to each.

    A DICOM series is told by its number, wherever its files lie. Its mask is, in this order: what ``table`` says; the
    DICOM-SEG that refers to it; the one mask in its folder, or in the folder around if it is the only series there; the
    one of its folder's name. A NIfTI's mask is the one of its name: ``liver_12.nii.gz`` belongs to
    ``liver_12_mask.nii.gz``, or to a ``liver_12.nii.gz`` in a folder called masks, labels, labelsTr, segmentations, or
    in ``masks``.

    Args:
        folder: with DICOM files and NIfTI volumes, in any folders.
        masks: a folder with nothing but masks, within ``folder`` or not.
        table: a CSV with a line for each scan, or for each of its mask's values: ``scan`` (a NIfTI, or the folder of a
            DICOM series), and where wanted ``mask``, ``label`` (a class), ``value`` (of the mask, that the class is
            of), ``patient`` and ``date``. Paths are relative to the table.

    Raises:
        MissingPathError: no such folder or table, or a path in the table that does not exist.
        InputError: no scans, or a table that cannot be.
    """
    if not folder.is_dir():
        raise MissingPathError(f"{folder}: no such folder; give one with DICOM series or NIfTI volumes in it")
    if masks is not None and not masks.is_dir():
        raise MissingPathError(f"--masks {masks}: no such folder")
    files = _files(folder)
    extra = [] if masks is None else [file for file in _files(masks) if file not in set(files)]
    volumes = [file for file in (*files, *extra) if file.name.lower().endswith((*NIFTI, *LABEL_VOLUMES))]
    mask_files = [file for file in volumes if _is_mask(file, folder=folder, masks=masks)]
    known = set(mask_files)
    niftis = [file for file in volumes if file not in known and file.name.lower().endswith(NIFTI)]
    series, segmentations, faults = _read_headers([file for file in files if file not in set(volumes)], folder)
    scans = [_of_series(uid, found, folder, series, segmentations, mask_files) for uid, found in series.items()]
    scans += [_of_nifti(file, folder, mask_files, niftis) for file in niftis]
    if table is not None:
        scans = _as_listed(table, scans, folder)
        faults = []
    if not scans:
        raise InputError(
            f"{folder}: no scans in it: no DICOM series of images, and no NIfTI volume that is no mask"
            + (
                f" ({len(faults)} files could not be read, the first: {faults[0].shown}: {faults[0].fault})"
                if faults
                else ""
            )
        )
    return sorted([*scans, *faults], key=lambda scan: scan.shown)


def _files(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".") and name != "DICOMDIR"]
    return found


def _stem(file: Path) -> str:
    name = file.name.lower()
    for suffix in sorted((*NIFTI, *LABEL_VOLUMES), key=len, reverse=True):
        name = name.removesuffix(suffix)
    return name


def _words(stem: str) -> list[str]:
    return [word for word in re.split(r"[-_. ]+", stem) if word]


def _name(stem: str) -> str:
    """What scan and mask have in common: ``12_ct`` and ``12-mask`` are 12."""
    words = _words(stem)
    while words and words[-1] in (*_MASK_WORDS, *_SCAN_WORDS):
        words.pop()
    return "_".join(words)


def _is_mask(file: Path, *, folder: Path, masks: Path | None) -> bool:
    if masks is not None and file.is_relative_to(masks):
        return True
    if file.name.lower().endswith(LABEL_VOLUMES) or (_words(_stem(file)) or [""])[-1] in _MASK_WORDS:
        return True
    inside = file.relative_to(folder).parts[:-1] if file.is_relative_to(folder) else ()
    return any(_MASK_FOLDERS.fullmatch(part) for part in inside)


def _read_headers(files: Sequence[Path], folder: Path) -> tuple[dict[str, _Series], dict[str, list[Path]], list[Scan]]:
    """The series of images by their numbers, the segmentations by the number that they refer to, and what is
    damaged.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    series: dict[str, _Series] = {}
    segmentations: dict[str, list[Path]] = {}
    faults = []
    bar = progress_bar(files, desc="reading headers", unit="file", disable=len(files) < 500)
    for file in bar:
        if file.suffix.lower() in _NO_DICOM:
            continue
        named = file.suffix.lower() in _DICOM
        try:
            with quiet():
                header = pydicom.dcmread(file, stop_before_pixels=True, force=named, specific_tags=list(_TAGS))
                uid = str(header.get("SeriesInstanceUID") or "")
                if not uid or "SOPClassUID" not in header:
                    raise InvalidDicomError
                modality = str(header.get("Modality") or "")
                references = [str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or []]
        except (InvalidDicomError, EOFError):
            if named:
                faults.append(_fault(file, folder, "not a readable DICOM file of a series"))
            continue
        except Exception as error:  # each kind of damage trips pydicom in a way of its own
            faults.append(_fault(file, folder, f"a damaged header ({type(error).__name__})"))
            continue
        if modality == "SEG":
            for reference in references:
                segmentations.setdefault(reference, []).append(file)
        elif modality in _IMAGES and "Rows" in header:
            found = series.setdefault(uid, _Series(header=header))
            found.files.append(file)
    return series, segmentations, faults


def _fault(file: Path, folder: Path, fault: str) -> Scan:
    return Scan(shown=_shown(file, folder), identity=str(file), files=(file,), fault=fault)


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _of_series(
    uid: str,
    found: _Series,
    folder: Path,
    series: Mapping[str, _Series],
    segmentations: Mapping[str, list[Path]],
    masks: Sequence[Path],
) -> Scan:
    header, place = found.header, Path(os.path.commonpath([file.parent for file in found.files]))
    candidates = segmentations.get(uid, [])
    if not candidates:
        candidates = [mask for mask in masks if mask.parent == place]
    if not candidates and place != folder and _alone_in(place.parent, uid, series):
        candidates = [mask for mask in masks if mask.is_relative_to(place.parent)]
    if not candidates:
        candidates = [mask for mask in masks if _name(_stem(mask)) == _name(place.name.lower())]
    mask, fault = _the_one(candidates)
    strangers = [file for other, files in segmentations.items() if other not in series for file in files]
    if not candidates and any(file.parent == place for file in strangers):
        fault = "no mask found for it: the DICOM-SEG in its folder refers to a series that is not there"
    name = _shown(place, folder)
    others = sum(1 for other in series.values() if any(file.parent == found.files[0].parent for file in other.files))
    date = next((str(header.get(tag)) for tag in ("AcquisitionDate", "SeriesDate", "StudyDate") if header.get(tag)), "")
    return Scan(
        shown=f"{name} ({found.files[0].name})" if others > 1 or len(found.files) == 1 else name,
        identity=uid,
        files=tuple(found.files),
        mask=mask,
        fault=fault,
        patient=str(header.get("PatientID") or header.get("PatientName") or ""),
        date=_digits(date),
        burned_in=str(header.get("BurnedInAnnotation") or "").upper() == "YES",
    )


def _alone_in(folder: Path, uid: str, series: Mapping[str, _Series]) -> bool:
    return all(other == uid or not found.files[0].is_relative_to(folder) for other, found in series.items())


def _of_nifti(file: Path, folder: Path, masks: Sequence[Path], niftis: Iterable[Path]) -> Scan:
    name = _name(_stem(file))
    candidates = [mask for mask in masks if _name(_stem(mask)) == name]
    if len(candidates) > 1 or (not name and candidates):
        candidates = [mask for mask in candidates if mask.parent == file.parent]
    if not candidates and sum(1 for other in niftis if other.parent == file.parent) == 1:
        candidates = [mask for mask in masks if mask.parent == file.parent]
    mask, fault = _the_one(candidates)
    shown = _shown(file, folder)
    return Scan(shown=shown, identity=shown, files=(file,), mask=mask, fault=fault)


def _the_one(candidates: Sequence[Path]) -> tuple[Path | None, str]:
    if len(candidates) == 1:
        return candidates[0], ""
    return (
        None,
        f"{len(candidates)} masks may belong to it; say which in a table" if candidates else "no mask found for it",
    )


def _as_listed(table: Path, scans: Sequence[Scan], folder: Path) -> list[Scan]:
    """The scans that a table lists, with what it says of each."""
    from dataclasses import replace

    lines, columns = read_csv(table, expected="a header (scan,mask,label) and a line for each scan")
    if "scan" not in columns:
        raise InputError(f"{table}: no column 'scan' in its header; it has {', '.join(columns)}")
    by_place: dict[Path, list[Scan]] = {}
    for scan in scans:
        file = scan.files[0].resolve()
        for place in (file, *file.parents) if scan.is_dicom else (file,):
            by_place.setdefault(place, []).append(scan)
    listed: dict[str, Scan] = {}
    for row, line in enumerate(lines):
        cell = {name: column[row] for name, column in columns.items()}
        where = f"{table}, line {line}"
        path = (table.parent / cell["scan"]).resolve()
        if not path.exists():
            raise MissingPathError(f"{where}: {cell['scan']} does not exist; paths are relative to the table's folder")
        found = by_place.get(path, [])
        if len(found) != 1:
            raise InputError(
                f"{where}: {len(found)} scans in {cell['scan']}; a line is of one, and it lies in {folder}"
            )
        scan = listed.get(found[0].identity, found[0])
        if scan.identity in listed and not cell.get("value"):
            raise InputError(f"{where}: {cell['scan']} stands there twice; several lines of a scan each need a value")
        changes: dict[str, Any] = {}
        if cell.get("mask"):
            changes = {"mask": table.parent / cell["mask"], "fault": ""}
            if not changes["mask"].is_file():
                raise MissingPathError(
                    f"{where}: {cell['mask']} does not exist; paths are relative to the table's folder"
                )
        if cell.get("label"):
            changes["classes"] = {**scan.classes, _value(cell.get("value", ""), where): cell["label"]}
        if cell.get("patient"):
            changes["patient"] = cell["patient"]
        if cell.get("date"):
            changes["date"] = _digits(cell["date"])
            if len(changes["date"]) != 8:
                raise InputError(f"{where}: date must be year, month and day, such as 2024-03-01, got {cell['date']!r}")
        listed[scan.identity] = replace(scan, **changes)
    return list(listed.values())


def _digits(date: str) -> str:
    return re.sub(r"\D", "", date)


def _value(cell: str, where: str) -> int:
    if not cell:
        return 0
    if not cell.isdecimal() or int(cell) == 0:
        raise InputError(f"{where}: value must be a mask's value, a whole number above 0, got {cell!r}")
    return int(cell)
