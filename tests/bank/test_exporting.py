"""Exports are read by other readers than ours, and what they read is the bank, bit for bit."""

import csv
import fcntl
import io
import json
import os
import sys
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import export_parquet, export_png, export_webdataset, samples
from genmix_transforms.errors import InputError, MissingExtraError, OverwriteError

KINDS = [((1, 5, 4), torch.uint8), ((1, 5, 4), torch.uint16), ((3, 5, 4), torch.uint8)]


@pytest.fixture(autouse=True)
def _pyarrow_is_there(request):
    named = getattr(request.node, "callspec", None)
    if named is not None and export_parquet in named.params.values():
        pytest.importorskip("pyarrow", reason="Parquet needs the datasets extra")


@pytest.fixture
def full_bank(make_bank):
    """Seven images with everything known of them, or nothing."""

    def make(shape=(1, 5, 4), dtype=torch.uint8, **options):
        return make_bank(
            shape=shape,
            dtype=dtype,
            seeds=torch.tensor([5, -1, 2**63 - 1, 0, 1, 2, 3]),
            source=torch.tensor([0, 1, 0, 1, 0, 1, 0], dtype=torch.int32),
            distance=torch.tensor([0.1, float("nan"), 1e-8, 3.0, 0.0, 1 / 3, float("nan")]),
            flags=torch.tensor([0, 255, 1, 2, 4, 8, 16], dtype=torch.uint8),
            provenance=[{"generator": "dcgan"}, {"generator": "adm"}],
            **options,
        )

    return make


def decoded(content):
    """An image of the bank from a PNG file, by Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image)
    pixels = pixels.astype(np.uint16) if image.mode.startswith("I") else pixels
    return torch.from_numpy(pixels[None].copy() if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0).copy())


def facts_of(bank, row):
    distance = float(bank.distance[row])
    return {
        "seed": int(bank.seeds[row]),
        "source": int(bank.source[row]),
        "distance": None if np.isnan(distance) else np.float32(distance),
        "flags": int(bank.flags[row]),
    }


def as_float32(facts):
    """Facts as they were read, with the distance as the float32 it is."""
    distance = facts["distance"]
    return {**facts, "distance": None if distance in (None, "") else np.float32(distance)}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_samples(folder):
    """Names without suffix -> {suffix: bytes}, in the order of the files, neighbours only."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            previous = None
            for member in shard:
                key, _, suffix = member.name.partition(".")
                assert key == previous or key not in found
                found.setdefault(key, {})[suffix] = shard.extractfile(member).read()
                previous = key
    return found


# PNG


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


# WebDataset


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


# Parquet


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


