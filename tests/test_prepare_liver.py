"""Liver CT from its archive: the same arrays as the file in use, upright, and slices that show liver."""

import gzip
import sys
import tarfile

import numpy as np
import pytest

from genmix_transforms.data import LiverSlices
from genmix_transforms.errors import InputError

FORM = {"images": "uint8", "liver_mask": "uint8", "patient": "int32", "slice": "int32"}
"""The arrays of the file in use, and their dtypes."""

SIDE, DEPTH = 64, 7


@pytest.fixture
def script(load_benchmarks):
    pytest.importorskip("nibabel")
    return load_benchmarks("prepare_liver")["prepare_liver"]


def nifti(values, codes):
    """A volume whose axes go the ways of ``codes``, as a file."""
    import nibabel
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    image = nibabel.Nifti1Image(apply_orientation(values, turn), inv_ornt_aff(turn, values.shape))
    return gzip.compress(image.to_bytes(), compresslevel=1)


def volume():
    """Hounsfield units and labels, towards the right, the front and the head. The liver is at the right, in front."""
    units = np.full((SIDE, SIDE, DEPTH), -1000, dtype=np.int16)
    units[8:56, 8:56] = 40
    labels = np.zeros(units.shape, dtype=np.uint8)
    units[36:52, 32:52, 3:6] = 110
    labels[36:52, 32:52, 3:6] = 1
    units[40:44, 40:44, 4], labels[40:44, 40:44, 4] = 700, 2
    return units, labels


@pytest.fixture
def archive(tmp_path):
    """Three volumes, whose axes go different ways; the last shows no liver."""
    units, labels = volume()
    with tarfile.open(tmp_path / "liver.tar", "w") as file:
        for number, codes in ((10, "RAS"), (2, "LPS"), (30, "ASR")):
            shown = labels * (number != 30)
            for folder, values in (("imagesTr", units), ("labelsTr", shown.astype(np.uint8))):
                content = nifti(values, codes)
                (tmp_path / "one").write_bytes(content)
                file.add(tmp_path / "one", f"Task03_Liver/{folder}/liver_{number}.nii.gz")
    return tmp_path / "liver.tar"


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_liver.py", *map(str, arguments)])
    script.main()


def test_the_arrays_are_those_of_the_file_in_use(script, archive, tmp_path, monkeypatch, capsys):
    run(script, monkeypatch, archive, "--out", tmp_path / "liver.npz", "--slices", 2)
    arrays = dict(np.load(tmp_path / "liver.npz"))
    assert {name: str(array.dtype) for name, array in arrays.items()} == FORM
    assert arrays["images"].shape == (4, 256, 256)
    assert arrays["liver_mask"].shape == (4, 256, 32)
    assert arrays["patient"].tolist() == [2, 2, 10, 10]
    assert set(arrays["slice"]) <= {3, 4, 5}
    assert capsys.readouterr().out.splitlines()[-1].endswith("4 slices of 2 patients")


def test_a_slice_is_seen_from_the_feet(script, archive, tmp_path, monkeypatch):
    """The patient's right is at the left, the front at the top, whichever way the file's axes go."""
    run(script, monkeypatch, archive, "--out", tmp_path / "liver.npz", "--slices", 9)
    arrays = dict(np.load(tmp_path / "liver.npz"))
    assert arrays["slice"].tolist() == [3, 4, 5] * 2
    masks = np.unpackbits(arrays["liver_mask"], axis=-1).astype(bool)
    scale = 256 // SIDE
    expected = np.zeros((256, 256), dtype=bool)
    expected[(SIDE - 52) * scale : (SIDE - 32) * scale, (SIDE - 52) * scale : (SIDE - 36) * scale] = True
    assert (masks == expected).all()
    images = arrays["images"]
    assert np.array_equal(images[:3], images[3:])
    assert set(np.unique(images)) == {0, 40, 110, 255}  # air and the bright lesion are clipped
    assert (images[0][expected] == 110).all()


def test_the_simulator_takes_it(script, archive, tmp_path, monkeypatch):
    run(script, monkeypatch, archive, "--out", tmp_path / "liver.npz")
    assert str(LiverSlices.open(tmp_path / "liver.npz")) == "liver.npz: 6 slices of 2 patients, 256 x 256"


def test_the_form_of_the_real_file(real_data):
    path = real_data / "liver_ct_256.npz"
    if not path.exists():
        pytest.skip("no liver_ct_256.npz")
    assert {name: str(array.dtype) for name, array in np.load(path).items()} == FORM


def test_the_seed_chooses_the_slices(script):
    mask = np.ones((4, 4, 100), dtype=bool)
    one, again, other = (script.draw_slices(mask, 5, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert (np.diff(one) > 0).all()


def test_what_is_no_archive(script, tmp_path, monkeypatch):
    path = tmp_path / "liver.tar"
    path.write_bytes(b"no tar" * 1000)
    with pytest.raises(InputError, match=r"cannot be read as a tar; give the archive as it was published"):
        run(script, monkeypatch, path, "--out", tmp_path / "liver.npz")
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(InputError, match=r"no volumes; expected files such as Task03_Liver/imagesTr/liver_0.nii.gz"):
        run(script, monkeypatch, path, "--out", tmp_path / "liver.npz")
    with tarfile.open(path, "w") as file:
        (tmp_path / "one").write_bytes(nifti(volume()[0], "RAS"))
        file.add(tmp_path / "one", "imagesTr/liver_1.nii.gz")
    with pytest.raises(InputError, match=r"liver_1.nii.gz has no labelsTr/liver_1.nii.gz"):
        run(script, monkeypatch, path, "--out", tmp_path / "liver.npz")
    assert not (tmp_path / "liver.npz").exists()
