"""What the datasets library saved becomes a bank, bit for bit; what cannot is refused by name, and no more is read."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import export_parquet, export_png
from genmix_transforms.bank.importing import from_datasets
from genmix_transforms.errors import InputError, MissingExtraError, MissingPathError

datasets = pytest.importorskip("datasets", reason="the datasets extra")

CLASSES = ["cyst", "hemangioma", "metastasis"]
KINDS = [((1, 5, 4), torch.uint8), ((1, 5, 4), torch.uint16), ((3, 5, 4), torch.uint8)]


@pytest.fixture(autouse=True)
def _no_cache_and_no_network(tmp_path, monkeypatch):
    """The library's cache is elsewhere, and must stay empty."""
    cache = tmp_path / "hf-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    yield
    assert not cache.exists() or list(cache.rglob("*.arrow")) == []


def encoded(pixels):
    """A PNG file of (C, H, W) pixels."""
    pixels = pixels.numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1).copy()).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def data_of(pixels):
    """The maker of Datasets: an image for each label."""

    def make(labels=(2, 0, 1, 0), *, shape=(1, 5, 4), dtype=torch.uint8, images=None, feature=None, **more):
        images = pixels(len(labels), shape, dtype) if images is None else images
        columns = {
            "picture": [{"bytes": encoded(image), "path": None} for image in images],
            "kind": list(labels),
            **{name: [value] * len(labels) for name, value in more.items()},
        }
        features = {
            "picture": datasets.Image(),
            "kind": feature or datasets.ClassLabel(names=CLASSES),
            **{name: datasets.Value("string") for name in more},
        }
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    return make


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_a_folder_that_save_to_disk_wrote(data_of, pixels, tmp_path, shape, dtype):
    images = pixels(4, shape, dtype)
    data_of(images=images, patient="somebody").save_to_disk(tmp_path / "arrow")
    bank = from_datasets(tmp_path / "arrow")
    assert bank.classes == tuple(CLASSES)
    assert bank.labels.tolist() == [0, 0, 1, 2]
    assert bank.images.dtype == dtype
    assert torch.equal(bank.images, images[[1, 3, 2, 0]])
    assert bank.provenance == {"source": "Hugging Face dataset"}


def test_splits(data_of, tmp_path):
    both = datasets.DatasetDict(train=data_of((0, 1, 1)), test=data_of((2, 2)))
    both.save_to_disk(tmp_path / "arrow")
    assert from_datasets(tmp_path / "arrow", split="test").class_counts == {"cyst": 0, "hemangioma": 0, "metastasis": 2}
    assert len(from_datasets(tmp_path / "arrow", split="train")) == 3
    with pytest.raises(InputError, match=r"has the splits train, test; say which \(split='train'\)"):
        from_datasets(tmp_path / "arrow")
    with pytest.raises(InputError, match="no split 'val'; it has train, test"):
        from_datasets(tmp_path / "arrow", split="val")


def test_the_only_split_needs_no_name(data_of, tmp_path):
    datasets.DatasetDict(train=data_of()).save_to_disk(tmp_path / "arrow")
    assert len(from_datasets(tmp_path / "arrow")) == 4


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_a_parquet_export_comes_back(make_bank, tmp_path, shape, dtype):
    bank = make_bank(shape=shape, dtype=dtype)
    export_parquet(bank, tmp_path / "parquet", images_per_file=3, seed=None)
    again = from_datasets(tmp_path / "parquet")
    assert torch.equal(again.images, bank.images)
    assert torch.equal(again.labels, bank.labels)
    assert again.classes == bank.classes


def test_soft_labels_of_a_parquet_export_come_back(make_bank, tmp_path):
    bank = make_bank(torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]]))
    export_parquet(bank, tmp_path / "parquet", seed=None)
    again = from_datasets(tmp_path / "parquet", label_column="probabilities")
    assert torch.equal(again.labels, bank.labels)
    assert again.classes == bank.classes
    assert torch.equal(from_datasets(tmp_path / "parquet").labels, bank.labels.argmax(dim=1))


def test_parquet_files_of_the_library_among_other_files(data_of, tmp_path):
    for split, labels in (("train", (0, 1, 1)), ("test", (2, 2))):
        (tmp_path / "hub/data").mkdir(parents=True, exist_ok=True)
        data_of(labels).to_parquet(tmp_path / f"hub/data/{split}-00000-of-00001.parquet")
    (tmp_path / "hub/README.md").write_text("---\nconfigs: nonsense\n---\n")
    (tmp_path / "hub/LICENSE.txt").write_text("none")
    assert from_datasets(tmp_path / "hub", split="test").labels.tolist() == [2, 2]
    assert from_datasets(tmp_path / "hub", split="train").provenance["split"] == "train"


