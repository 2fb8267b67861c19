"""Verifying: every shard that is not what was written is named, and only those."""

import hashlib
import shutil
from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.hub import seal
from genmix_transforms.bank.manifest import INDEX, Fill, read_manifest, shard_name, write_manifest
from genmix_transforms.bank.opening import verify_bank
from genmix_transforms.bank.writing import BankWriter, only_writer
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError, OverwriteError

SHARDS = tuple(shard_name(number) for number in range(3))


@pytest.fixture
def folder(tmp_path, pixels):
    """A bank of seven images in three shards, of two sources."""
    folder = tmp_path / "bank"
    with BankWriter(
        folder,
        classes=["cyst", "other"],
        image_shape=(1, 4, 4),
        provenance=[{"by": "one"}, {"by": "two"}],
        shard_bytes=48,
    ) as writer:
        labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])
        writer.add(pixels(7), labels, source=torch.tensor([0, 1, 0, 1, 0, 1, 0], dtype=torch.int32))
    assert [entry.file for entry in read_manifest(folder).shards] == list(SHARDS)
    return folder


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def faults(folder):
    """The message of the refusal."""
    with pytest.raises(CorruptFileError, match="Fill the bank again, or take it from its copy") as caught:
        verify_bank(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    return str(caught.value)


def named(text):
    return [name for name in SHARDS if name in text]


def test_whole(folder):
    assert verify_bank(folder) == verify_bank(str(folder)) == read_manifest(folder)


def test_of_no_images(tmp_path):
    with BankWriter(tmp_path / "bank", classes=["cyst"], image_shape=(1, 4, 4)):
        pass
    assert verify_bank(tmp_path / "bank").count == 0


def test_no_bank(tmp_path):
    for read in (verify_bank, seal):
        with pytest.raises(MissingPathError, match="not a bank|no such bank"):
            read(tmp_path / "nowhere")


def test_every_bit_of_a_shard_counts(folder):
    path = folder / SHARDS[0]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flip(path, place, place % 8)
        assert named(faults(folder)) == [SHARDS[0]], place
        path.write_bytes(whole)
    assert verify_bank(folder).count == 7


def test_all_that_are_wrong_are_named(folder):
    """More damage, of every kind: attacks/."""
    flip(folder / SHARDS[0], -1)
    (folder / SHARDS[2]).unlink()
    text = faults(folder)
    assert named(text) == [SHARDS[0], SHARDS[2]]
    assert f"{SHARDS[2]}: the manifest names this shard, but there is no such file" in text
    assert text.count(str(folder)) == 1


def test_extra_where_a_fill_goes_on(folder):
    """Its shards are there before they are named."""
    shutil.copy(folder / SHARDS[0], folder / shard_name(7))
    write_manifest(folder, replace(read_manifest(folder), fills=(Fill(identity="a", first=3, total=5),)))
    assert verify_bank(folder).shards_to_come == 5


# Sealing


def test_sealed(folder):
    before = read_manifest(folder)
    sealed = seal(folder)
    assert sealed == read_manifest(folder) == verify_bank(folder)
    for entry in sealed.shards:
        assert entry.sha256 == hashlib.sha256((folder / entry.file).read_bytes()).hexdigest()
    unsealed = tuple(replace(entry, sha256=None) for entry in sealed.shards)
    assert replace(sealed, shards=unsealed, generation=before.generation) == before
    assert sealed.generation == before.generation + 1


def test_sealed_once(folder):
    sealed = seal(folder)
    content = (folder / INDEX).read_bytes()
    assert seal(folder) == sealed
    assert (folder / INDEX).read_bytes() == content


def test_sealed_in_part(folder):
    """As after an append: the sums that are there are checked, those that are not are added."""
    sealed = seal(folder)
    in_part = (*sealed.shards[:2], replace(sealed.shards[2], sha256=None))
    write_manifest(folder, replace(sealed, shards=in_part))
    assert seal(folder).shards == sealed.shards


def test_damage_is_not_sealed(folder):
    content = (folder / INDEX).read_bytes()
    flip(folder / SHARDS[2], -1)
    with pytest.raises(CorruptFileError, match=SHARDS[2]):
        seal(folder)
    assert (folder / INDEX).read_bytes() == content


def test_not_sealed_while_another_writes(folder):
    with only_writer(folder), pytest.raises(OverwriteError, match="another process is writing this bank"):
        seal(folder)


def test_bank_verifies_its_own_files(folder, make_bank):
    bank = SyntheticBank.load(folder)
    bank.verify()
    flip(folder / SHARDS[0], -1)
    with pytest.raises(CorruptFileError, match=SHARDS[0]):
        bank.verify()
    with pytest.raises(InputError, match="neither saved nor loaded: there are no files to check"):
        make_bank().verify()
