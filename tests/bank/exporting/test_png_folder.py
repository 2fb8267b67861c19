"""A PNG export is a folder of class folders, and its pixels are the bank's, bit for bit."""

import csv
import json

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import export_png
from genmix_transforms.errors import InputError
from tests.bank.exporting.other_readers import KINDS, as_float32, facts_of


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_png_files_hold_the_bank(full_bank, tmp_path, shape, dtype):
    bank = full_bank(shape, dtype)
    export_png(bank, tmp_path / "png")
    again = SyntheticBank.from_folder(tmp_path / "png")
    assert again.images.dtype == dtype
    assert torch.equal(again.images, bank.images)
    assert torch.equal(again.labels, bank.labels)
    assert again.classes == bank.classes


def test_the_metadata_of_png_files(full_bank, tmp_path):
    bank = full_bank()
    export_png(bank, tmp_path / "png")
    with open(tmp_path / "png/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file_name", "label", "seed", "source", "distance", "flags"]
    for number, row in enumerate(rows):
        name = bank.classes[bank.labels[number]]
        assert (row.pop("file_name"), row.pop("label")) == (f"{name}/{number:08d}.png", name)
        known = as_float32(row)
        assert {key: value if key == "distance" else int(value) for key, value in known.items()} == facts_of(
            bank, number
        )
    assert [row["distance"] == "" for row in rows] == torch.isnan(bank.distance).tolist()


def test_what_the_rows_cannot_say(full_bank, tmp_path):
    export_png(full_bank(dtype=torch.uint16, window=(-100.0, 200.0)), tmp_path / "png")
    info = json.loads((tmp_path / "png/dataset_info.json").read_text())
    assert info == {
        "format": "genmix-export",
        "kind": "png",
        "count": 7,
        "classes": ["cyst", "hemangioma", "metastasis"],
        "class_counts": {"cyst": 2, "hemangioma": 2, "metastasis": 3},
        "dtype": "uint16",
        "shape": [1, 5, 4],
        "window": [-100.0, 200.0],
        "sources": [{"generator": "dcgan"}, {"generator": "adm"}],
    }


def test_a_class_without_images_has_no_folder(make_bank, tmp_path):
    export_png(make_bank((0, 2, 2)), tmp_path / "png")
    assert sorted(path.name for path in (tmp_path / "png").iterdir() if path.is_dir()) == ["cyst", "metastasis"]


@pytest.mark.parametrize("name", [".hidden", "metadata.csv", "dataset_info.json"])
def test_a_class_that_cannot_name_a_folder(make_bank, tmp_path, name):
    bank = make_bank((0, 1), classes=("cyst", name))
    with pytest.raises(InputError, match="would be taken for something else"):
        export_png(bank, tmp_path / "png")
    assert list(tmp_path.iterdir()) == []


def test_soft_labels_go_along(make_bank, tmp_path):
    bank = make_bank(torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]]))
    export_png(bank, tmp_path / "png")
    with open(tmp_path / "png/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert torch.equal(torch.tensor([json.loads(row["probabilities"]) for row in rows]), bank.labels)
    assert [row["label"] for row in rows] == [bank.classes[label.argmax()] for label in bank.labels]
