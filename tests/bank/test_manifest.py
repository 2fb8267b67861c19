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
from genmix_transforms.errors import CorruptFileError, InputError
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
    ours = (manifests.INDEX, manifests.LOCK, FIRST, f".{FIRST}.tmp", ".bank.index.json.0123456789abcdef.tmp",
            manifests.DECISIONS, manifests.TURING, manifests.REVIEW_LOCK)  # fmt: skip
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
    masks=st.sampled_from([None, ("background", "lesion"), ("0", "1", "2")]),
)
def test_reads_back(tmp_path_factory, classes, dtype, labels, shape, counts, window, sources, fills, generation, masks):
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
        mask_classes=masks,
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
    assert manifest.image_bytes == 9 * 16
    assert manifest.pixel_dtype == torch.uint8
    assert [shard.number for shard in manifest.shards] == [0, 1]
    assert make_manifest(dtype="uint16").image_bytes == 5 * 32


def test_of_no_shards(tmp_path):
    write_manifest(tmp_path, make_manifest(shards=()))
    manifest = read_manifest(tmp_path)
    assert (manifest.count, manifest.class_counts) == (0, (0, 0))


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


@pytest.mark.parametrize("epoch", ["yesterday", "", "1e9", "9" * 30])
def test_a_date_that_is_none(monkeypatch, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(InputError, match=f"SOURCE_DATE_EPOCH must be seconds since 1970, got '{epoch}'"):
        manifests.now()


# What is no manifest, or says what cannot be, is in attacks/files.py and attacks/manifest.py


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


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format_version": 2.1}, "version 2.1; this release reads 'genmix-bank' versions 2 and 2.1"),
        ({"format_version": "2.2"}, "version '2.2'; this release reads 'genmix-bank' versions 2 and 2.1"),
        ({"mask_classes": "ab"}, "mask_classes must be a list"),
        ({"mask_classes": ["background"]}, "mask_classes must be 2 to 256 names"),
        ({"mask_classes": None}, "mask_classes must be a list"),
    ],
)
def test_masks_that_cannot_be(tmp_path, changes, text):
    write_manifest(tmp_path, make_manifest(mask_classes=("background", "lesion")))
    rewrite(tmp_path, **changes)
    with pytest.raises((CorruptFileError, InputError), match=text):
        read_manifest(tmp_path)


def test_a_bank_of_version_2_has_no_masks(folder):
    """A key that the version does not know is passed over."""
    rewrite(folder, mask_classes=["background", "lesion"])
    assert read_manifest(folder).mask_classes is None
