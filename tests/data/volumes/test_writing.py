"""The phantom as scans: what was drawn is what is read."""

import numpy as np
import pytest
import SimpleITK as sitk

from genmix_transforms.data import LesionPhantom
from genmix_transforms.data.volumes.dicom_series import read_series
from genmix_transforms.data.volumes.masks import read_mask
from genmix_transforms.data.volumes.nifti import read_nifti
from genmix_transforms.data.volumes.scans import find_scans
from genmix_transforms.errors import InputError, OverwriteError

PHANTOM = LesionPhantom(train=(1, 0, 1), val=(0, 0, 0), test=(0, 1, 0))
DRAWN = [PHANTOM.scan("cyst", 0), PHANTOM.scan("metastasis", 0), PHANTOM.scan("hemangioma", 0, split="test")]


@pytest.mark.parametrize("format", ["dicom", "nifti"])
def test_what_was_drawn_is_read(tmp_path, format):
    folder = tmp_path / "scans"
    PHANTOM.write_scans(folder, format=format)
    found = find_scans(folder, table=folder / "scans.csv" if format == "nifti" else None)
    assert len(found) == 3
    by_name = {scan.shown.removesuffix(".nii.gz"): scan for scan in found}
    for drawn in DRAWN:
        scan = by_name[drawn.name]
        volume = read_series(scan.files) if format == "dicom" else read_nifti(scan.files[0])
        assert np.array_equal(volume.array, drawn.voxels)
        assert volume.spacing == pytest.approx(drawn.spacing[::-1], abs=1e-4)
        assert np.array_equal(sitk.GetArrayFromImage(read_mask(scan.mask, volume)), drawn.mask)
        assert scan.patient == drawn.patient
    assert by_name[DRAWN[0].name].date < by_name[DRAWN[2].name].date  # who trains came first


def test_the_lesion_is_that_of_the_patch():
    """Same outline in the middle slice, same patient: inside a cyst is dark in both."""
    patch = PHANTOM.render("cyst", 0)
    middle = DRAWN[0].voxels[DRAWN[0].voxels.shape[0] // 2]
    inside = DRAWN[0].mask[DRAWN[0].mask.shape[0] // 2] > 0
    assert middle[inside].mean() == pytest.approx(patch[28:36, 28:36].mean(), abs=15)
    assert middle[~inside].mean() > middle[inside].mean() + 30
    assert set(np.unique(DRAWN[2].mask)) == {0, 2}


def test_the_same_seed_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        PHANTOM.write_scans(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("[0-9]*.dcm"))
    assert files
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_refused(tmp_path):
    with pytest.raises(InputError, match="format must be 'dicom' or 'nifti', got 'png'"):
        PHANTOM.write_scans(tmp_path, format="png")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(OverwriteError, match="there are files in it; give a new folder"):
        PHANTOM.write_scans(tmp_path)
    with pytest.raises(InputError, match="LesionPhantom.scan: number"):
        PHANTOM.scan("cyst", -1)
