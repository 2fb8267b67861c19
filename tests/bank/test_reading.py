"""A bank of many shards on disk answers as the same bank in memory does."""

import ctypes
import mmap
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import BankWriter, SyntheticBank, manifest, reading
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.errors import CorruptFileError, InputError

CLASSES = ("cyst", "hemangioma", "metastasis")


def tensors(count, *, seed=0, classes=3):
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (count, 2, 3, 4), dtype=np.uint8))
    return images, torch.from_numpy(random.integers(0, classes, count))


def write(folder, images, labels, *, per_shard=7, soft=False):
    with BankWriter(
        folder,
        classes=CLASSES,
        image_shape=images.shape[1:],
        labels="probabilities" if soft else "index",
        shard_bytes=per_shard * 24,
    ) as writer:
        given_labels = torch.eye(3)[labels] * 0.9 if soft else labels
        writer.add(images, given_labels, seeds=torch.arange(len(images)), distance=torch.rand(len(images)))
    return MappedRows(folder, manifest.read_manifest(folder))


@pytest.mark.parametrize("soft", [False, True])
def test_the_rows_are_those_that_were_written_class_by_class(tmp_path, soft):
    images, labels = tensors(50)
    mapped = write(tmp_path / "bank", images, labels, soft=soft)
    bank = SyntheticBank(images, torch.eye(3)[labels] * 0.9 if soft else labels, classes=CLASSES)
    assert len(mapped.shards) == 8
    assert torch.equal(mapped.images(), bank.images)
    assert torch.equal(mapped.labels(), bank.labels)
    assert mapped.class_count.tolist() == bank.class_count.tolist()
    assert torch.equal(mapped.column("seeds"), torch.argsort(labels, stable=True))
    index = np.array([3, 49, 0, 17, 17])
    out = np.empty((5, 2, 3, 4), dtype=np.uint8)
    mapped.take(index, out=out)
    assert torch.equal(torch.from_numpy(out), bank.images[torch.from_numpy(index)])


@given(
    labels=st.lists(st.integers(0, 2), max_size=30),
    per_shard=st.integers(1, 9),
    names=st.permutations([*CLASSES, "new"]),
    data=st.data(),
)
def test_any_choice_in_any_order_of_classes(tmp_path_factory, labels, per_shard, names, data):
    images, _ = tensors(len(labels))
    given_labels = torch.tensor(labels, dtype=torch.int64)
    mapped = write(tmp_path_factory.mktemp("any") / "bank", images, given_labels, per_shard=per_shard)
    bank = SyntheticBank(images, given_labels, classes=CLASSES)
    kept = sorted(data.draw(st.sets(st.integers(0, len(labels) - 1)))) if labels else []
    rows = torch.tensor(kept, dtype=torch.int64)
    chosen = mapped.select(np.array(kept, dtype=np.int64)).with_classes(tuple(names))
    expected = SyntheticBank(bank.images[rows], bank.labels[rows], classes=CLASSES).with_classes(names)
    assert len(chosen) == len(kept)
    assert torch.equal(chosen.labels(), expected.labels)
    assert torch.equal(chosen.images(), expected.images)
    assert chosen.class_count.tolist() == expected.class_count.tolist()
    again = pickle.loads(pickle.dumps(chosen))
    assert torch.equal(again.images(), chosen.images())
    assert again.class_count.tolist() == chosen.class_count.tolist()


def test_pickled_it_is_as_small_as_its_manifest(tmp_path):
    """A worker maps the files again: the pixels do not travel."""
    images, labels = tensors(2000)
    mapped = write(tmp_path / "bank", images, labels, per_shard=500)
    assert len(pickle.dumps(mapped)) < 4000 < images.nbytes


def test_writing_to_what_was_read_never_reaches_the_file(tmp_path):
    images, labels = tensors(5)
    mapped = write(tmp_path / "bank", images, labels)
    before = mapped.shards[0].path.read_bytes()
    mapped.images().fill_(0)
    assert mapped.shards[0].path.read_bytes() == before


def test_a_shard_that_is_gone(tmp_path):
    images, labels = tensors(20)
    mapped = write(tmp_path / "bank", images, labels)
    mapped.shards[1].path.unlink()
    with pytest.raises(CorruptFileError, match=r"bank-00001\.safetensors: the manifest names this shard, but there is"):
        MappedRows(mapped.folder, mapped.manifest)


