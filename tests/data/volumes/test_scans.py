"""What is found in a folder: scans, and the mask, class, patient and date of each."""

import shutil

import numpy as np
import pytest

from genmix_transforms.data.volumes.scans import find_scans
from genmix_transforms.data.volumes.writing import write_nifti, write_segmentation
from genmix_transforms.errors import InputError, MissingPathError
from tests.data.volumes.made_scans import SHAPE, SPACING, ball, points_of, write_ct

LABELS = ball(points_of(), points_of()[4, 10, 11])


def write_mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, LABELS, spacing=SPACING)


def write_scan(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, np.zeros(SHAPE, np.int16), spacing=SPACING)


def test_series_mixed_in_one_folder_with_their_segmentations(tmp_path):
    for name, date in (("a", "20200301"), ("b", "20191231")):
        slices = write_ct(tmp_path / name, identity=name, PatientID=f"patient {name}", AcquisitionDate=date)
        write_segmentation(tmp_path / name / "seg.dcm", slices, LABELS, classes=["cyst"], identity=name)
    together = tmp_path / "together"
    together.mkdir()
    for name in ("a", "b"):
        for file in (tmp_path / name).iterdir():
            shutil.move(file, together / f"{name}-{file.name}")
        (tmp_path / name).rmdir()
    (together / "notes.txt").write_text("none of ours")
    first, second = find_scans(tmp_path)
    assert len(first.files) == len(second.files) == 9
    assert {(scan.patient, scan.date, scan.mask.name) for scan in (first, second)} == {
        ("patient a", "20200301", "a-seg.dcm"),
        ("patient b", "20191231", "b-seg.dcm"),
    }
    assert first.shown != second.shown
    assert first.is_dicom


@pytest.mark.parametrize("place", ["ct/tumor.nii.gz", "mask.nii.gz", "../masks/p1.nii.gz"])
def test_the_mask_of_a_series(tmp_path, place):
    write_ct(tmp_path / "scans" / "p1" / "ct" if not place.startswith("..") else tmp_path / "scans" / "p1")
    path = tmp_path / "scans" / ("p1" if not place.startswith("..") else "") / place
    if place == "ct/tumor.nii.gz":
        path = path.with_name("tumor_mask.nii.gz")
    write_mask(path)
    (scan,) = find_scans(tmp_path / "scans", masks=tmp_path / "masks" if place.startswith("..") else None)
    assert scan.mask.resolve() == path.resolve()
    assert scan.fault == ""


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("liver_1.nii.gz", "liver_1_mask.nii.gz"),
        ("liver_1_ct.nii", "liver_1-seg.nii.gz"),
        ("imagesTr/liver_1_0000.nii.gz", "labelsTr/liver_1.nii.gz"),
        ("p1/image.nii.gz", "p1/mask.nii.gz"),
        ("p1/ct.nii.gz", "p1/segmentation.nrrd"),
    ],
)
def test_the_mask_of_a_nifti(tmp_path, scan, mask):
    write_scan(tmp_path / scan)
    write_scan(tmp_path / scan.replace("1", "2"))
    if mask.endswith(".nrrd"):
        (tmp_path / mask).write_bytes(b"")
        (tmp_path / mask.replace("1", "2")).write_bytes(b"")
    else:
        write_mask(tmp_path / mask)
        write_mask(tmp_path / mask.replace("1", "2"))
    first, second = find_scans(tmp_path)
    assert (first.shown, first.mask) == (scan, tmp_path / mask)
    assert (second.shown, second.mask) == (scan.replace("1", "2"), tmp_path / mask.replace("1", "2"))


def test_no_mask_and_several(tmp_path):
    write_scan(tmp_path / "a" / "one.nii.gz")
    write_scan(tmp_path / "b" / "two.nii.gz")
    write_mask(tmp_path / "b" / "two_mask.nii.gz")
    write_mask(tmp_path / "b" / "two_seg.nii.gz")
    one, two = find_scans(tmp_path)
    assert one.fault == "no mask found for it"
    assert two.fault == "2 masks may belong to it; say which in a table"


def test_a_segmentation_of_another_series(tmp_path):
    slices = write_ct(tmp_path / "elsewhere", identity="other")
    write_ct(tmp_path / "scans" / "ct")
    write_segmentation(tmp_path / "scans" / "ct" / "seg.dcm", slices, LABELS, classes=["cyst"], identity="other")
    (scan,) = find_scans(tmp_path / "scans")
    assert scan.mask is None
    assert scan.fault == "no mask found for it: the DICOM-SEG in its folder refers to a series that is not there"


def test_damaged_dicom_files_are_named(tmp_path):
    write_ct(tmp_path / "ct")
    (tmp_path / "ct" / "x.dcm").write_bytes(b"nothing of the kind")
    scans = find_scans(tmp_path)
    assert [(scan.shown, scan.fault) for scan in scans if scan.fault.startswith("not")] == [
        ("ct/x.dcm", "not a readable DICOM file of a series")
    ]


def test_a_table_says_what_nobody_can_guess(tmp_path):
    for name in ("one", "two", "three"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
        write_mask(tmp_path / "other" / f"m{name}.nii.gz")
    table = tmp_path / "table.csv"
    table.write_text(
        "scan,mask,patient,date,label,value\n"
        "scans/one.nii.gz,other/mone.nii.gz,7,2020-01-02,cyst,\n"
        "scans/two.nii.gz,other/mtwo.nii.gz,8,,cyst,1\n"
        "scans/two.nii.gz,other/mtwo.nii.gz,8,,metastasis,2\n"
    )
    one, two = find_scans(tmp_path / "scans", table=table)
    assert (one.patient, one.date, one.classes, one.fault) == ("7", "20200102", {0: "cyst"}, "")
    assert (two.classes, two.mask.name) == ({1: "cyst", 2: "metastasis"}, "mtwo.nii.gz")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("file,mask\na,b\n", "no column 'scan'"),
        ("scan\nscans/none.nii.gz\n", "line 2: scans/none.nii.gz does not exist"),
        ("scan,mask\nscans/one.nii.gz,none.nii\n", "line 2: none.nii does not exist"),
        ("scan\nscans/one.nii.gz\nscans/one.nii.gz\n", "line 3: scans/one.nii.gz stands there twice"),
        ("scan,label,value\nscans/one.nii.gz,cyst,x\n", "value must be a mask's value, a whole number above 0"),
        ("scan\nscans\n", "0 scans in scans"),
        ("scan,date\nscans/one.nii.gz,3.1.20\n", "date must be year, month and day"),
    ],
)
def test_tables_that_cannot_be(tmp_path, text, error):
    write_scan(tmp_path / "scans" / "one.nii.gz")
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=error):
        find_scans(tmp_path / "scans", table=tmp_path / "table.csv")


def test_nothing_there(tmp_path):
    with pytest.raises(MissingPathError, match="no such folder; give one with DICOM series"):
        find_scans(tmp_path / "no")
    with pytest.raises(MissingPathError, match="--masks .*: no such folder"):
        find_scans(tmp_path, masks=tmp_path / "no")
    with pytest.raises(InputError, match="no scans in it"):
        find_scans(tmp_path)
