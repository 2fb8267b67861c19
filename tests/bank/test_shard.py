"""Shards: what is written reads back, bit for bit, and what is none is refused by its name."""

import json
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from genmix_transforms.bank import shard as shard_module
from genmix_transforms.bank.manifest import Manifest, shard_name
from genmix_transforms.bank.rows import Rows
from genmix_transforms.bank.shard import Shard, describe_shard, fill_of, images_per_shard, read_facts, write_shard
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files import atomic
from tests.bank.attacks.editing import joined, parts

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
    fields = {"classes": CLASSES, "dtype": "uint8", "shape": (1, 4, 4), "shards": entries, "sources": ({},) * 3}
    if rows is not None:
        fields["dtype"] = str(rows.images.dtype).removeprefix("torch.")
        fields["shape"] = tuple(rows.images.shape[1:])
        fields["labels"] = "index" if rows.labels.ndim == 1 else "probabilities"
    return Manifest(**{**fields, **changes})


def same(one, other):
    """Bit for bit: a NaN is a NaN."""
    return all(
        b is None
        if a is None  # there are no masks
        else a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())
        for a, b in zip(one, other, strict=True)
    )


def opened(folder, entry, rows=None, **changes):
    return Shard(folder, entry, manifest_of(entry, rows=rows, **changes))


def held(shard):
    names = [name for name in Rows._fields if name != "masks"]  # these rows have none
    return Rows(**{name: torch.from_numpy(shard.column(name).copy()) for name in names})


# Rows


def test_what_is_not_known_is_said_so():
    rows = Rows.complete(make_rows().images, make_rows().labels)
    assert rows.seeds.tolist() == [-1] * COUNT
    assert rows.source.tolist() == rows.flags.tolist() == [0] * COUNT
    assert rows.distance.isnan().all()
    assert same(rows.checked(sources=3), rows)
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
        make_rows()._replace(**changes).checked(sources=3)


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
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 3, 5), (1, 2, 3, 5), (2, 7)])
def test_reads_back(tmp_path, dtype, soft, shape):
    rows = make_rows(shape=shape, dtype=dtype, soft=soft)
    entry = write_shard(tmp_path / NAME, rows, classes=CLASSES, fill="abc")
    shard = opened(tmp_path, entry, rows)
    assert same(held(shard), rows.sorted_by_class())
    assert entry.count == COUNT
    assert entry.class_counts == (3, 2)
    assert entry.bytes == (tmp_path / NAME).stat().st_size
    assert entry.pixel_range == (int(rows.images.numpy().min()), int(rows.images.numpy().max()))
    assert shard.is_as_written()
    assert entry.xxh3 == xxhash.xxh3_64_hexdigest((tmp_path / NAME).read_bytes())
    assert entry.sha256 is None
    assert fill_of(tmp_path / NAME) == "abc"
    assert describe_shard(tmp_path / NAME, manifest_of(rows=rows)) == entry
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
        assert json.loads(file.metadata()["genmix_bank"]) == {"classes": list(CLASSES), "fill": None}


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


# What is no shard. What is one, but not the manifest's, is in attacks/header.py and attacks/labels.py.


def describe(path):
    return describe_shard(path, manifest_of())


@pytest.fixture
def path(tmp_path):
    """A whole shard."""
    write_shard(tmp_path / NAME, make_rows(), classes=CLASSES)
    return tmp_path / NAME


@pytest.mark.parametrize("kept", [0, 3, 8, 20, -1])
def test_truncated(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match=f"{NAME}: not a whole shard|{NAME}: not a bank's shard"):
        describe(path)


@pytest.mark.parametrize("read", [read_facts, describe])
@pytest.mark.parametrize(
    "metadata", [None, [], {}, {"genmix_bank": "no JSON"}, {"genmix_bank": "[]"}, {"format": "pt"}], ids=str
)
def test_header_of_something_else(path, read, metadata):
    header, tensors = parts(path.read_bytes())
    path.write_bytes(joined({**header, "__metadata__": metadata}, tensors))
    with pytest.raises(CorruptFileError, match=f"{NAME}: not a bank's shard: its header has no 'genmix_bank'"):
        read(path)


def test_of_no_fill(path):
    assert fill_of(path) is None


def test_described_without_a_column(path):
    tensors = {name: tensor for name, tensor in load_file(path).items() if name != "seeds"}
    save_file(tensors, path, {"genmix_bank": json.dumps({"classes": list(CLASSES)})})
    with pytest.raises(CorruptFileError, match=f"{NAME}: not a whole shard .*missing"):
        describe(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.tensor([0, 0, 0, 1, -1])},
        {"labels": torch.tensor([0, 0, 0, 1, 2])},
        {"labels": torch.tensor([0, 0, 0, 1, 2**50])},
        {"labels": torch.tensor([1, 0, 1, 0, 1])},
        {"labels": torch.full((5, 2), 0.5)},
        {"images": torch.zeros(5, 1, 4, 5, dtype=torch.uint8)},
        {"images": torch.zeros(5, 1, 4, 4, dtype=torch.uint16)},
        {"labels": torch.zeros(5)},
        {"labels": torch.full((5, 2), torch.nan)},
        {"labels": torch.zeros(5, 1, 1)},
        {"images": torch.zeros(5, 1, 4, 4)},
        {"images": torch.zeros(4, 1, 4, 4, dtype=torch.uint8)},
        {"source": torch.full((5,), 3, dtype=torch.int32)},
        {name: tensor[:0] for name, tensor in make_rows().columns.items()},
    ],
    ids=[
        "negative",
        "no class",
        "far off",
        "unsorted",
        "soft",
        "shape",
        "16 bits",
        "float",
        "NaN",
        "three",
        "float images",
        "fewer images",
        "no source",
        "empty",
    ],
)
def test_described_with_columns_that_cannot_be(path, changes):
    """It comes from another process, or an earlier run, and is to be named in the manifest."""
    save_file({**load_file(path), **changes}, path, {"genmix_bank": json.dumps({"classes": list(CLASSES)})})
    with pytest.raises(CorruptFileError, match=NAME):
        describe(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("shard", numbered=True) / NAME
    path.write_bytes(content)
    for read in (read_facts, describe):
        with pytest.raises(CorruptFileError, match="bank-00000"):
            read(path)


def test_two_processes_at_one_shard_leave_a_whole_one(tmp_path, monkeypatch):
    """Each writes under a name of its own."""
    path, rows, others = tmp_path / NAME, make_rows(), []

    @contextmanager
    def meanwhile(*arguments, **options):
        with atomic.new_file(*arguments, **options) as file:
            file.write(b"")
            if not others:
                others.append("begun")
                others.append(write_shard(path, rows, classes=CLASSES))
            yield file

    monkeypatch.setattr(shard_module, "new_file", meanwhile)
    entry = write_shard(path, rows, classes=CLASSES)
    assert others == ["begun", entry]
    assert opened(tmp_path, entry).is_as_written()
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_a_system_without_nonblocking_files(tmp_path, monkeypatch):
    entry = write_shard(tmp_path / NAME, make_rows(), classes=CLASSES)
    for name in ("O_NONBLOCK", "O_CLOEXEC"):
        monkeypatch.delattr(os, name)
    assert opened(tmp_path, entry).is_as_written()
