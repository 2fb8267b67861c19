"""Parquet files that the datasets library reads: images, labels and their names, and what is known of each."""

import sys

import numpy as np
import pytest
import torch

from genmix_transforms.bank.exporting import export_parquet
from genmix_transforms.errors import InputError, MissingExtraError
from tests.bank.exporting.other_readers import KINDS, as_float32, facts_of


def read_parquet(datasets, folder, cache):
    return datasets.load_dataset("parquet", data_dir=str(folder), split="train", cache_dir=str(cache))


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_the_datasets_library_reads_the_bank(full_bank, tmp_path, shape, dtype):
    datasets = pytest.importorskip("datasets")
    bank = full_bank(shape, dtype)
    export_parquet(bank, tmp_path / "parquet", images_per_file=3)
    names = sorted(path.name for path in (tmp_path / "parquet").glob("*.parquet"))
    assert names == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    data = read_parquet(datasets, tmp_path / "parquet", tmp_path / "cache")
    assert data.features == datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(bank.classes)),
            "seed": datasets.Value("int64"),
            "source": datasets.Value("int32"),
            "distance": datasets.Value("float32"),
            "flags": datasets.Value("uint8"),
        }
    )
    rows = [
        int(value["path"].removesuffix(".png"))
        for value in data.cast_column("image", datasets.Image(decode=False))["image"]
    ]
    assert sorted(rows) == list(range(7))
    assert rows != list(range(7))
    for row, record in zip(rows, data, strict=True):
        pixels = np.asarray(record.pop("image"))
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        assert torch.equal(
            torch.from_numpy(pixels.astype(np.uint16 if dtype == torch.uint16 else np.uint8)), bank.images[row]
        )
        assert record.pop("label") == bank.labels[row]
        assert as_float32(record) == facts_of(bank, row)


def test_row_groups_are_small(make_bank, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export_parquet(make_bank([0] * 250), tmp_path / "parquet")
    file = parquet.ParquetFile(tmp_path / "parquet/train-00000-of-00001.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)] == [
        100,
        100,
        50,
    ]


def test_soft_labels_go_along(make_bank, tmp_path):
    datasets = pytest.importorskip("datasets")
    bank = make_bank(torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]]))
    export_parquet(bank, tmp_path / "parquet", seed=None)
    data = read_parquet(datasets, tmp_path / "parquet", tmp_path / "cache")
    assert torch.equal(torch.tensor(data["probabilities"][:]), bank.labels)
    assert data["label"][:] == bank.labels.argmax(dim=1).tolist()


def test_the_extra_that_it_needs(full_bank, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'genmix-transforms\[datasets\]'"):
        export_parquet(full_bank(), tmp_path / "parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [0, -1, 2.5, True])
def test_a_number_of_images_that_makes_no_file(full_bank, tmp_path, number):
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="images_per_file must be a whole number, at least 1"):
        export_parquet(full_bank(), tmp_path / "parquet", images_per_file=number)
