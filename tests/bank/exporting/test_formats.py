"""PNG folders, WebDataset shards and Parquet files hold the bank, bit for bit, and nothing else."""

import csv
import json
import sys
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import export_parquet, export_png, export_webdataset
from genmix_transforms.errors import InputError, MissingExtraError
from tests.bank.exporting.other_readers import KINDS, as_float32, decoded, facts_of, tar_samples

# A PNG export is a folder of class folders, and its pixels are the bank's, bit for bit


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
        "mask_classes": None,
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


# WebDataset shards are plain tar files: the bank's images, bit for bit, and nothing of the machine that wrote them


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_tar_shards_hold_the_bank(full_bank, tmp_path, shape, dtype):
    bank = full_bank(shape, dtype)
    export_webdataset(bank, tmp_path / "tar", images_per_shard=3)
    assert sorted(path.name for path in (tmp_path / "tar").glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    found = tar_samples(tmp_path / "tar")
    assert sorted(found) == [f"{row:08d}" for row in range(7)]
    for key, files in found.items():
        row = int(key)
        assert list(files) == ["png", "cls", "json"]
        assert torch.equal(decoded(files["png"]), bank.images[row])
        assert int(files["cls"]) == bank.labels[row]
        facts = as_float32(json.loads(files["json"]))
        assert facts == {"label": bank.classes[bank.labels[row]], **facts_of(bank, row)}


def test_the_headers_of_tar_shards_hold_no_time_and_no_user(full_bank, tmp_path):
    export_webdataset(full_bank(), tmp_path / "tar")
    with tarfile.open(tmp_path / "tar/000000.tar") as shard:
        members = shard.getmembers()
    assert len(members) == 21
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.isreg(), member.pax_headers) == (0o644, True, {})


@pytest.mark.parametrize("per_shard", [1, 2, 7, 100])
def test_shards_are_full_but_the_last(full_bank, tmp_path, per_shard):
    export_webdataset(full_bank(), tmp_path / "tar", images_per_shard=per_shard)
    sizes = []
    for path in sorted((tmp_path / "tar").glob("*.tar")):
        with tarfile.open(path) as shard:
            sizes.append(len(shard.getnames()) // 3)
    assert sizes[:-1] == [per_shard] * (len(sizes) - 1)
    assert sum(sizes) == 7


def test_the_order_mixes_the_classes(make_bank, tmp_path):
    bank = make_bank([0] * 50 + [1] * 50)
    export_webdataset(bank, tmp_path / "tar", images_per_shard=20)
    for path in (tmp_path / "tar").glob("*.tar"):
        with tarfile.open(path) as shard:
            labels = {shard.extractfile(name).read() for name in shard.getnames() if name.endswith(".cls")}
        assert labels == {b"0", b"1"}
    export_webdataset(bank, tmp_path / "own", seed=None)
    assert list(tar_samples(tmp_path / "own")) == [f"{row:08d}" for row in range(100)]


def test_the_webdataset_library_reads_it(full_bank, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    bank = full_bank((3, 5, 4))
    export_webdataset(bank, tmp_path / "tar", images_per_shard=4)
    urls = [str(path) for path in sorted((tmp_path / "tar").glob("*.tar"))]
    read = list(
        webdataset.WebDataset(urls, shardshuffle=False).decode("torchrgb8").to_tuple("__key__", "png", "cls", "json")
    )
    assert sorted(key for key, *_ in read) == [f"{row:08d}" for row in range(7)]
    for key, image, label, facts in read:
        assert torch.equal(image, bank.images[int(key)])
        assert label == bank.labels[int(key)]
        assert facts["seed"] == bank.seeds[int(key)]


@pytest.mark.parametrize("number", [0, -1, 2.5, True])
def test_a_number_of_images_that_makes_no_shard(full_bank, tmp_path, number):
    with pytest.raises(InputError, match="images_per_shard must be a whole number, at least 1"):
        export_webdataset(full_bank(), tmp_path / "tar", images_per_shard=number)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 12),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from([(1, torch.uint8), (1, torch.uint16), (3, torch.uint8)]),
    seed=st.integers(0, 1000),
    distance=st.floats(0, width=32, allow_infinity=False),
)
def test_tar_shards_hold_any_bank(tmp_path_factory, pixels, count, size, kind, seed, distance):
    channels, dtype = kind
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, count))
    bank = SyntheticBank(
        pixels(count, (channels, *size), dtype, seed=seed),
        labels,
        classes=["é", "a.b", "c"],
        distance=torch.full((count,), distance),
    )
    folder = tmp_path_factory.mktemp("any") / "tar"
    export_webdataset(bank, folder, images_per_shard=5, seed=seed)
    found = tar_samples(folder)
    assert torch.equal(torch.stack([decoded(found[f"{row:08d}"]["png"]) for row in range(count)]), bank.images)
    assert [json.loads(found[f"{row:08d}"]["json"])["label"] for row in range(count)] == [
        bank.classes[label] for label in bank.labels
    ]
    assert all(np.float32(json.loads(files["json"])["distance"]) == np.float32(distance) for files in found.values())


def test_soft_labels_go_along_in_tar_shards(make_bank, tmp_path):
    bank = make_bank(torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]]))
    export_webdataset(bank, tmp_path / "tar")
    for key, files in tar_samples(tmp_path / "tar").items():
        assert torch.equal(torch.tensor(json.loads(files["json"])["probabilities"]), bank.labels[int(key)])
        assert int(files["cls"]) == bank.labels[int(key)].argmax()


# Parquet files that the datasets library reads: images, labels and their names, and what is known of each


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


def test_soft_labels_go_along_in_parquet(make_bank, tmp_path):
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
