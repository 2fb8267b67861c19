"""NIfTI volumes and label volumes."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from genmix_transforms.data.volumes.nifti import read_labels, read_nifti
from genmix_transforms.errors import InputError
from tests.data.volumes.made_scans import hounsfield, points_of

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEARED = np.array([[-1, 0, 0.2, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def save(path, array, affine=None, *, big_endian=False):
    """An array ``(i, j, k)``; the affine is RAS."""
    header = nibabel.Nifti1Header(endianness=">" if big_endian else "<")
    header.set_data_dtype(array.dtype)
    nibabel.save(nibabel.Nifti1Image(array, RAS if affine is None else affine, header), path)
    return path


@pytest.mark.parametrize("big_endian", [False, True])
def test_values_and_place(tmp_path, big_endian):
    points = points_of((4, 5, 6), (3.0, 0.7, 0.8), origin=(-20, 30, 5))
    affine = RAS @ np.array([[0.8, 0, 0, -20], [0, 0.7, 0, 30], [0, 0, 3, 5], [0, 0, 0, 1]])
    voxels = np.rint(hounsfield(points)).astype(np.int16)
    volume = read_nifti(save(tmp_path / "a.nii.gz", voxels.transpose(2, 1, 0), affine, big_endian=big_endian))
    assert np.array_equal(volume.array, voxels)
    assert volume.spacing == pytest.approx((0.8, 0.7, 3))
    assert volume.image.GetOrigin() == pytest.approx((-20, 30, 5))
    assert volume.hounsfield is None


def test_flipped_axes_are_brought_to_the_patients(tmp_path):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_nifti(save(tmp_path / "a.nii", voxels, np.diag([1.0, 1, 1, 1])))  # RAS, as most tools write
    assert np.array_equal(volume.array, voxels.transpose(2, 1, 0)[:, ::-1, ::-1])


def test_a_slope_in_the_header(tmp_path):
    image = nibabel.Nifti1Image(np.array([0.0, 0.5, 1.0, 1.5]).reshape(4, 1, 1), RAS)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").array.flatten() == pytest.approx([0, 0.5, 1, 1.5], abs=1e-3)


def test_axes_of_length_one_at_the_end(tmp_path):
    assert read_nifti(save(tmp_path / "a.nii", np.zeros((2, 3, 4, 1), np.int16))).array.shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("array", "affine", "text"),
    [
        (np.zeros((2, 3, 4, 5), np.int16), None, r"4-D \(2x3x4x5\); give one volume"),
        (np.full((2, 2, 2), np.nan, np.float32), None, "8 of its voxels are NaN or infinite"),
        (np.zeros((2, 2, 2), np.complex64), None, "its voxels are complex64"),
        (np.zeros((2, 2, 2), np.int16), SHEARED, "sheared axes"),
    ],
)
def test_what_is_no_volume(tmp_path, array, affine, text):
    with pytest.raises(InputError, match=text) as error:
        read_nifti(save(tmp_path / "a.nii", array, affine))
    assert "a.nii" not in str(error.value)


def test_a_damaged_file(tmp_path):
    save(tmp_path / "a.nii", np.zeros((20, 20, 20), np.int16))
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable volume"):
        read_nifti(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="not a readable volume"):
        read_nifti(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_label_volumes(tmp_path, suffix):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3] = 7
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((0.5, 0.6, 2.0))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    read = read_labels(tmp_path / f"a{suffix}")
    assert np.array_equal(sitk.GetArrayFromImage(read), labels)
    assert read.GetSpacing() == pytest.approx((0.5, 0.6, 2.0))
    assert read.GetPixelID() == sitk.sitkUInt16


@pytest.mark.parametrize("value", [0.5, -1, 70000])
def test_what_is_no_label(tmp_path, value):
    with pytest.raises(InputError, match="other values than whole numbers from 0 up"):
        read_labels(save(tmp_path / "a.nii", np.full((2, 2, 2), value, np.float32)))


def test_what_nibabel_ships():
    """Each of its sample volumes is read, or one sentence says why not."""
    found, refused = [], []
    for file in sorted(Path(nibabel.__file__).parent.joinpath("tests", "data").iterdir()):
        if file.name.endswith((".nii", ".nii.gz", ".mgz")):
            try:
                found.append((file.name, read_nifti(file).array.shape))
            except InputError as error:
                refused.append(str(error))
    assert dict(found)["anatomical.nii"] == (25, 41, 33)
    assert len(found) >= 3
    assert any("4-D (17x21x3x20)" in text for text in refused)
