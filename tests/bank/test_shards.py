"""Shards: what is written reads back, bit for bit, and a header that says anything else is refused by its name."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from genmix_transforms.bank import shards as shards_module
from genmix_transforms.bank.manifest import Manifest, shard_name
from genmix_transforms.bank.shards import (
    HEADER_KEY,
    Rows,
    Shard,
    describe_shard,
    header_facts,
    images_per_shard,
    read_header,
    shard_fill,
    write_shard,
)
from genmix_transforms.errors import CorruptFileError, InputError

COUNT = 5
CLASSES = ("cyst", "hémangiome")
NAME = shard_name(0)
COLUMNS = ("labels", "seeds", "source", "distance", "flags")


def make_rows(count=COUNT, *, shape=(1, 4, 4), dtype=torch.uint8, soft=False):
    rng = np.random.default_rng(0)
    highest = 255 if dtype == torch.uint8 else 65535
    images = torch.from_numpy(rng.integers(0, highest + 1, (count, *shape)).astype(f"u{dtype.itemsize}"))
    labels = torch.arange(count) % 2
    return Rows(
        images,
        torch.tensor([[0.75, 0.25], [0.125, 0.875]])[labels] if soft else labels,
        torch.arange(count) + 2**40,
        torch.arange(count, dtype=torch.int32) % 3,
        torch.tensor([0.5, torch.nan, 0.0, torch.inf, 2.0] * count)[:count],
        torch.arange(count, dtype=torch.uint8),
    )


def manifest_of(*entries, rows=None, **changes):
    fields = {"classes": CLASSES, "dtype": "uint8", "shape": (1, 4, 4), "shards": entries}
    if rows is not None:
        fields["dtype"] = str(rows.images.dtype).removeprefix("torch.")
        fields["shape"] = tuple(rows.images.shape[1:])
        fields["labels"] = "index" if rows.labels.ndim == 1 else "probabilities"
    return Manifest(**{**fields, **changes})


def same(one, other):
    """Bit for bit: a NaN is a NaN."""
    return all(
        a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())
        for a, b in zip(one, other, strict=True)
    )


def opened(folder, entry, rows=None, **changes):
    return Shard(folder, entry, manifest_of(entry, rows=rows, **changes))


def held(shard):
    return Rows(*(torch.from_numpy(shard.column(name).copy()) for name in Rows._fields))


# Rows


def test_what_is_not_known_is_said_so():
    rows = Rows.complete(make_rows().images, make_rows().labels)
    assert rows.seeds.tolist() == [-1] * COUNT
    assert rows.source.tolist() == rows.flags.tolist() == [0] * COUNT
    assert rows.distance.isnan().all()
    assert same(rows.checked(), rows)
    kept = Rows.complete(**make_rows()._asdict())
    assert same(kept, make_rows())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seeds": torch.zeros(COUNT)}, r"seeds must be int64 of shape \(5,\), got torch.float32"),
        ({"seeds": torch.zeros(COUNT - 1, dtype=torch.int64)}, r"seeds must be .* got torch.int64 of shape \(4,\)"),
        ({"seeds": torch.zeros(COUNT, 1, dtype=torch.int64)}, "seeds must be"),
        ({"seeds": [1, 2, 3, 4, 5]}, r"seeds must be .* got \[1, 2"),
        ({"source": torch.zeros(COUNT, dtype=torch.int64)}, "source must be int32"),
        ({"distance": torch.zeros(COUNT, dtype=torch.float64)}, "distance must be float32"),
        ({"distance": torch.tensor([0, 0, 0, 0, -0.5])}, "distance must not be negative"),
        ({"flags": torch.zeros(COUNT, dtype=torch.bool)}, "flags must be uint8"),
    ],
)
def test_columns_that_do_not_fit(changes, text):
    with pytest.raises(InputError, match=text):
        make_rows()._replace(**changes).checked()


@pytest.mark.parametrize("soft", [False, True])
def test_sorted_by_class_keeps_the_order_within(soft):
    rows = make_rows(soft=soft).sorted_by_class()
    assert rows.index_labels.tolist() == [0, 0, 0, 1, 1]
    assert rows.flags.tolist() == [0, 2, 4, 1, 3]
    assert torch.equal(rows.images, make_rows().images[[0, 2, 4, 1, 3]])
    assert rows.sorted_by_class() is rows


def test_taken_apart_and_put_together():
    rows = make_rows()
    assert same(Rows.together([rows.take(slice(0, 2)), rows.take(torch.tensor([2])), rows.take(slice(3, None))]), rows)
    assert Rows.together([rows]) is rows


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
    assert images_per_shard(shape, dtype) == expected
    assert images_per_shard((1, 4, 4), torch.uint8, shard_bytes=50) == 3


# Writing and reading back


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 3, 5), (1, 2, 3, 5), (7,)])
def test_reads_back(tmp_path, dtype, soft, shape):
    rows = make_rows(shape=shape, dtype=dtype, soft=soft)
    entry = write_shard(tmp_path / NAME, rows, classes=CLASSES, fill="abc")
    shard = opened(tmp_path, entry, rows)
    assert same(held(shard), rows.sorted_by_class())
    assert entry.count == COUNT
    assert entry.class_counts == (3, 2)
    assert entry.bytes == (tmp_path / NAME).stat().st_size
    assert entry.pixel_range == (int(rows.images.numpy().min()), int(rows.images.numpy().max()))
    assert entry.xxh3 == shard.xxh3() == xxhash.xxh3_64_hexdigest((tmp_path / NAME).read_bytes())
    assert entry.sha256 is None
    assert shard_fill(tmp_path / NAME) == "abc"
    assert describe_shard(tmp_path / NAME, num_classes=2) == entry
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


@given(data=st.data(), classes=st.integers(1, 4), count=st.integers(1, 12), soft=st.booleans())
def test_any_rows_read_back(tmp_path_factory, data, classes, count, soft):
    folder = tmp_path_factory.mktemp("shard", numbered=True)
    names = tuple("abcd"[:classes])
    if soft:
        row = st.lists(st.floats(0, 1, width=32), min_size=classes, max_size=classes)
        labels = torch.tensor(data.draw(st.lists(row, min_size=count, max_size=count)))
    else:
        labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)))
    rows = Rows.complete(make_rows(count).images, labels, seeds=torch.arange(count))
    entry = write_shard(folder / NAME, rows, classes=names)
    assert same(held(opened(folder, entry, rows, classes=names)), rows.sorted_by_class())
    assert entry.class_counts == tuple((rows.index_labels == place).sum().item() for place in range(classes))


def test_any_safetensors_reader_opens_it(tmp_path):
    write_shard(tmp_path / NAME, make_rows(), classes=CLASSES)
    assert same(Rows(**load_file(tmp_path / NAME)), make_rows().sorted_by_class())
    with safe_open(tmp_path / NAME, "pt") as file:
        assert json.loads(file.metadata()[HEADER_KEY]) == {"classes": list(CLASSES), "fill": None}


def test_equal_rows_are_equal_files(tmp_path):
    entries = [write_shard(tmp_path / shard_name(number), make_rows(), classes=CLASSES) for number in range(8)]
    assert len({entry.xxh3 for entry in entries}) == 1


def test_one_tensor_as_two_columns(tmp_path):
    numbers = torch.arange(2)
    rows = Rows.complete(make_rows(2).images, numbers, seeds=numbers)
    shard = opened(tmp_path, write_shard(tmp_path / NAME, rows, classes=CLASSES))
    assert shard.labels.tolist() == shard.column("seeds").tolist() == [0, 1]


def test_rows_that_are_views_are_written_as_they_look(tmp_path):
    rows = make_rows(4)
    turned = rows._replace(images=rows.images.transpose(2, 3)).take(slice(None, None, 2))
    assert not turned.images.is_contiguous()
    shard = opened(tmp_path, write_shard(tmp_path / NAME, turned, classes=CLASSES))
    assert torch.equal(torch.from_numpy(shard.images.copy()), turned.images)


def test_the_rows_and_the_file_stay_as_they_are(tmp_path):
    rows = make_rows()
    entry = write_shard(tmp_path / NAME, rows, classes=CLASSES)
    assert same(rows, make_rows())
    shard = opened(tmp_path, entry)
    shard.images[:] = 0
    assert xxhash.xxh3_64_hexdigest((tmp_path / NAME).read_bytes()) == entry.xxh3


def test_no_file_stays_open(tmp_path):
    """A bank of thousands of shards would otherwise run into the system's limit."""
    resource = pytest.importorskip("resource")
    entry = write_shard(tmp_path / NAME, make_rows(), classes=CLASSES)
    shards = [opened(tmp_path, entry) for _ in range(min(2000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] + 10))]
    assert all(np.array_equal(shard.images, shards[0].images) for shard in shards[::100])


