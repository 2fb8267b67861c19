"""The manifest: what is written reads back, and whatever is none of ours is refused in our words."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import manifest as manifests
from genmix_transforms.bank.manifest import Fill, Manifest, ShardEntry, read_manifest, shard_name, write_manifest
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.files.checks import name_fault

FIRST = "bank-00000.safetensors"


def entry(number=0, **changes):
    fields = {
        "file": shard_name(number),
        "bytes": 1000,
        "count": 5,
        "class_counts": (3, 2),
        "pixel_range": (0, 255),
        "xxh3": "0" * 16,
    }
    return ShardEntry(**{**fields, **changes})


def make_manifest(**changes):
    fields = {"classes": ("cyst", "hémangiome"), "dtype": "uint8", "shape": (1, 4, 4), "shards": (entry(),)}
    return Manifest(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path):
    """A manifest of two shards, which are not there: nobody reads them here."""
    shards = (entry(0), entry(1, count=4, class_counts=(0, 4), pixel_range=(3, 77), sha256="ab" * 32))
    write_manifest(tmp_path, make_manifest(shards=shards))
    return tmp_path


def rewrite(folder, **changes):
    """Change what the manifest says."""
    path = folder / manifests.INDEX
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def rewrite_shard(folder, number=1, **changes):
    """Change what the manifest says of a shard."""
    shards = json.loads((folder / manifests.INDEX).read_text(encoding="utf-8"))["shards"]
    shards[number].update(changes)
    rewrite(folder, shards=shards)


def refused(folder, text, error=CorruptFileError):
    with pytest.raises(error, match=text) as caught:
        read_manifest(folder)
    assert str(folder) in str(caught.value)


# Names


def test_names_are_in_the_order_of_their_numbers():
    assert shard_name(2) == "bank-00002.safetensors"
    names = [shard_name(number) for number in range(0, 100_000, 97)]
    assert sorted(names) == names


@given(st.integers(0, manifests.MAX_SHARDS - 1))
def test_every_number_comes_back_from_its_name(number):
    assert manifests.is_shard_name(shard_name(number))
    assert manifests.shard_number(shard_name(number)) == number


@pytest.mark.parametrize(
    "name",
    [
        "",
        "bank.safetensors",
        "bank-1.safetensors",
        "bank-0000001.safetensors",
        f"{FIRST}\n",
        f"x{FIRST}",
        f"../{FIRST}",
        "bank-00000-of-00001.safetensors",
        "bank-\u0660\u0660\u0660\u0660\u0660.safetensors",
        "bank-00000_safetensors",
    ],
    ids=repr,
)
def test_other_names(name):
    assert not manifests.is_shard_name(name)
    with pytest.raises(ValueError, match="is not the name of a shard"):
        manifests.shard_number(name)


def test_files_of_a_bank():
    ours = (manifests.INDEX, manifests.LOCK, FIRST, f".{FIRST}.tmp", ".bank.index.json.0123456789abcdef.tmp")
    assert all(map(manifests.is_bank_file, ours))
    assert not any(map(manifests.is_bank_file, ("README.md", ".git", "cyst.png", "notes.tmp", "index.json", ".tmp")))


# Reading back

names = st.text(max_size=8).filter(lambda name: name_fault(name) is None)


@given(
    classes=st.lists(names, min_size=1, max_size=4, unique=True).map(tuple),
    dtype=st.sampled_from(["uint8", "uint16"]),
    labels=st.sampled_from(["index", "probabilities"]),
    shape=st.lists(st.integers(1, 512), min_size=2, max_size=5).map(tuple),
    counts=st.lists(st.lists(st.integers(0, 2**30), min_size=4, max_size=4), max_size=3),
    window=st.none() | st.tuples(st.floats(-1024, 0), st.floats(1, 3071)),
    sources=st.lists(
        st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.floats(-1, 1))),
        min_size=1,
        max_size=3,
    ).map(tuple),
    fills=st.lists(st.builds(Fill, identity=st.text(), first=st.integers(0, 99), total=st.integers(0, 99)), max_size=1),
    generation=st.integers(1, 99),
)
def test_reads_back(tmp_path_factory, classes, dtype, labels, shape, counts, window, sources, fills, generation):
    folder = tmp_path_factory.mktemp("manifest", numbered=True)
    counts = [tuple(row[: len(classes)]) for row in counts]
    shards = tuple(
        entry(number, count=sum(row), class_counts=row, bytes=2**61, sha256=(None, "1" * 64)[number % 2])
        for number, row in enumerate(counts)
        if 0 < sum(row) * manifests.PIXEL_DTYPES[dtype].itemsize * torch.Size(shape).numel() < 2**61
    )
    manifest = Manifest(
        classes=classes,
        dtype=dtype,
        shape=shape,
        labels=labels,
        shards=shards,
        sources=sources,
        fills=tuple(fills),
        window=window,
        generation=generation,
    )
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest
    assert [file.name for file in folder.iterdir()] == [manifests.INDEX]


def test_is_for_people_and_other_readers(tmp_path):
    write_manifest(tmp_path, make_manifest(window=(-100.0, 200.0)))
    content = json.loads((tmp_path / manifests.INDEX).read_text(encoding="utf-8"))
    assert (content["format"], content["format_version"]) == ("genmix-bank", 2)
    assert content["class_counts"] == {"cyst": 3, "hémangiome": 2}
    assert content["shards"] == [
        {
            "file": FIRST,
            "bytes": 1000,
            "count": 5,
            "class_counts": [3, 2],
            "pixel_range": [0, 255],
            "xxh3": "0" * 16,
            "sha256": None,
        }
    ]
    assert content["window"] == [-100.0, 200.0]
    assert list(content)[-1] == "shards"


def test_is_utf8_whatever_the_locale(folder):
    """On a machine whose default encoding is ASCII, names with accents are still those of the data set."""
    code = f"""
