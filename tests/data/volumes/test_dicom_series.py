"""DICOM series: what gives the right voxels, and what one clear error."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless, RLELossless

from genmix_transforms.data.volumes.dicom_series import read_series
from genmix_transforms.data.volumes.volume import Volume
from genmix_transforms.errors import InputError
from tests.data.volumes.made_scans import SHAPE, SPACING, change, hounsfield, points_of, slices_of, write_ct

EXPECTED = np.rint(hounsfield(points_of()))


@pytest.fixture
def folder(tmp_path):
    write_ct(tmp_path / "ct")
    return tmp_path / "ct"


def read(folder):
    return read_series(slices_of(folder))


def refused(folder, text):
    with pytest.raises(InputError, match=text) as error:
        read(folder)
    assert str(folder) not in str(error.value)


def test_hounsfield_units_and_place(folder):
    volume = read(folder)
    assert np.array_equal(volume.array, EXPECTED)
    assert volume.array.dtype == np.int16
    assert volume.hounsfield
    assert volume.spacing == pytest.approx(SPACING[::-1])
    assert volume.notes == ()


def test_files_in_any_order_under_any_names(folder):
    files = slices_of(folder)
    assert np.array_equal(read_series(files[::-1][3:] + files[::-1][:3]).array, EXPECTED)


@pytest.mark.parametrize(
    "axes",
    [
        ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
        ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),  # sagittal
        ((1, 0, 0), (0, 0, -1), (0, 1, 0)),  # coronal
    ],
)
def test_every_orientation_is_brought_to_the_patients(tmp_path, axes):
    write_ct(tmp_path / "ct", axes=axes)
    volume = read(tmp_path / "ct")
    image = volume.image
    points = np.array([image.TransformIndexToPhysicalPoint(place) for place in [(0, 0, 0), (1, 2, 3), (4, 1, 0)]])
    found = [image.GetPixel(*place) for place in [(0, 0, 0), (1, 2, 3), (4, 1, 0)]]
    assert np.abs(hounsfield(points) - found).max() <= 0.51
    assert np.allclose(image.GetDirection(), np.eye(3).flatten(), atol=1e-6)


def test_an_oblique_series_keeps_its_voxels(tmp_path):
    turn = np.radians(20)
    axes = ((1, 0, 0), (0, np.cos(turn), np.sin(turn)), (0, -np.sin(turn), np.cos(turn)))
    write_ct(tmp_path / "ct", axes=axes)
    volume = read(tmp_path / "ct")
    assert np.abs(volume.array - hounsfield(points_of(axes=axes))).max() <= 0.51
    assert np.allclose(volume.image.GetDirection(), np.array(axes).T.flatten(), atol=1e-6)


def test_signed_values_and_a_slope(folder):
    for file in slices_of(folder):

        def halve(header):
            values = (header.pixel_array.astype(int) - 1024) * 2
            header.PixelRepresentation, header.RescaleIntercept, header.RescaleSlope = 1, 0, 0.5
            header.PixelData = values.astype("<i2").tobytes()

        change(file, halve)
    volume = read(folder)
    assert np.array_equal(volume.array, EXPECTED)
    assert volume.array.min() < 0


def test_big_endian(folder):
    for file in slices_of(folder):

        def swap(header):
            header.PixelData = header.pixel_array.astype(">u2").tobytes()
            header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

        header = pydicom.dcmread(file)
        swap(header)
        pydicom.dcmwrite(file, header, implicit_vr=False, little_endian=False)
    assert np.array_equal(read(folder).array, EXPECTED)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_compressed(folder, syntax):
    for file in slices_of(folder):
        change(file, lambda header: header.compress(syntax))
    assert np.array_equal(read(folder).array, EXPECTED)


def test_one_slice(folder):
    volume = read_series(slices_of(folder)[3:4])
    assert np.array_equal(volume.array, EXPECTED[3:4])
    assert volume.spacing[2] == 3


def test_a_file_that_is_there_twice(folder):
    shutil.copy(slices_of(folder)[2], folder / "again.dcm")
    volume = read(folder)
    assert np.array_equal(volume.array, EXPECTED)
    assert volume.notes == ("1 files are copies of others",)


def test_a_slice_that_is_there_twice(folder):
    shutil.copy(slices_of(folder)[2], folder / "again.dcm")
    change(folder / "again.dcm", lambda header: setattr(header, "SOPInstanceUID", "1.2.3"))
    volume = read(folder)
    assert np.array_equal(volume.array, EXPECTED)
    assert volume.notes == ("1 slices are there twice, voxel by voxel",)


def test_two_slices_in_one_place(folder):
    file = folder / "again.dcm"
    shutil.copy(slices_of(folder)[2], file)

    def other(header):
        header.SOPInstanceUID = "1.2.3"
        header.PixelData = bytes(len(header.PixelData))

    change(file, other)
    refused(folder, "several different slices in one place: two reconstructions or phases")


def test_four_dimensions(folder):
    write_ct(folder, identity="late", voxels=np.zeros(SHAPE, np.int16))
    late = folder.with_name("late")
    write_ct(late, voxels=np.zeros(SHAPE, np.int16))
    write_ct(folder)
    for file in slices_of(late):

        def other(header):
            header.SOPInstanceUID = header.SOPInstanceUID + ".1"

        change(file, other)
        shutil.copy(file, folder / f"late-{file.name}")
    refused(folder, "4-D: 2 images in each of its 9 places")


@pytest.mark.parametrize(("gone", "missing"), [([4], 1), ([4, 5], 2), ([2, 6], 2)])
def test_missing_slices(folder, gone, missing):
    for number in gone:
        slices_of(folder)[0].with_name(f"{number:04}.dcm").unlink()
    refused(
        folder, rf"{missing} of 9 slices missing: after slice {gone[0]} there is a gap of [69] mm, the others are 3 mm"
    )


def test_uneven_slices(folder):
    change(slices_of(folder)[8], lambda header: setattr(header, "ImagePositionPatient", [0, 0, 25.2]))
    refused(folder, "slices are not evenly spaced: from 3 to 4.2 mm")


def test_gantry_tilt(tmp_path):
    lean = np.tan(np.radians(10))
    write_ct(tmp_path / "ct", axes=((1, 0, 0), (0, 1, 0), (0, lean, 1)), GantryDetectorTilt=10)
    refused(tmp_path / "ct", r"gantry tilt: each slice lies aside of the one before, by 10\.0 degrees")


def test_a_localizer_under_the_same_number(folder):
    change(slices_of(folder)[0], lambda header: setattr(header, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]))
    refused(folder, "slices of several orientations under one series number: a localizer")


def test_slices_of_other_sizes(folder):
    def smaller(header):
        header.Rows = 10
        header.PixelData = header.PixelData[: 10 * 22 * 2]

    change(slices_of(folder)[0], smaller)
    refused(folder, "slices of 2 sizes .10x22, 20x22. under one series number")


def test_slices_of_other_pixels(folder):
    change(slices_of(folder)[0], lambda header: setattr(header, "PixelSpacing", [0.8, 0.9]))
    refused(folder, "pixel spacings from 0.8 to 0.9 mm under one series number")


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slices_without_a_place(folder, name):
    for file in slices_of(folder):
        change(file, lambda header: header.pop(name))
    refused(folder, f"no {name} in it: where its slices lie is not said")


def test_ct_without_a_way_to_hounsfield_units(folder):
    for file in slices_of(folder):
        change(file, lambda header: header.pop("RescaleIntercept"))
    refused(folder, "CT whose rescale tags do not lead to Hounsfield units")


def test_color(folder):
    for file in slices_of(folder):
        change(file, lambda header: setattr(header, "PhotometricInterpretation", "MONOCHROME1"))
    refused(folder, "MONOCHROME1 images; only gray ones")


def test_damaged_pixels(folder):
    change(slices_of(folder)[4], lambda header: header.compress(RLELossless))
    change(slices_of(folder)[4], lambda header: setattr(header, "PixelData", header.PixelData[:60] + bytes(20)))
    refused(folder, r"its pixel data \(RLE Lossless\) cannot be decoded: damaged, or no decoder")


SHIPPED = sorted(Path(pydicom.__file__).parent.joinpath("data", "test_files").glob("*.dcm"))


def test_what_pydicom_ships():
    """Each of its sample files is a volume, or one sentence says why not."""
    found, refused = {}, {}
    for file in SHIPPED:
        try:
            found[file.name] = read_series([file])
        except InputError as error:
            refused[file.name] = str(error)
    assert len(found) >= 15
    assert all(text and name not in text for name, text in refused.items())
    assert refused["MR_truncated.dcm"].startswith("its pixel data (Explicit VR Little Endian) cannot be decoded")
    assert all(isinstance(volume, Volume) for volume in found.values())
    assert found["CT_small.dcm"].array.shape == (1, 128, 128)
    plain = found["MR_small.dcm"].array
    for name in ("MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_implicit.dcm"):
        assert np.array_equal(found[name].array, plain)