# What is no shard, or not the manifest's


@pytest.fixture
def entry(tmp_path):
    """Of a whole shard in ``tmp_path``."""
    return write_shard(tmp_path / NAME, make_rows(), classes=CLASSES)


def refuse(folder, entry, text, **changes):
    with pytest.raises(CorruptFileError, match=text) as caught:
        opened(folder, entry, **changes)
    assert str(folder / NAME) in str(caught.value)


def test_missing(tmp_path, entry):
    (tmp_path / NAME).unlink()
    refuse(tmp_path, entry, "the manifest names this shard, but there is no such file")
    (tmp_path / NAME).mkdir()
    refuse(tmp_path, entry, "there is no such file")


@pytest.mark.parametrize("kept", [0, 3, 8, 20, -1])
def test_truncated(tmp_path, entry, kept):
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:kept])
    actual = path.stat().st_size
    refuse(tmp_path, entry, f"{actual} bytes, the manifest says {entry.bytes:,}: not a whole shard")
    if actual:
        refuse(tmp_path, replace(entry, bytes=actual), "not a whole shard|bytes of tensors, its header says")
    with pytest.raises(CorruptFileError, match="not a whole shard|not a bank's shard"):
        describe_shard(path, num_classes=2)


def test_longer(tmp_path, entry):
    with open(tmp_path / NAME, "ab") as file:
        file.write(b"\0")
    refuse(tmp_path, entry, f"the manifest says {entry.bytes:,}: not a whole shard")
    refuse(tmp_path, replace(entry, bytes=entry.bytes + 1), "bytes of tensors, its header says")