def test_class_folders_are_read_as_from_folder_reads_them(make_bank, tmp_path):
    bank = make_bank()
    export_png(bank, tmp_path / "png")
    (tmp_path / "png/metadata.csv").unlink()
    again = from_datasets(tmp_path / "png")
    assert torch.equal(again.images, SyntheticBank.from_folder(tmp_path / "png").images)
    assert torch.equal(again.images, bank.images)
    assert torch.equal(again.labels, bank.labels)


def test_a_png_export_with_its_metadata(make_bank, tmp_path):
    bank = make_bank()
    export_png(bank, tmp_path / "png")
    again = from_datasets(tmp_path / "png", label_column="label")
    assert again.classes == bank.classes
    assert torch.equal(again.images, bank.images)
    assert torch.equal(again.labels, bank.labels)
    with pytest.raises(
        InputError, match=r"one column of labels \(a ClassLabel\), has none; its columns are image \(Image"
    ):
        from_datasets(tmp_path / "png")


@pytest.mark.parametrize(
    ("labels", "kind", "classes", "read"),
    [
        (["m", "b", "m"], "string", ("b", "m"), [0, 1, 1]),
        ([7, 3, 7], "int32", ("3", "7"), [0, 1, 1]),
    ],
)
def test_labels_that_are_named(data_of, tmp_path, labels, kind, classes, read):
    data_of(labels, feature=datasets.Value(kind)).save_to_disk(tmp_path / "arrow")
    bank = from_datasets(tmp_path / "arrow", label_column="kind")
    assert (bank.classes, bank.labels.tolist()) == (classes, read)


def test_probabilities_without_a_class_label(data_of, tmp_path):
    rows = [[0.5, 0.5], [0.0, 1.0]]
    feature = datasets.Sequence(datasets.Value("float64"))
    data_of(rows, feature=feature).save_to_disk(tmp_path / "arrow")
    bank = from_datasets(tmp_path / "arrow", label_column="kind")
    assert (bank.classes, bank.labels.tolist()) == (("0", "1"), rows)


def test_sizes_and_channels(pixels, data_of, tmp_path):
    images = [pixels(1, shape)[0] for shape in ((1, 8, 8), (3, 8, 8), (1, 4, 6), (1, 8, 8))]
    data_of(images=images).save_to_disk(tmp_path / "arrow")
    with pytest.raises(
        InputError, match=r"row 2: images of different sizes: the first is 8x8, this one 4x6; .*size=64"
    ):
        from_datasets(tmp_path / "arrow")
    bank = from_datasets(tmp_path / "arrow", size=8, fit="pad")
    assert bank.images.shape == (4, 3, 8, 8)
    padded = bank.images[bank.labels == 1][0]
    assert torch.equal(padded[:, 2:6, 1:7], images[2].expand(3, 4, 6))
    assert int(padded.count_nonzero()) == 3 * int(images[2].count_nonzero())
    assert from_datasets(tmp_path / "arrow", size=8, channels=1).images.shape == (4, 1, 8, 8)


def test_bit_depths_are_not_mixed(pixels, data_of, tmp_path):
    images = [pixels(1)[0], pixels(1, dtype=torch.uint16)[0]]
    data_of((0, 1), images=images).save_to_disk(tmp_path / "arrow")
    with pytest.raises(InputError, match="row 1: 8-bit and 16-bit images together"):
        from_datasets(tmp_path / "arrow")


# Bad input


def test_no_folder(tmp_path):
    with pytest.raises(MissingPathError, match="no such folder"):
        from_datasets(tmp_path / "nothing")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="expected a folder that save_to_disk wrote .*found no files"):
        from_datasets(tmp_path / "data")
    (tmp_path / "data/script.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match="found script.py"):
        from_datasets(tmp_path / "data")


def test_a_script_in_the_folder_is_not_run(data_of, tmp_path):
    (tmp_path / "data").mkdir()
    data_of().to_parquet(tmp_path / "data/train.parquet")
    (tmp_path / "data/data.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()")
    assert len(from_datasets(tmp_path / "data")) == 4
    assert not (tmp_path / "run").exists()


def test_several_columns_of_a_kind(tmp_path, pixels):
    image = {"bytes": encoded(pixels(1)[0]), "path": None}
    data = datasets.Dataset.from_dict(
        {"a": [image], "b": [image], "c": [0], "d": [1]},
        features=datasets.Features(
            a=datasets.Image(),
            b=datasets.Image(),
            c=datasets.ClassLabel(names=CLASSES),
            d=datasets.ClassLabel(names=["x", "y"]),
        ),
    )
    data.save_to_disk(tmp_path / "arrow")
    with pytest.raises(InputError, match=r"one column of images .*has several: a, b; name it with image_column="):
        from_datasets(tmp_path / "arrow")
    with pytest.raises(InputError, match=r"one column of labels .*has several: c, d; name it with label_column="):
        from_datasets(tmp_path / "arrow", image_column="a")
    assert from_datasets(tmp_path / "arrow", image_column="b", label_column="d").labels.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_column": "no"},
            r"no column 'no' \(image_column\); its columns are picture \(Image.*kind \(ClassLabel",
        ),
        ({"image_column": "kind"}, "column 'kind' holds no images"),
        ({"label_column": "no"}, r"no column 'no' \(label_column\)"),
        ({"label_column": "picture"}, "column 'picture' holds no labels"),
        ({"channels": 2}, "channels must be 1"),
        ({"size": 8, "fit": "squeeze"}, "fit must be"),
    ],
)
def test_options_that_do_not_fit(data_of, tmp_path, options, message):
    data_of().save_to_disk(tmp_path / "arrow")
    with pytest.raises(InputError, match=message):
        from_datasets(tmp_path / "arrow", **options)