def test_the_extra_that_parquet_needs(full_bank, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'genmix-transforms\[datasets\]'"):
        export_parquet(full_bank(), tmp_path / "parquet")
    assert list(tmp_path.iterdir()) == []


# All three


def test_soft_labels_go_along(make_bank, tmp_path):
    labels = torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]])
    bank = make_bank(labels)
    export_webdataset(bank, tmp_path / "tar")
    for key, files in tar_samples(tmp_path / "tar").items():
        assert torch.equal(torch.tensor(json.loads(files["json"])["probabilities"]), bank.labels[int(key)])
        assert int(files["cls"]) == bank.labels[int(key)].argmax()
    export_png(bank, tmp_path / "png")
    with open(tmp_path / "png/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert torch.equal(torch.tensor([json.loads(row["probabilities"]) for row in rows]), bank.labels)
    assert [row["label"] for row in rows] == [bank.classes[label.argmax()] for label in bank.labels]


def test_soft_labels_go_along_in_parquet(make_bank, tmp_path):
    datasets = pytest.importorskip("datasets")
    bank = make_bank(torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]]))
    export_parquet(bank, tmp_path / "parquet", seed=None)
    data = read_parquet(datasets, tmp_path / "parquet", tmp_path / "cache")
    assert torch.equal(torch.tensor(data["probabilities"][:]), bank.labels)
    assert data["label"][:] == bank.labels.argmax(dim=1).tolist()


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
def test_equal_banks_give_equal_bytes(full_bank, tmp_path, export, monkeypatch):
    export(full_bank(), tmp_path / "one")
    monkeypatch.setattr(samples, "_PIECE_BYTES", 41)  # two images a piece
    export(full_bank(), tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize("export", [export_webdataset, export_parquet])
def test_another_seed_is_another_order_of_the_same(full_bank, tmp_path, export):
    export(full_bank(), tmp_path / "one")
    export(full_bank(), tmp_path / "other", seed=1)
    assert contents(tmp_path / "one") != contents(tmp_path / "other")
    with pytest.raises(InputError, match="seed must be a whole number"):
        export(full_bank(), tmp_path / "third", seed=-1)


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
def test_a_bank_on_disk_is_not_brought_into_memory(full_bank, tmp_path, export):
    bank = full_bank()
    bank.save(tmp_path / "bank")
    on_disk = SyntheticBank.load(tmp_path / "bank", resident=False)
    export(on_disk, tmp_path / "from-disk")
    assert not on_disk.resident
    export(bank, tmp_path / "from-memory")
    assert contents(tmp_path / "from-disk") == contents(tmp_path / "from-memory")


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 2, 4, 4), torch.uint8, r"images of shape \(1, 2, 4, 4\) are no pictures, .*volumes are not exported"),
        ((1, 4), torch.uint8, "are no pictures"),
        ((2, 4, 4), torch.uint8, r"1 \(grey\) or 3 \(colour\) channels, the bank has 2"),
        ((3, 4, 4), torch.uint16, "colour images of 16 bits"),
    ],
)
def test_images_that_png_files_do_not_hold(make_bank, tmp_path, export, shape, dtype, message):
    bank = make_bank(shape=shape, dtype=dtype)
    with pytest.raises(InputError, match=message):
        export(bank, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
def test_an_empty_bank_is_not_exported(make_bank, tmp_path, export):
    bank = make_bank(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match="no images; fill it first"):
        export(bank, tmp_path / "out")


# The folder


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
def test_an_export_is_replaced_only_when_told_to(full_bank, make_bank, tmp_path, export):
    export(make_bank((0, 0, 0)), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OverwriteError, match="not empty; give another folder, or overwrite=True"):
        export(full_bank(), tmp_path / "out")
    assert contents(tmp_path / "out") == before
    export(full_bank(), tmp_path / "out", overwrite=True)
    export(full_bank(), tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
def test_what_is_no_export_is_never_replaced(full_bank, tmp_path, export):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(OverwriteError, match="export: it is not overwritten"):
        export(full_bank(), tmp_path / "mine", overwrite=True)
    export(full_bank(), tmp_path / "out")
    (tmp_path / "out/thesis.txt").write_text("all of it")
    with pytest.raises(OverwriteError, match=r"not the export's \(thesis.txt\)"):
        export(full_bank(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "mine/thesis.txt").read_text() == (tmp_path / "out/thesis.txt").read_text() == "all of it"


def test_an_export_of_another_kind_is_not_replaced(full_bank, tmp_path):
    export_png(full_bank(), tmp_path / "out")
    with pytest.raises(OverwriteError, match="holds no webdataset export"):
        export_webdataset(full_bank(), tmp_path / "out", overwrite=True)


def test_a_file_in_the_way(full_bank, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OverwriteError, match="is a file"):
        export_png(full_bank(), tmp_path / "out")


def test_an_empty_folder_and_a_link_are_filled(full_bank, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    export_png(full_bank(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "empty").rglob("*.png"))) == 7


@pytest.mark.parametrize("export", [export_png, export_webdataset, export_parquet])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_an_export_that_fails(full_bank, make_bank, tmp_path, export, error, monkeypatch):
    export(make_bank((0, 0, 0)), tmp_path / "out")
    before = contents(tmp_path / "out")
    bank, rows = full_bank(), SyntheticBank.rows
    monkeypatch.setattr(samples, "_PIECE_BYTES", 20)
    taken = []

    def failing(self, index):
        taken.append(index)
        if len(taken) > 4:
            raise error
        return rows(self, index)

    monkeypatch.setattr(SyntheticBank, "rows", failing)
    for name, overwrite in (("out", True), ("fresh", False)):
        taken.clear()
        with pytest.raises(type(error)):
            export(bank, tmp_path / name, overwrite=overwrite)
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_cleared_away(full_bank, tmp_path):
    (tmp_path / ".out.export.tmp/cyst").mkdir(parents=True)
    (tmp_path / ".out.export.tmp/cyst/00000999.png").write_bytes(b"half")
    export_png(full_bank(), tmp_path / "out")
    export_png(full_bank(), tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


def test_an_export_that_was_killed_while_it_was_replaced_is_back(full_bank, tmp_path):
    export_png(full_bank(), tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.export.old")
    with pytest.raises(OverwriteError, match="not empty"):
        export_png(full_bank(), tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_two_exports_to_one_folder_do_not_mix(full_bank, tmp_path):
    (tmp_path / ".out.export.tmp").mkdir()
    other = os.open(tmp_path / ".out.export.tmp", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(OverwriteError, match="another process is exporting there"):
        export_png(full_bank(), tmp_path / "out")
    os.close(other)
    export_png(full_bank(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