@pytest.mark.parametrize(
    "header", [b"no JSON here", b"\xff\xfe", b"[" * 100_000, b"", b"[]", b"null", b"7", b'"images"'], ids=repr
)
@pytest.mark.parametrize("read", [read_header, shard_fill, lambda path: describe_shard(path, num_classes=2)])
def test_no_header(tmp_path, header, read):
    path = tmp_path / NAME
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    with pytest.raises(CorruptFileError, match=rf"{NAME}: not a whole shard"):
        read(path)


@pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**64 - 1])
def test_header_past_a_megabyte(tmp_path, entry, length):
    path = tmp_path / NAME
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    text = f"header claims {length:,} bytes; a shard's has at most 1,048,576"
    refuse(tmp_path, entry, text)
    with pytest.raises(CorruptFileError, match=text):
        shard_fill(path)


def test_header_longer_than_the_file(tmp_path):
    (tmp_path / NAME).write_bytes(struct.pack("<Q", 100) + b"{}")
    with pytest.raises(CorruptFileError, match="not a whole shard .no header"):
        read_header(tmp_path / NAME)


def forge(folder, entry, change):
    """Change the header, and have the manifest agree: what is left to find the fault is the header itself."""
    path = folder / NAME
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text + content[8 + length :]
    path.write_bytes(content)
    return replace(entry, bytes=len(content), xxh3=xxhash.xxh3_64_hexdigest(content))


def test_a_forged_header_that_changes_nothing_is_read(tmp_path, entry):
    """So that the refusals below are not for the forging."""
    forged = forge(tmp_path, entry, lambda header: dict(reversed(header.items())))
    assert forged.bytes >= entry.bytes
    assert same(held(opened(tmp_path, forged)), make_rows().sorted_by_class())


@pytest.mark.parametrize("name", Rows._fields)
def test_a_tensor_is_missing(tmp_path, entry, name):
    def change(header):
        del header[name]

    refuse(tmp_path, forge(tmp_path, entry, change), "a shard has images, labels, .*; this file has")


def test_a_tensor_too_many(tmp_path, entry):
    def change(header):
        header["extra"] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}

    refuse(tmp_path, forge(tmp_path, entry, change), "this file has .*extra")


@pytest.mark.parametrize("name", Rows._fields)
@pytest.mark.parametrize("dtype", ["I8", "F64", "BF16", "U4", "", None, 7, ["U8"]], ids=str)
def test_another_dtype(tmp_path, entry, name, dtype):
    def change(header):
        header[name]["dtype"] = dtype

    refuse(tmp_path, forge(tmp_path, entry, change), rf"the manifest says \w+ \[5.*\] for {name}, the shard")


@pytest.mark.parametrize("name", Rows._fields)
@pytest.mark.parametrize("shape", [[4], [5, 1], [], [5, 1, 16], [-5], "5", None, [[5]], {"5": 5}], ids=str)
def test_another_shape(tmp_path, entry, name, shape):
    def change(header):
        header[name]["shape"] = shape

    refuse(tmp_path, forge(tmp_path, entry, change), rf"the manifest says \w+ \[5.*\] for {name}, the shard")


