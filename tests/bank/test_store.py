"""Shards and the manifest: what is written reads back, and what is not ours is refused by its name."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from genmix_transforms.bank import store
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError

COUNT = 5


def shard_tensors(count=COUNT, *, shape=(1, 4, 4), dtype=torch.uint8, soft=False):
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randint(0, 256, (count, *shape), generator=generator).to(dtype),
        "labels": torch.rand(count, 2, generator=generator) if soft else torch.arange(count) % 2,
        "seeds": torch.arange(count) + 2**40,
    }


def make_manifest(**changes):
    fields = {
        "classes": ("cyst", "hémangiome"),
        "dtype": "uint8",
        "shape": (1, 4, 4),
        "class_counts": (3, 2),
        "shards": (store.Shard(file="bank-00000-of-00001.safetensors", count=COUNT, sha256="0" * 64),),
    }
    return store.Manifest(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path):
    """A bank of one shard."""
    path = tmp_path / store.shard_name(0, 1)
    store.write_shard(path, **shard_tensors(), metadata={})
    shard = store.Shard(file=path.name, count=COUNT, sha256=store.file_hash(path))
    store.write_manifest(tmp_path, make_manifest(shards=(shard,)))
    return tmp_path


def rewrite(folder, **changes):
    """Change what the manifest says."""
    path = folder / store.INDEX
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_names_are_those_of_the_hub():
    assert store.shard_name(2, 7) == "bank-00002-of-00007.safetensors"
    assert sorted(store.shard_name(n, 1000) for n in range(1000)) == [store.shard_name(n, 1000) for n in range(1000)]


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((3, 64, 64), torch.uint8, 256 * 2**20 // 12288),
        ((3, 64, 64), torch.uint16, 256 * 2**20 // 24576),
        ((1, 512, 512, 512), torch.uint16, 1),  # one volume of exactly 256 MiB
        ((1, 1024, 1024, 1024), torch.uint8, 1),  # larger than a shard: still one
        ((1, 0), torch.uint8, 256 * 2**20),
    ],
)
def test_images_per_shard(shape, dtype, expected):
    assert store.images_per_shard(shape, dtype) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("soft", [False, True])
def test_shard_reads_back(tmp_path, dtype, soft):
    tensors = shard_tensors(dtype=dtype, soft=soft)
    path = tmp_path / "bank-00000-of-00001.safetensors"
    store.write_shard(path, **tensors, metadata={"genmix_fill": "abc"})
    read = store.read_shard(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert store.shard_metadata(path) == {"genmix_fill": "abc"}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_one_tensor_as_labels_and_seeds(tmp_path):
    numbers = torch.arange(2)
    store.write_shard(tmp_path / "a", images=shard_tensors(2)["images"], labels=numbers, seeds=numbers, metadata={})
    read = store.read_shard(tmp_path / "a")
    assert read["labels"].tolist() == read["seeds"].tolist() == [0, 1]


def test_shard_without_metadata(tmp_path):
    store.write_shard(tmp_path / "a", **shard_tensors(), metadata={})
    assert store.shard_metadata(tmp_path / "a") == {}


@pytest.mark.parametrize("read", [store.read_shard, store.shard_metadata])
class TestNotAShard:
    """Both readers refuse it, and name the file."""

    def refuse(self, read, path, text):
        with pytest.raises(CorruptFileError, match=text) as caught:
            read(path)
        assert path.name in str(caught.value)

    def test_missing(self, read, tmp_path):
        self.refuse(read, tmp_path / "bank-1", "the manifest names this shard, but there is no such file")

    def test_a_folder(self, read, tmp_path):
        (tmp_path / "bank-1").mkdir()
        self.refuse(read, tmp_path / "bank-1", "there is no such file")

    @pytest.mark.parametrize("kept", [0, 3, 8, 20, -1])
    def test_truncated(self, read, folder, kept):
        path = folder / store.shard_name(0, 1)
        path.write_bytes(path.read_bytes()[:kept])
        self.refuse(read, path, "not a whole shard")

    def test_something_else(self, read, tmp_path):
        path = tmp_path / "bank-1"
        path.write_bytes(struct.pack("<Q", 12) + b"no JSON here" + bytes(100))
        self.refuse(read, path, "not a whole shard")

    @pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**64 - 1])
    def test_hostile_header_length(self, read, tmp_path, length):
        path = tmp_path / "bank-1"
        path.write_bytes(struct.pack("<Q", length) + bytes(1000))
        self.refuse(read, path, f"header claims {length:,} bytes; a shard's has at most 1,048,576")


def test_tensors_missing_in_a_shard(tmp_path):
    save_file({"images": torch.zeros(1, 1, 2, 2)}, tmp_path / "a")
    with pytest.raises(CorruptFileError, match="images, labels and seeds; missing: labels, seeds"):
        store.read_shard(tmp_path / "a")


names = st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True).map(tuple)


@given(
    classes=names,
    dtype=st.sampled_from(["uint8", "uint16"]),
    shape=st.lists(st.integers(0, 512), min_size=3, max_size=4).map(tuple),
    counts=st.lists(st.integers(0, 2**40), min_size=4, max_size=4),
    window=st.none() | st.tuples(st.floats(-1024, 0), st.floats(1, 3071)),
    provenance=st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.floats(-1, 1))),
    generation=st.integers(1, 99),
)
def test_manifest_reads_back(tmp_path_factory, classes, dtype, shape, counts, window, provenance, generation):
    folder = tmp_path_factory.mktemp("manifest", numbered=True)
    manifest = store.Manifest(
        classes=classes,
        dtype=dtype,
        shape=shape,
        class_counts=tuple(counts[: len(classes)]),
        shards=tuple(store.Shard(file=store.shard_name(n, 2), count=n + 3, sha256=str(n) * 64) for n in range(2)),
        window=window,
        provenance=provenance,
        generation=generation,
    )
    store.write_manifest(folder, manifest)
    assert store.read_manifest(folder) == manifest
    assert [file.name for file in folder.iterdir()] == [store.INDEX]


def test_manifest_is_for_people_and_other_readers(tmp_path):
    store.write_manifest(tmp_path, make_manifest(window=(-100.0, 200.0)))
    content = json.loads((tmp_path / store.INDEX).read_text(encoding="utf-8"))
    assert (content["format"], content["format_version"]) == ("genmix-bank", 1)
    assert content["class_counts"] == {"cyst": 3, "hémangiome": 2}
    assert content["shards"] == [{"file": "bank-00000-of-00001.safetensors", "count": 5, "sha256": "0" * 64}]
    assert content["window"] == [-100.0, 200.0]


def test_manifest_is_read_as_utf8_whatever_the_locale(tmp_path, monkeypatch):
    """On a machine whose default encoding is Latin-1, names with accents are still those of the data set."""
    store.write_manifest(tmp_path, make_manifest())
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, encoding="latin-1", errors=None: read(path, encoding, errors))
    assert store.read_manifest(tmp_path).classes == ("cyst", "hémangiome")


def test_no_folder(tmp_path):
    with pytest.raises(MissingPathError, match="nowhere: no such bank"):
        store.read_manifest(tmp_path / "nowhere")


def test_a_folder_that_is_no_bank(tmp_path):
    (tmp_path / "cyst.png").write_bytes(b"")
    with pytest.raises(MissingPathError, match=r"no bank\.index\.json: not a bank"):
        store.read_manifest(tmp_path)


def test_an_unfinished_filling_says_so(folder):
    (folder / store.INDEX).unlink()
    with pytest.raises(MissingPathError, match="filling has not finished; run the same fill again"):
        store.read_manifest(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"bank",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'"genmix-bank"',
        b"{}",
        b"[" * 100_000,
        b'{"format": "genmix-bank"}',
        b'{"format": "genmix-bank", "format_version": 1}',
    ],
    ids=["empty", "half", "text", "binary", "list", "null", "string", "object", "deep", "no version", "no fields"],
)
def test_manifest_that_is_none(folder, content):
    (folder / store.INDEX).write_bytes(content)
    with pytest.raises(CorruptFileError, match="not a bank's manifest"):
        store.read_manifest(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": None},
        {"classes": 3},
        {"classes": ["cyst", "other"]},
        {"shape": ["a"]},
        {"shape": [1, float("inf"), 4]},
        {"shape": None},
        {"class_counts": [3, 2]},
        {"class_counts": {"cyst": 3}},
        {"shards": None},
        {"shards": [{"file": "bank-00000-of-00001.safetensors"}]},
        {"shards": ["bank-00000-of-00001.safetensors"]},
        {"window": [1]},
        {"window": "ab"},
        {"provenance": None},
        {"provenance": [1]},
        {"generation": "first"},
    ],
    ids=str,
)
def test_manifest_with_other_fields(folder, changes):
    rewrite(folder, **changes)
    with pytest.raises(CorruptFileError, match="not a bank's manifest"):
        store.read_manifest(folder)


@pytest.mark.parametrize("dtype", ["float32", "int64", "", None, ["uint8"], {"uint8": 1}], ids=str)
def test_manifest_with_another_pixel_type(folder, dtype):
    rewrite(folder, dtype=dtype)
    with pytest.raises(CorruptFileError, match=r"pixel type .*; there are uint8, uint16"):
        store.read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format_version": 2}, "format 'genmix-bank' version 2; this release reads 'genmix-bank' version 1"),
        ({"format_version": "1"}, "version '1'"),
        ({"format": "webdataset"}, "format 'webdataset' version 1"),
    ],
)
def test_manifest_of_another_version(folder, changes, text):
    """Not damage: another release can read it."""
    rewrite(folder, **changes)
    with pytest.raises(InputError, match=text):
        store.read_manifest(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../bank-00000-of-00001.safetensors",
        "/etc/bank-00000-of-00001.safetensors",
        "sub/bank-00000-of-00001.safetensors",
        "..\\bank-00000-of-00001.safetensors",
        "bank-00000-of-00001.safetensors\n",
        "bank-00000-of-00001.safetensors/..",
        "model.safetensors",
        "",
        "..",
        None,
        7,
        ["bank-00000-of-00001.safetensors"],
    ],
    ids=repr,
)
def test_shard_names_that_leave_the_folder(folder, name):
    rewrite(folder, shards=[{"file": name, "count": COUNT, "sha256": ""}])
    with pytest.raises(CorruptFileError, match="is not the name of a shard"):
        store.read_manifest(folder)


def read_all(folder):
    return store.read_shards(folder, store.read_manifest(folder))


def test_several_shards_are_one_after_the_other(tmp_path):
    parts = [shard_tensors(count) for count in (3, 1, 4)]
    shards = []
    for number, part in enumerate(parts):
        path = tmp_path / store.shard_name(number, 3)
        part["seeds"] += 100 * number
        store.write_shard(path, **part, metadata={})
        shards.append(store.Shard(file=path.name, count=len(part["seeds"]), sha256=""))
    read = store.read_shards(tmp_path, make_manifest(shards=tuple(shards)))
    for name in ("images", "labels", "seeds"):
        assert torch.equal(read[name], torch.cat([part[name] for part in parts]))


def test_no_shards(folder):
    rewrite(folder, shards=[])
    with pytest.raises(CorruptFileError, match=r"bank\.index\.json: names no shards"):
        read_all(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [1, 4, 5]}, r"\(5, 1, 4, 5\) torch.uint8"),
        ({"shape": [4, 4]}, r"\(5, 4, 4\) torch.uint8"),
        ({"dtype": "uint16"}, r"\(5, 1, 4, 4\) torch.uint16"),
        ({"shards": [{"file": "bank-00000-of-00001.safetensors", "count": 6, "sha256": ""}]}, r"\(6, 1, 4, 4\)"),
        ({"shards": [{"file": "bank-00000-of-00001.safetensors", "count": -1, "sha256": ""}]}, r"\(-1, 1, 4, 4\)"),
    ],
    ids=["size", "dimensions", "dtype", "count", "negative count"],
)
def test_shard_with_other_contents_than_the_manifest_says(folder, changes, says):
    rewrite(folder, **changes)
    with pytest.raises(CorruptFileError, match=rf"bank-00000-of-00001.*the manifest says {says}.*\(5, 1, 4, 4\)"):
        read_all(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.zeros(4, dtype=torch.int64)},
        {"seeds": torch.zeros(6, dtype=torch.int64)},
        {"labels": torch.tensor(1)},
        {"seeds": torch.tensor(1)},
        {"flags": torch.tensor(1)},
    ],
    ids=["few labels", "many seeds", "one label", "one seed", "scalar beside"],
)
def test_tensors_of_different_lengths(folder, changes):
    save_file({**shard_tensors(), **changes}, folder / store.shard_name(0, 1))
    with pytest.raises(CorruptFileError, match=r"bank-00000-of-00001\.safetensors: the manifest says"):
        read_all(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": torch.rand(COUNT, 2)}, r"its labels are torch.float32 \(2,\) an image"),
        ({"labels": torch.zeros(COUNT, dtype=torch.int32)}, r"its labels are torch.int32 \(\) an image"),
        ({"seeds": torch.zeros(COUNT)}, r"its seeds are torch.float32"),
    ],
)
def test_shards_of_different_kinds(tmp_path, changes, text):
    names = [store.shard_name(number, 2) for number in range(2)]
    save_file(shard_tensors(), tmp_path / names[0])
    save_file({**shard_tensors(), **changes}, tmp_path / names[1])
    shards = tuple(store.Shard(file=name, count=COUNT, sha256="") for name in names)
    with pytest.raises(CorruptFileError, match=rf"{names[1]}: {text}.*those of {names[0]} torch.int64 \(\)"):
        store.read_shards(tmp_path, make_manifest(shards=shards))


def test_hash_is_sha256(folder):
    path = folder / store.shard_name(0, 1)
    assert store.file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_corrupt_shards_are_those_that_changed(folder):
    manifest = store.read_manifest(folder)
    path = folder / store.shard_name(0, 1)
    whole = path.read_bytes()
    assert list(store.corrupt_shards(folder, manifest)) == []
    for position in (0, 30, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert list(store.corrupt_shards(folder, manifest)) == [path.name]
    path.write_bytes(whole)
    assert list(store.corrupt_shards(folder, manifest)) == []
    path.unlink()
    assert list(store.corrupt_shards(folder, manifest)) == [path.name]
    path.mkdir()
    assert list(store.corrupt_shards(folder, manifest)) == [path.name]


@given(content=st.binary(max_size=200))
def test_any_bytes_for_a_shard_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("shard", numbered=True) / "bank-00000-of-00001.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="bank-00000"):
        store.read_shard(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("classes", "dtype", "shape", "class_counts", "shards", "window", "provenance", "generation", "format")


@given(field=st.sampled_from(FIELDS), value=json_values)
def test_any_value_in_a_manifest_reads_or_is_refused_in_our_words(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("manifest", numbered=True)
    store.write_manifest(folder, make_manifest())
    rewrite(folder, **{field: value})
    try:
        manifest = store.read_manifest(folder)
    except (CorruptFileError, InputError):
        return
    assert len(manifest.classes) == len(manifest.class_counts)
    assert manifest.dtype in store.PIXEL_DTYPES