def test_rows_that_there_are_not(tmp_path):
    images, labels = tensors(20)
    write(tmp_path / "bank", images, labels)
    bank = SyntheticBank.load(tmp_path / "bank", resident=False)
    for wrong in ([20], [-1]):
        with pytest.raises(InputError, match="numbers must be from 0 to 19"):
            bank.rows(torch.tensor(wrong))


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    shape=st.sampled_from([(1, 1), (3, 5), (2, 3, 4), (1, 2, 2, 2)]),
    dtype=st.sampled_from([torch.uint8, torch.uint16]),
    limit=st.sampled_from([10, 2**62]),
    data=st.data(),
)
def test_rows_of_many_shards_as_if_they_were_one(tmp_path_factory, counts, shape, dtype, limit, data):
    """Also where the shards lie too far apart for NumPy to count what is between them."""
    folder = tmp_path_factory.mktemp("many") / "bank"
    highest = 256 if dtype == torch.uint8 else 65536
    images = torch.randint(0, highest, (sum(counts), *shape), dtype=torch.int32).to(dtype)
    for number, some in enumerate(images.view(torch.uint8 if dtype == torch.uint8 else torch.int16).split(counts)):
        with BankWriter(folder, classes=["a"], image_shape=shape, pixel_dtype=dtype, append=number > 0) as writer:
            writer.add(some.view(dtype), torch.zeros(len(some), dtype=torch.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading._Gatherer, "_LARGEST", limit)
        mapped = MappedRows(folder, manifest.read_manifest(folder))
    where = np.array(data.draw(st.lists(st.integers(0, sum(counts) - 1), max_size=20)), dtype=np.int64)
    expected = images.numpy()[where]
    taken = mapped.take(where)
    assert taken.dtype == expected.dtype
    assert np.array_equal(taken, expected)
    out = np.zeros_like(expected)
    assert mapped.take(where, out=out) is out
    assert np.array_equal(out, expected)
    taken += 1  # a copy
    assert np.array_equal(mapped.take(where), expected)


@pytest.fixture
def asked(monkeypatch):
    """What the system is told of rows that will be read: (address, bytes, advice)."""
    if reading._madvise() is None:
        pytest.skip("no madvise on this system")
    calls = []
    monkeypatch.setattr(reading, "_madvise", lambda: lambda *call: calls.append(call))
    return calls


def test_a_cold_disk_is_asked_for_the_rows_that_are_read(tmp_path, asked, monkeypatch):
    with BankWriter(tmp_path / "bank", classes=["a", "b"], image_shape=(1, 4, 4), shard_bytes=64) as writer:
        writer.add(torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4), torch.arange(20) % 2)
    bank = SyntheticBank.load(tmp_path / "bank", resident=False)
    times = iter([0.0, 10.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0])
    monkeypatch.setattr(reading.time, "perf_counter", lambda: next(times))
    wanted = torch.tensor([19, 0, 7])
    rows = bank.rows(wanted)  # nothing is known yet, and it comes slowly
    assert len(asked) == 3
    for (address, size, advice), row in zip(asked, rows, strict=True):
        assert address % mmap.PAGESIZE == 0
        assert advice == mmap.MADV_WILLNEED
        assert row.numpy().tobytes() in ctypes.string_at(address, size)
    bank.rows(wanted)  # is asked for too, and comes fast
    assert len(asked) == 6
    bank.rows(wanted)  # so this is not, and comes slowly
    assert len(asked) == 6
    bank.rows(wanted)
    assert len(asked) == 9


def test_the_system_takes_the_call(tmp_path):
    """A refusal would change nothing, and would not be noticed."""
    call = reading._madvise()
    if call is None:
        pytest.skip("no madvise on this system")
    (tmp_path / "file").write_bytes(bytes(range(256)) * 64)
    mapped = np.memmap(tmp_path / "file", dtype=np.uint8, mode="r")
    address = mapped.__array_interface__["data"][0]
    call.restype = ctypes.c_int
    assert call(address, len(mapped), mmap.MADV_WILLNEED) == 0
    call(0, 100, mmap.MADV_WILLNEED)  # a wrong address is no harm
    assert mapped[300] == 300 % 256


def test_without_the_call_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_madvise", lambda: None)
    images, labels = tensors(20)
    mapped = write(tmp_path / "bank", images, labels)
    assert mapped.take(np.arange(20)).shape == images.shape