from pathlib import Path
from genmix_transforms.bank.manifest import read_manifest, write_manifest
folder = Path({str(folder)!r})
write_manifest(folder, read_manifest(folder))
"""
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    root = Path(manifests.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=root)
    assert read_manifest(folder).classes == ("cyst", "hémangiome")


def test_sums(folder):
    manifest = read_manifest(folder)
    assert manifest.class_counts == (3, 6)
    assert manifest.count == 9
    assert manifest.pixel_range == (0, 255)
    assert manifest.image_bytes == 9 * 16
    assert manifest.pixel_dtype == torch.uint8
    assert [shard.number for shard in manifest.shards] == [0, 1]
    assert make_manifest(dtype="uint16").image_bytes == 5 * 32


def test_of_no_shards(tmp_path):
    write_manifest(tmp_path, make_manifest(shards=()))
    manifest = read_manifest(tmp_path)
    assert (manifest.count, manifest.class_counts, manifest.pixel_range) == (0, (0, 0), None)


@pytest.mark.parametrize(
    ("fills", "expected"),
    [((), 0), (((0, 2),), 0), (((0, 5),), 3), (((1, 1), (4, 3)), 3), (((7, 0),), 0)],
)
def test_shards_to_come(folder, fills, expected):
    fills = [{"identity": "a", "first": first, "total": total} for first, total in fills]
    rewrite(folder, fills=fills)
    assert read_manifest(folder).shards_to_come == expected


def test_time_is_utc_to_the_second(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert manifests.now() == make_manifest().created == "2023-11-14T22:13:20Z"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert len(manifests.now()) == 20
    assert manifests.now() > "2026"


# No manifest


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", "nowhere: no such bank", MissingPathError)


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "file: no such bank", MissingPathError)


def test_a_folder_that_is_no_bank(tmp_path):
    (tmp_path / "cyst.png").write_bytes(b"")
    refused(tmp_path, r"no bank\.index\.json: not a bank; SyntheticBank\.from_folder reads", MissingPathError)


def test_an_unfinished_bank_says_so(tmp_path):
    (tmp_path / FIRST).write_bytes(b"")
    refused(tmp_path, "first shard is not finished; run the same command again", MissingPathError)


def test_a_folder_for_a_manifest(tmp_path):
    (tmp_path / manifests.INDEX).mkdir()
    refused(tmp_path, "a folder, not a manifest")


def test_too_long(folder, monkeypatch):
    monkeypatch.setattr(manifests, "MAX_INDEX_BYTES", 1000)
    (folder / manifests.INDEX).write_bytes(b" " * 1001)
    refused(folder, "more than 1,000 bytes: not a bank's manifest")


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
        b'{"format": "genmix-bank", "format_version": 2}',
        b'{"format": "genmix-bank", "format_version": 2, "generation": ' + b"9" * 5000 + b"}",
    ],
    ids=(
        [
            "empty",
            "half",
            "text",
            "binary",
            "list",
            "null",
            "string",
            "object",
            "deep",
            "no version",
            "no fields",
            "digits",
        ]
    ),
)
def test_not_a_manifest(folder, content):
    (folder / manifests.INDEX).write_bytes(content)
    refused(folder, "not a bank's manifest")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format_version": 3}, "format 'genmix-bank' version 3; this release reads 'genmix-bank' version 2"),
        ({"format_version": 1}, "version 1; .* fill the bank again, or take the release that wrote it"),
        ({"format_version": "2"}, "version '2'"),
        ({"format": "webdataset"}, "format 'webdataset' version 2"),
        ({"format": ["genmix-bank"]}, r"format \['genmix-bank'\]"),
    ],
    ids=str,
)
def test_of_another_version(folder, changes, text):
    """Not damage: another release can read it."""
    rewrite(folder, **changes)
    refused(folder, text, InputError)


@pytest.mark.parametrize(
    "field",
    [
        "classes",
        "dtype",
        "shape",
        "labels",
        "shards",
        "sources",
        "fills",
        "window",
        "generation",
        "created",
        "class_counts",
    ],
)
def test_every_field_must_be_there(folder, field):
    path = folder / manifests.INDEX
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[field]
    path.write_text(json.dumps(content), encoding="utf-8")
    refused(folder, f"not a bank's manifest .no '{field}'")


@pytest.mark.parametrize("field", ["file", "bytes", "count", "class_counts", "pixel_range", "xxh3"])
def test_every_field_of_a_shard_must_be_there(folder, field):
    path = folder / manifests.INDEX
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["shards"][1][field]
    path.write_text(json.dumps(content), encoding="utf-8")
    refused(folder, field)


# Fields that say what cannot be


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": None}, "classes must be a list"),
        ({"classes": "cyst"}, "classes must be a list"),
        ({"classes": []}, "different names, at least one"),
        ({"classes": ["cyst", "cyst"]}, "different names"),
        ({"classes": ["cyst", 3]}, "class name 3: not a name"),
        ({"classes": ["cyst", ["a"]]}, "not a name"),
        ({"classes": ["cyst", ""]}, "class name '': not a name"),
        ({"classes": ["cyst", "a/b"]}, "class name 'a/b': it holds a slash"),
        ({"classes": ["cyst", "a\\b"]}, "it holds a slash"),
        ({"classes": ["cyst", ".."]}, "a folder's shorthand"),
        ({"classes": ["cyst", "a\n"]}, "spaces at its ends"),
        ({"classes": ["cyst", "a\x1b[2J"]}, "cannot be printed"),
        ({"classes": ["cyst", "\ud800"]}, "cannot be printed"),
        ({"classes": ["cyst", "a" * 201]}, "longer than 200 bytes"),
        ({"classes": ["cyst", "other"]}, "class_counts says"),
        ({"classes": ["cyst"]}, "5 images, but class_counts .* for 1 classes"),
        ({"labels": "soft"}, "labels 'soft'; there are index, probabilities"),
        ({"labels": ["index"]}, "labels "),
        ({"shape": None}, "shape must be a list"),
        ({"shape": ["a"]}, "shape must be a whole number"),
        ({"shape": [1, 4.0, 4]}, r"shape must be a whole number, at least 1, got 4\.0"),
        ({"shape": [True, 4, 4]}, "shape must be a whole number"),
        ({"shape": [0, 4, 4]}, "shape must be a whole number, at least 1"),
        ({"shape": [1, -4, -4]}, "shape must be a whole number"),
        ({"shape": [2**64, 4, 4]}, "shape must be a whole number"),
        ({"shape": []}, r"expected \(C, \*spatial\)"),
        ({"shape": [16]}, r"expected \(C, \*spatial\)"),
        ({"shape": [1] * 6}, r"expected \(C, \*spatial\)"),
        ({"shape": [1, float("inf"), 4]}, "Infinity is no JSON"),
        ({"class_counts": [3, 6]}, "class_counts says"),
        ({"class_counts": {"cyst": 3}}, "class_counts says"),
        ({"class_counts": {"cyst": 3, "hémangiome": 7}}, "the shards' sum up to .*6"),
        ({"class_counts": {"hémangiome": 3, "cyst": 6}}, "the shards' sum up to"),
        ({"shards": None}, "shards must be a list"),
        ({"shards": {}}, "shards must be a list"),
        ({"shards": [FIRST]}, "a shard must be an object"),
        ({"window": 1}, "window must be a list"),
        ({"window": [1]}, "window must be two numbers"),
        ({"window": [1, 2, 3]}, "window must be two numbers"),
        ({"window": "ab"}, "window must be a list"),
        ({"window": ["a", "b"]}, "window must be two numbers"),
        ({"window": [False, True]}, "window must be two numbers"),
        ({"window": [200, -100]}, "the lower first"),
        ({"window": [200, 200]}, "the lower first"),
        ({"window": [0, 10**40]}, "window must be two numbers"),
        ({"window": [float("nan"), 1]}, "NaN is no JSON"),
        ({"window": [float("-inf"), 1]}, "-Infinity is no JSON"),
        ({"sources": None}, "sources must be a list"),
        ({"sources": []}, "sources must be objects, at least one"),
        ({"sources": [1]}, "sources must be objects"),
        ({"sources": [{"loss": float("nan")}]}, "NaN is no JSON"),
        ({"fills": None}, "fills must be a list"),
        ({"fills": [1]}, "a fill must be an object with an identity"),
        ({"fills": [{}]}, "no 'identity'"),
        ({"fills": [{"identity": 1, "first": 0, "total": 1}]}, "a fill must be an object with an identity"),
        ({"fills": [{"identity": "a", "total": 1}]}, "no 'first'"),
        ({"fills": [{"identity": "a", "first": -1, "total": 1}]}, "fills: first must be a whole number"),
        ({"fills": [{"identity": "a", "first": 0, "total": 1.5}]}, "fills: total must be a whole number"),
        ({"fills": [{"identity": "a", "first": 999_999, "total": 2}]}, "at most 1000000 have a name"),
        ({"generation": "first"}, "generation must be a whole number"),
        ({"generation": 0}, "generation must be a whole number, at least 1"),
        ({"created": 1}, "created must be a text"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_fields_that_cannot_be(folder, changes, text):
    rewrite(folder, **changes)
    refused(folder, text)


def test_a_number_past_the_floats(folder):
    path = folder / manifests.INDEX
    path.write_text(
        path.read_text(encoding="utf-8").replace('"window": null', '"window": [0, 1e999]'), encoding="utf-8"
    )
    refused(folder, "window must be two numbers")


@pytest.mark.parametrize("dtype", ["float32", "int64", "", None, ["uint8"], {"uint8": 1}], ids=str)
def test_another_pixel_type(folder, dtype):
    rewrite(folder, dtype=dtype)
    refused(folder, r"pixel type .*; there are uint8, uint16")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"count": 5}, r"5 images, but class_counts \(0, 4\)"),
        ({"count": 0, "class_counts": [0, 0]}, "count must be a whole number, at least 1"),
        ({"count": -4}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"count": "4"}, "count must be a whole number"),
        ({"class_counts": [4]}, "4 images, but class_counts"),
        ({"class_counts": [0, 4, 0]}, "4 images, but class_counts"),
        ({"class_counts": [-1, 5]}, "class_counts must be a whole number, at least 0"),
        ({"class_counts": 4}, "class_counts must be a list"),
        ({"class_counts": [4, 0]}, "class_counts says"),
        ({"bytes": 64}, "64 bytes cannot hold 4 images of 16 bytes"),
        ({"bytes": 0}, "bytes must be a whole number, at least 1"),
        ({"bytes": 2**62}, "bytes must be a whole number"),
        ({"bytes": None}, "bytes must be a whole number"),
        ({"pixel_range": [0]}, "pixel_range must be two numbers"),
        ({"pixel_range": [-1, 255]}, "pixel_range must be a whole number"),
        ({"pixel_range": 255}, "pixel_range must be a list"),
        ({"xxh3": None}, "xxh3 None is no such checksum"),
        ({"xxh3": "0" * 15}, "xxh3 '000000000000000' is no such checksum"),
        ({"xxh3": "0" * 17}, "is no such checksum"),
        ({"xxh3": "A" * 16}, "is no such checksum"),
        ({"xxh3": "0" * 15 + "\n"}, "is no such checksum"),
        ({"xxh3": "\u0660" * 16}, "is no such checksum"),
        ({"xxh3": 0}, "xxh3 0 is no such checksum"),
        ({"sha256": ""}, "sha256 '' is no such checksum"),
        ({"sha256": "0" * 63}, "is no such checksum"),
        ({"sha256": "g" * 64}, "is no such checksum"),
        ({"sha256": 0}, "sha256 0 is no such checksum"),
        ({"file": FIRST}, "a shard is named twice"),
    ],
    ids=str,
)
def test_shards_that_cannot_be(folder, changes, text):
    rewrite_shard(folder, **changes)
    refused(folder, text)


def test_sums_of_a_shard_named_twice(folder):
    """Even where the sums are right."""
    one = json.loads((folder / manifests.INDEX).read_text(encoding="utf-8"))["shards"][0]
    rewrite(folder, shards=[one, one], class_counts={"cyst": 6, "hémangiome": 4})
    refused(folder, "a shard is named twice")


@pytest.mark.parametrize(
    "name",
    [
        f"../{FIRST}",
        f"/etc/{FIRST}",
        f"sub/{FIRST}",
        f"..\\{FIRST}",
        f"{FIRST}\n",
        f"{FIRST}/..",
        f"{FIRST}\x00",
        "bank-00000-of-00001.safetensors",
        "model.safetensors",
        "",
        "..",
        None,
        7,
        [FIRST],
    ],
    ids=repr,
)
def test_shard_names_that_leave_the_folder(folder, name):
    rewrite_shard(folder, file=name)
    refused(folder, "is not the name of a shard")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("classes", "dtype", "shape", "labels", "class_counts", "shards", "sources", "fills", "window", "generation")


@given(field=st.sampled_from((*FIELDS, "created", "format", "format_version")), value=json_values)
def test_any_value_reads_or_is_refused_in_our_words(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("manifest", numbered=True)
    write_manifest(folder, make_manifest())
    rewrite(folder, **{field: value})
    try:
        manifest = read_manifest(folder)
    except (CorruptFileError, InputError):
        return
    assert len(manifest.classes) == len(manifest.class_counts) == 2
    assert manifest.dtype in manifests.PIXEL_DTYPES
    assert manifest.count == sum(manifest.class_counts) == 5