def test_no_image_column(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"], "number": [1.5]}).save_to_disk(tmp_path / "arrow")
    with pytest.raises(InputError, match=r"has none; its columns are text \(Value string\), number \(Value float64\)"):
        from_datasets(tmp_path / "arrow")


@pytest.mark.parametrize("missing", [None, -1])
def test_rows_without_a_label(data_of, tmp_path, missing):
    data_of((0, 1, missing, missing)).save_to_disk(tmp_path / "arrow")
    with pytest.raises(InputError, match="'kind': 2 rows without a label, the first is row 2"):
        from_datasets(tmp_path / "arrow")


def test_probabilities_of_different_lengths(data_of, tmp_path):
    feature = datasets.Sequence(datasets.Value("float32"))
    data_of([[0.5, 0.5], [1.0]], feature=feature).save_to_disk(tmp_path / "arrow")
    with pytest.raises(InputError, match="as many probabilities in each row, got rows of 1, 2"):
        from_datasets(tmp_path / "arrow", label_column="kind")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ({"bytes": b"no image", "path": None}, "column 'picture', row 1: not a readable image"),
        ({"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "path": None}, "row 1: not a readable image"),
        (None, "row 1: no image; leave such rows out"),
        ({"bytes": None, "path": None}, "row 1: no image"),
        ({"bytes": None, "path": "https://example.org/a.png"}, "row 1: the image is not in the folder but at https:"),
        ({"bytes": None, "path": "/etc/hostname"}, "row 1: the image is not in the folder but at /etc/hostname"),
        ({"bytes": None, "path": "../a.png"}, "row 1: the image is not in the folder"),
    ],
)
def test_images_that_are_none(pixels, tmp_path, picture, message):
    arrow = pytest.importorskip("pyarrow")
    features = datasets.Features(picture=datasets.Image(), kind=datasets.ClassLabel(names=CLASSES))
    rows = [{"picture": {"bytes": encoded(pixels(1)[0]), "path": None}, "kind": 0}, {"picture": picture, "kind": 1}]
    table = arrow.Table.from_pylist(rows, schema=features.arrow_schema)
    (tmp_path / "data").mkdir()
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "data/train.parquet")
    with pytest.raises(InputError, match=message):
        from_datasets(tmp_path / "data")


def test_arrow_files_of_another_folder_are_not_read(data_of, tmp_path):
    data_of().save_to_disk(tmp_path / "secret")
    data_of().save_to_disk(tmp_path / "arrow")
    state = json.loads((tmp_path / "arrow/state.json").read_text())
    state["_data_files"][0]["filename"] = "../secret/data-00000-of-00001.arrow"
    (tmp_path / "arrow/state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"names a file outside its folder \(../secret/"):
        from_datasets(tmp_path / "arrow")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff{", b"{}", b"[]"])
def test_damage_is_an_error_of_ours(data_of, tmp_path, name, content):
    data_of().save_to_disk(tmp_path / "arrow")
    (tmp_path / "arrow" / name).write_bytes(content)
    if (name, content) == ("dataset_info.json", b"{}"):  # the features are in the Arrow file too
        assert len(from_datasets(tmp_path / "arrow")) == 4
        return
    with pytest.raises(InputError, match="the datasets library cannot read it"):
        from_datasets(tmp_path / "arrow")


def test_damaged_parquet_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="the datasets library cannot read it"):
        from_datasets(tmp_path / "data")


def test_no_rows(data_of, tmp_path):
    data_of(()).save_to_disk(tmp_path / "arrow", num_shards=1)
    with pytest.raises(InputError, match="no rows in it"):
        from_datasets(tmp_path / "arrow")


def test_the_extra_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'genmix-transforms\[datasets\]'"):
        from_datasets(tmp_path)
