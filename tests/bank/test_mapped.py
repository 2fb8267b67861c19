"""A bank of many shards on disk answers as the same bank in memory does."""

import ctypes
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import BankWriter, SyntheticBank, manifest
from genmix_transforms.bank.mapped import MappedRows
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
    order=st.permutations([0, 1, 2, -1]),
    data=st.data(),
)
def test_any_choice_in_any_order_of_classes(tmp_path_factory, labels, per_shard, order, data):
    images, _ = tensors(len(labels))
    given_labels = torch.tensor(labels, dtype=torch.int64)
    mapped = write(tmp_path_factory.mktemp("any") / "bank", images, given_labels, per_shard=per_shard)
    bank = SyntheticBank(images, given_labels, classes=CLASSES)
    kept = sorted(data.draw(st.sets(st.integers(0, len(labels) - 1)))) if labels else []
    rows = torch.tensor(kept, dtype=torch.int64)
    chosen = mapped.select(np.array(kept, dtype=np.int64)).with_classes(order)
    names = ["new" if place < 0 else CLASSES[place] for place in order]
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


def test_a_cold_disk_is_asked_for_the_rows_that_are_read(tmp_path):
    with BankWriter(tmp_path / "bank", classes=["a", "b"], image_shape=(1, 4, 4), shard_bytes=64) as writer:
        writer.add(torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4), torch.arange(20) % 2)
    rows = SyntheticBank.load(tmp_path / "bank", resident=False)._mapped
    asked = []
    rows._read_ahead.ask = asked.extend
    rows._read_ahead.on = True
    out = rows.take(np.array([19, 0, 7]))
    assert [ctypes.string_at(address, 16) for address in asked] == [image.tobytes() for image in out]
    rows._read_ahead.on = False
    rows.take(np.arange(20))
    assert len(asked) == 3
