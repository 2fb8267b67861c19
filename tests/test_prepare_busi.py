"""BUSI from its archive: the same arrays as the file in use, masks left out, and what is alike in one group."""

import io
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from genmix_transforms.data import open_dataset
from genmix_transforms.errors import InputError

FORM = {"images": "uint8", "labels": "uint8", "label_names": "U", "dup_group": "int32", "files": "U"}
"""The arrays of the file in use, and their dtypes."""


@pytest.fixture
def script(load_benchmarks):
    return load_benchmarks("prepare_busi")["prepare_busi"]


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Two images of each class, of which benign 2 and 10 are one lesion; masks, and a color image."""
    rng = np.random.default_rng(0)
    images = {(name, number): rng.integers(0, 256, (40, 60), dtype=np.uint8) for name in ("normal", "malignant")
              for number in (1, 2)}  # fmt: skip
    lesion = rng.integers(0, 200, (40, 60), dtype=np.uint8)
    images |= {("benign", 10): lesion, ("benign", 2): lesion + 20}
    with zipfile.ZipFile(tmp_path / "busi.zip", "w") as file:
        for (name, number), image in images.items():
            stem = f"Dataset_BUSI_with_GT/{name}/{name} ({number})"
            shown = np.stack([image] * 3, axis=-1) if name == "normal" else image
            file.writestr(f"{stem}.png", png(shown))
            file.writestr(f"{stem}_mask.png", png(np.zeros((40, 60), dtype=np.uint8)))
    return tmp_path / "busi.zip"


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_busi.py", *map(str, arguments)])
    script.main()


def test_the_arrays_are_those_of_the_file_in_use(script, archive, tmp_path, monkeypatch, capsys):
    run(script, monkeypatch, archive, "--out", tmp_path / "busi.npz")
    arrays = dict(np.load(tmp_path / "busi.npz"))
    assert {
        name: array.dtype.kind if array.dtype.kind == "U" else str(array.dtype) for name, array in arrays.items()
    } == FORM
    assert arrays["images"].shape == (6, 128, 128)
    assert arrays["label_names"].tolist() == ["normal", "benign", "malignant"]
    assert arrays["labels"].tolist() == [1, 1, 2, 2, 0, 0]
    assert arrays["files"].tolist()[:2] == [f"Dataset_BUSI_with_GT/benign/benign ({number}).png" for number in (2, 10)]
    assert arrays["dup_group"].tolist() == [0, 0, 1, 2, 3, 4]
    said = capsys.readouterr().out
    assert "6 images (normal 2, benign 2, malignant 2) in 5 groups" in said
    assert "the published archive has 780 images" in said


def test_it_is_opened_with_its_groups(script, archive, tmp_path, monkeypatch):
    run(script, monkeypatch, archive, "--out", tmp_path / "busi.npz")
    patches = open_dataset(tmp_path / "busi.npz")
    assert patches.class_counts == {"normal": 2, "benign": 2, "malignant": 2}
    assert patches.groups[0] == patches.groups[1]


def test_a_chain_of_likenesses_is_one_group(script):
    rng = np.random.default_rng(1)
    first, last = rng.normal(size=(2, 32, 32))
    steps = np.linspace(0, 0.3, 4)
    images = np.stack([128 + 30 * ((1 - step) * first + step * last) for step in steps]).clip(0, 255).astype(np.uint8)
    values = images.reshape(4, -1).astype(float)
    assert np.corrcoef(values)[0, 3] < script.ALIKE < np.corrcoef(values)[0, 1]
    assert script.group_duplicates(images).tolist() == [0, 0, 0, 0]


def test_the_groups_of_the_real_file(script, real_data):
    path = real_data / "busi_128.npz"
    if not path.exists():
        pytest.skip("no busi_128.npz")
    arrays = dict(np.load(path))
    assert set(arrays) == set(FORM)
    assert all(
        arrays[name].dtype.kind == "U" if dtype == "U" else arrays[name].dtype == dtype for name, dtype in FORM.items()
    )
    assert np.array_equal(script.group_duplicates(arrays["images"]), arrays["dup_group"])


def test_what_is_no_archive(script, tmp_path, monkeypatch):
    (tmp_path / "busi.zip").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"busi.zip: cannot be read as a zip .* as it was published"):
        run(script, monkeypatch, tmp_path / "busi.zip", "--out", tmp_path / "busi.npz")
    with zipfile.ZipFile(tmp_path / "busi.zip", "w") as file:
        file.writestr("Dataset_BUSI_with_GT/benign/benign (1).png", png(np.zeros((8, 8), dtype=np.uint8)))
    with pytest.raises(InputError, match="no images of normal, malignant; expected files such as"):
        run(script, monkeypatch, tmp_path / "busi.zip", "--out", tmp_path / "busi.npz")
    assert not (tmp_path / "busi.npz").exists()