@pytest.mark.parametrize("value", [None, [], "images", 7, {}], ids=str)
def test_a_tensor_that_is_none(tmp_path, entry, value):
    refuse(tmp_path, forge(tmp_path, entry, lambda header: {**header, "images": value}), "for images, the shard")


@pytest.mark.parametrize(
    "offsets",
    [
        None,
        [],
        [0],
        [0, 1, 2],
        "ab",
        {"0": 1},
        [None, 80],
        ["0", "80"],
        [0.0, 80.0],
        [-80, 0],
        [80, 0],
        [0, 79],
        [0, 2**64],
        [[0], [80]],
    ],
    ids=str,
)
def test_offsets_that_are_none(tmp_path, entry, offsets):
    def change(header):
        header["images"]["data_offsets"] = offsets

    refuse(tmp_path, forge(tmp_path, entry, change), "images cannot lie at")


def test_offsets_that_are_booleans(tmp_path):
    """In JSON false is not 0, though in Python it is."""
    entry = write_shard(tmp_path / NAME, make_rows(), classes=CLASSES)

    def change(header):
        first = next(name for name in Rows._fields if header[name]["data_offsets"][0] == 0)
        header[first]["data_offsets"][0] = False

    refuse(tmp_path, forge(tmp_path, entry, change), "cannot lie at")


@pytest.mark.parametrize("step", [1, 2, 4])
def test_misaligned(tmp_path, entry, step):
    def change(header):
        header["labels"]["data_offsets"] = [place + step for place in header["labels"]["data_offsets"]]

    refuse(tmp_path, forge(tmp_path, entry, change), "labels cannot lie at")


def test_misaligned_by_the_length_of_the_header(tmp_path, entry):
    path = tmp_path / NAME
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    content = struct.pack("<Q", length + 1) + content[8 : 8 + length] + b" " + content[8 + length :]
    path.write_bytes(content)
    refuse(tmp_path, replace(entry, bytes=len(content)), "cannot lie at")


def test_overlapping(tmp_path, entry):
    def change(header):
        header["seeds"]["data_offsets"] = header["labels"]["data_offsets"]

    refuse(tmp_path, forge(tmp_path, entry, change), "its tensors overlap or leave gaps")


def test_gap(tmp_path, entry):
    def change(header):
        last = max(Rows._fields, key=lambda name: header[name]["data_offsets"][1])
        header[last]["data_offsets"] = [place + 8 for place in header[last]["data_offsets"]]

    forged = forge(tmp_path, entry, change)
    refuse(tmp_path, forged, "its tensors overlap or leave gaps")


def test_gap_at_the_beginning(tmp_path, entry):
    def change(header):
        for name in Rows._fields:
            header[name]["data_offsets"] = [place + 8 for place in header[name]["data_offsets"]]

    refuse(tmp_path, forge(tmp_path, entry, change), "its tensors overlap or leave gaps")


def test_tensors_past_the_end(tmp_path, entry):
    forged = forge(tmp_path, entry, lambda header: None)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-8])
    refuse(tmp_path, replace(forged, bytes=forged.bytes - 8), "bytes of tensors, its header says")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "genmix_bank",
        {},
        {HEADER_KEY: None},
        {HEADER_KEY: "no JSON"},
        {HEADER_KEY: "[]"},
        {"format": "pt"},
        {HEADER_KEY: "[" * 100000},
        {HEADER_KEY: {"classes": list(CLASSES)}},
    ],
    ids=lambda value: str(value)[:40],
)
def test_header_of_something_else(tmp_path, entry, metadata):
    forged = forge(tmp_path, entry, lambda header: {**header, "__metadata__": metadata})
    refuse(tmp_path, forged, f"not a bank's shard: its header has no '{HEADER_KEY}'")
    with pytest.raises(CorruptFileError, match="not a bank's shard"):
        shard_fill(tmp_path / NAME)
    with pytest.raises(CorruptFileError, match="not a bank's shard"):
        describe_shard(tmp_path / NAME, num_classes=2)


