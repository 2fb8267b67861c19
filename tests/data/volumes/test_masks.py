"""Masks on the voxels of their scan."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from genmix_transforms.data.volumes.dicom_series import read_series
from genmix_transforms.data.volumes.masks import read_mask
from genmix_transforms.data.volumes.writing import write_nifti, write_segmentation
from genmix_transforms.errors import InputError
from tests.data.volumes.made_scans import SHAPE, SPACING, ball, points_of, slices_of, write_ct

LABELS = ball(points_of(), points_of()[4, 10, 11]) + 2 * ball(points_of(), points_of()[6, 4, 5], 2.0)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_ct(folder / "ct")
    return read_series(slices_of(folder / "ct"))


def array(mask):
    return sitk.GetArrayFromImage(mask)


def test_nifti(scan, tmp_path):
    write_nifti(tmp_path / "mask.nii.gz", LABELS, spacing=SPACING)
    assert np.array_equal(array(read_mask(tmp_path / "mask.nii.gz", scan)), LABELS)


def test_nifti_whose_axes_run_otherwise(scan, tmp_path):
    """As most tools write: the same places, rows and columns from the other end."""
    affine = np.diag([*SPACING[::-1], 1.0])
    affine[:3, 3] = [-(SHAPE[2] - 1) * SPACING[2], -(SHAPE[1] - 1) * SPACING[1], 0]
    nibabel.save(nibabel.Nifti1Image(LABELS[:, ::-1, ::-1].transpose(2, 1, 0), affine), tmp_path / "mask.nii")
    assert np.array_equal(array(read_mask(tmp_path / "mask.nii", scan)), LABELS)


def test_a_dicom_segmentation_of_some_slices(tmp_path):
    slices = write_ct(tmp_path / "ct")
    write_segmentation(tmp_path / "seg.dcm", slices, LABELS, classes=["cyst", "metastasis"], identity="seg")
    volume = read_series(slices_of(tmp_path / "ct"))
    mask = read_mask(tmp_path / "seg.dcm", volume)
    assert np.array_equal(array(mask), LABELS)
    assert mask.GetSpacing() == pytest.approx(volume.spacing)
    assert mask.GetOrigin() == pytest.approx(volume.image.GetOrigin())


def test_a_dicom_segmentation_of_an_oblique_scan(tmp_path):
    turn = np.radians(15)
    axes = ((1, 0, 0), (0, np.cos(turn), np.sin(turn)), (0, -np.sin(turn), np.cos(turn)))
    slices = write_ct(tmp_path / "ct", axes=axes)
    write_segmentation(tmp_path / "seg.dcm", slices, LABELS, classes=["cyst", "metastasis"], identity="seg")
    assert np.array_equal(array(read_mask(tmp_path / "seg.dcm", read_series(slices_of(tmp_path / "ct")))), LABELS)


def test_of_another_shape(scan, tmp_path):
    write_nifti(tmp_path / "mask.nii", LABELS[:, 1:], spacing=SPACING)
    with pytest.raises(InputError, match="a mask with a different shape: 22x19x9 voxels, the scan has 22x20x9"):
        read_mask(tmp_path / "mask.nii", scan)


def test_of_other_voxels(scan, tmp_path):
    write_nifti(tmp_path / "mask.nii", LABELS, spacing=(3.0, 0.7, 0.8))
    with pytest.raises(InputError, match=r"a mask of other voxels: 0.8x0.7x3 mm, the scan's are 0.8x0.8x3 mm"):
        read_mask(tmp_path / "mask.nii", scan)


@pytest.mark.parametrize(("shift", "text"), [(0.4, "its voxels are 0.4 mm off"), (1.6, "2, 0, 0 voxels off the scan")])
def test_that_lies_elsewhere(scan, tmp_path, shift, text):
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[0, 3] = -shift
    nibabel.save(nibabel.Nifti1Image(LABELS.transpose(2, 1, 0), affine), tmp_path / "mask.nii")
    with pytest.raises(InputError, match=f"a mask that lies elsewhere: {text}"):
        read_mask(tmp_path / "mask.nii", scan)


def test_empty(scan, tmp_path):
    write_nifti(tmp_path / "mask.nii", np.zeros(SHAPE, np.uint8), spacing=SPACING)
    with pytest.raises(InputError, match="an empty mask"):
        read_mask(tmp_path / "mask.nii", scan)


def test_what_is_no_mask(scan, tmp_path):
    (tmp_path / "mask.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match="its DICOM-SEG makes no label volume"):
        read_mask(tmp_path / "mask.dcm", scan)
    (tmp_path / "mask.nrrd").write_bytes(b"nothing")
    with pytest.raises(InputError, match="its mask cannot be read"):
        read_mask(tmp_path / "mask.nrrd", scan)
