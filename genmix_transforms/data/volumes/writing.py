"""Scans out: as a DICOM series with a DICOM-SEG, or as NIfTI, for what a model has drawn and for tests."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.files.atomic import write_text
from genmix_transforms.files.checks import check_output_folder

_FIRST_DAY = date(2020, 1, 1)
_CT = "1.2.840.10008.5.1.4.1.1.2"


class Drawn(Protocol):
    """A scan that a model has drawn, see :class:`genmix_transforms.data.phantom_scanner.DrawnScan`."""

    @property
    def voxels(self) -> NDArray[np.int16]:
        """``(slices, rows, columns)``, HU."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Likewise."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Of slices, rows and columns, mm."""

    @property
    def name(self) -> str:
        """Of the scan."""

    @property
    def patient(self) -> str:
        """Number of the patient."""

    @property
    def day(self) -> int:
        """Of the acquisition."""


def write_drawn(scans: Iterable[Drawn], folder: Path, *, format: str, classes: Sequence[str]) -> None:
    """Write scans and masks; see :meth:`genmix_transforms.data.LesionPhantom.write_scans`."""
    if format not in ("dicom", "nifti"):
        raise InputError(f"format must be 'dicom' or 'nifti', got {format!r}")
    check_output_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise OverwriteError(f"{folder}: there are files in it; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for scan in scans:
        day = (_FIRST_DAY + timedelta(days=scan.day)).strftime("%Y%m%d")
        if format == "dicom":
            place = folder / scan.name
            slices = write_series(
                place, scan.voxels, spacing=scan.spacing, identity=scan.name, PatientID=scan.patient, StudyDate=day
            )
            write_segmentation(place / "mask.dcm", slices, scan.mask, classes=classes, identity=scan.name)
        else:
            write_nifti(folder / f"{scan.name}.nii.gz", scan.voxels, spacing=scan.spacing)
            write_nifti(folder / f"{scan.name}_mask.nii.gz", scan.mask, spacing=scan.spacing)
            rows.append((f"{scan.name}.nii.gz", f"{scan.name}_mask.nii.gz", scan.patient, day))
    if rows:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("scan", "mask", "patient", "date"))
        table.writerows(rows)
        write_text(folder / "scans.csv", text.getvalue())


def write_series(
    folder: Path,
    voxels: NDArray[np.int16],
    *,
    spacing: tuple[float, float, float],
    identity: str,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    axes: tuple[Sequence[float], Sequence[float], Sequence[float]] = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    **elements: Any,
) -> list[Any]:
    """Write a CT series, one file a slice, explicit little endian.

    Args:
        folder: of the files; made if need be.
        voxels: ``(slices, rows, columns)``, HU.
        spacing: of slices, rows and columns, mm.
        identity: what its numbers are made from: the same, the same.
        origin: of the first voxel, LPS, mm.
        axes: directions of columns (along a row), rows and slices, LPS.
        **elements: of the header, by keyword.

    Returns:
        The slices, as pydicom has them.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    def number(*words: str) -> UID:
        return generate_uid(entropy_srcs=["genmix", identity, *words])

    folder.mkdir(parents=True, exist_ok=True)
    slices = []
    for place, plane in enumerate(voxels):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = UID(_CT)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = number("slice", str(place))
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.Modality = "CT"
        header.PatientID, header.PatientName, header.PatientBirthDate, header.PatientSex = "", "", "", ""
        header.StudyInstanceUID, header.SeriesInstanceUID = number("study"), number("series")
        header.FrameOfReferenceUID = number("frame")
        header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "", "", "", ""
        header.ReferringPhysicianName = ""
        header.SeriesNumber, header.InstanceNumber = 1, place + 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.ImagePositionPatient = [
            float(f"{start + place * spacing[0] * step:.6f}") for start, step in zip(origin, axes[2], strict=True)
        ]
        header.ImageOrientationPatient = [float(f"{value:.8f}") for axis in axes[:2] for value in axis]
        header.PixelSpacing = [float(f"{value:.8f}") for value in spacing[1:]]
        header.SliceThickness = float(f"{spacing[0]:.8f}")
        header.Rows, header.Columns = plane.shape
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
        header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, -1024, "HU"
        header.PixelData = (plane.astype(np.int32) + 1024).clip(0, 65535).astype("<u2").tobytes()
        for name, value in elements.items():
            setattr(header, name, value)
        header.save_as(folder / f"{place:04}.dcm", enforce_file_format=True)
        slices.append(header)
    return slices


def write_segmentation(
    path: Path, slices: Sequence[Any], mask: NDArray[Any], *, classes: Sequence[str], identity: str
) -> None:
    """Write a mask as DICOM-SEG: a segment for each class that it has."""
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(classes, start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=list(slices),
        pixel_array=mask.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(entropy_srcs=["genmix", identity, "mask series"]),
        series_number=2,
        sop_instance_uid=generate_uid(entropy_srcs=["genmix", identity, "mask"]),
        instance_number=1,
        manufacturer="genmix_transforms",
        manufacturer_model_name="phantom",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    segmentation.save_as(path)


def write_nifti(path: Path, voxels: NDArray[Any], *, spacing: tuple[float, float, float]) -> None:
    """Write a volume as NIfTI, axial; ``spacing`` of slices, rows and columns, mm."""
    import nibabel

    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])  # LPS to RAS
    nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine), path)