@pytest.mark.parametrize("classes", [["cyst"], ["hémangiome", "cyst"], ["cyst", "other"], None, "cyst", 2], ids=str)
def test_of_other_classes(tmp_path, entry, classes):
    facts = json.dumps({"classes": classes})
    forged = forge(tmp_path, entry, lambda header: {**header, "__metadata__": {HEADER_KEY: facts}})
    refuse(tmp_path, forged, "a shard of a bank of other classes: .*, the manifest says .*'cyst', 'hémangiome'")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shape": (1, 4, 5)}, r"the manifest says U8 \[5, 1, 4, 5\] for images, the shard .*\[5, 1, 4, 4\]"),
        ({"shape": (4, 4)}, r"the manifest says U8 \[5, 4, 4\] for images"),
        ({"dtype": "uint16"}, r"the manifest says U16 \[5, 1, 4, 4\] for images"),
        ({"labels": "probabilities"}, r"the manifest says F32 \[5, 2\] for labels, the shard .*I64"),
        ({"classes": ("cyst", "other")}, "a shard of a bank of other classes"),
    ],
    ids=str,
)
def test_another_manifest(tmp_path, entry, changes, text):
    refuse(tmp_path, entry, text, **changes)


@pytest.mark.parametrize("count", [4, 6, 0])
def test_other_counts_than_the_manifest(tmp_path, entry, count):
    other = replace(entry, count=count, class_counts=(count, 0))
    refuse(tmp_path, other, rf"the manifest says U8 \[{count}, 1, 4, 4\] for images")


def with_labels(folder, entry, labels):
    """The shard with other labels in the place of its own."""
    path = folder / NAME
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + length])["labels"]["data_offsets"]
    content[8 + length + begin : 8 + length + end] = np.ascontiguousarray(labels).tobytes()
    assert len(content) == entry.bytes
    path.write_bytes(content)
    return replace(entry, xxh3=xxhash.xxh3_64_hexdigest(bytes(content)))


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 1, 0, 1],
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 2],
        [-1, 0, 0, 1, 1],
        [0, 0, 0, 0, 1],
        [1] * 5,
        [0, 0, 0, 1, 2**62],
        [-(2**63), 0, 0, 1, 1],
        [0, 0, 0, -1, 1],
    ],
    ids=["unsorted", "turned", "high", "negative", "counts", "one class", "very high", "very low", "low inside"],
)
def test_labels_that_the_manifest_does_not_count(tmp_path, entry, labels):
    forged = with_labels(tmp_path, entry, np.array(labels, dtype=np.int64))
    refuse(tmp_path, forged, r"its labels are not those that the manifest counts, class by class: \(3, 2\)")


def test_the_manifest_counts_other_labels(tmp_path, entry):
    refuse(tmp_path, replace(entry, class_counts=(2, 3)), r"the manifest counts, class by class: \(2, 3\)")


def test_forged_labels_that_are_right_are_read(tmp_path, entry):
    forged = with_labels(tmp_path, entry, np.array([0, 0, 1, 1, 1], dtype=np.int64))
    assert opened(tmp_path, replace(forged, class_counts=(2, 3))).labels.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([np.nan, 1], "label probabilities that are negative or not numbers"),
        ([np.inf, 1], "negative or not numbers"),
        ([1, -0.25], "negative or not numbers"),
        ([0.25, 0.75], "its labels are not those that the manifest counts"),
    ],
    ids=["NaN", "infinite", "negative", "another class"],
)
def test_probabilities_that_are_none(tmp_path, row, text):
    rows = make_rows(soft=True)
    entry = write_shard(tmp_path / NAME, rows, classes=CLASSES)
    labels = rows.sorted_by_class().labels.numpy().copy()
    labels[1] = row
    refuse(tmp_path, with_labels(tmp_path, entry, labels), text, labels="probabilities")


def test_facts_without_a_fill(tmp_path, entry):
    assert shard_fill(tmp_path / NAME) is None
    assert header_facts(tmp_path / NAME, read_header(tmp_path / NAME)[1])["classes"] == list(CLASSES)


def test_described_without_a_column(tmp_path, entry):
    content = shards_module.safetensors.torch.save(
        {"images": torch.zeros(1, 1, 2, 2)}, {HEADER_KEY: json.dumps({"classes": list(CLASSES)})}
    )
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(CorruptFileError, match=f"{NAME}: not a whole shard .*missing"):
        describe_shard(tmp_path / NAME, num_classes=2)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("shard", numbered=True) / NAME
    path.write_bytes(content)
    for read in (shard_fill, lambda path: describe_shard(path, num_classes=2)):
        with pytest.raises(CorruptFileError, match="bank-00000"):
            read(path)
