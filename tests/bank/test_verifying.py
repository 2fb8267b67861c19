"""Verifying: every shard that is not what was written is named, and only those."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
import xxhash

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.manifest import INDEX, Fill, read_manifest, shard_name, write_manifest
from genmix_transforms.bank.verifying import fast_hash, file_hash, seal, verify_bank
from genmix_transforms.bank.writer import BankWriter, only_writer
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


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("part", ["length", "header", "middle", "end"])
def test_a_flipped_bit_in_each_shard(folder, shard, part):
    path = folder / shard
    place = {"length": 0, "header": 30, "middle": path.stat().st_size - 30, "end": -1}[part]
    before = verify_bank(folder)
    flip(path, place)
    assert named(faults(folder)) == [shard]
    flip(path, place)
    assert verify_bank(folder) == before


def test_every_bit_of_a_shard_counts(folder):
    path = folder / SHARDS[0]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flip(path, place, place % 8)
        assert named(faults(folder)) == [SHARDS[0]], place
        path.write_bytes(whole)
    assert verify_bank(folder).count == 7


def test_the_pixels_are_told_by_their_checksum(folder):
    flip(folder / SHARDS[1], -1)
    assert f"{SHARDS[1]} (not the bytes that were written)" in faults(folder)
    assert SyntheticBank.load(folder, verify=False).class_counts == {"cyst": 3, "other": 4}
    for verify in (None, True):
        with pytest.raises(CorruptFileError, match=rf"{SHARDS[1]}: not the bytes that were written"):
            SyntheticBank.load(folder, verify=verify)


def test_all_that_are_wrong_are_named(folder):
    flip(folder / SHARDS[0], -1)
    (folder / SHARDS[2]).unlink()
    text = faults(folder)
    assert named(text) == [SHARDS[0], SHARDS[2]]
    assert f"{SHARDS[2]}: the manifest names this shard, but there is no such file" in text
    assert text.count(str(folder)) == 1


@pytest.mark.parametrize("shard", SHARDS)
def test_missing(folder, shard):
    (folder / shard).unlink()
    assert named(faults(folder)) == [shard]
    (folder / shard).mkdir()
    assert named(faults(folder)) == [shard]


@pytest.mark.parametrize("shard", SHARDS)
def test_cut_off(folder, shard):
    size = (folder / shard).stat().st_size
    os.truncate(folder / shard, size - 1)
    assert f"{shard}: {size - 1:,} bytes, the manifest says {size:,}: not a whole shard" in faults(folder)


def test_swapped(folder):
    """Whole shards of the same bank, of the same size, in one another's place."""
    first, second, aside = folder / SHARDS[0], folder / SHARDS[1], folder.parent / "aside"
    shutil.move(first, aside)
    shutil.move(second, first)
    shutil.move(aside, second)
    assert first.stat().st_size == second.stat().st_size
    assert named(faults(folder)) == [SHARDS[0], SHARDS[1]]


def test_of_another_bank(folder, tmp_path, make_bank):
    make_bank().save(tmp_path / "another")
    shutil.copy(tmp_path / "another" / SHARDS[0], folder / SHARDS[0])
    assert named(faults(folder)) == [SHARDS[0]]


def test_extra(folder):
    shutil.copy(folder / SHARDS[0], folder / shard_name(7))
    text = faults(folder)
    assert "bank-00007.safetensors (not in the manifest: a killed writer's, or somebody else's)" in text
    assert named(text) == []
    assert SyntheticBank.load(folder).class_counts == {"cyst": 3, "other": 4}  # what is not named is not in the bank


def test_extra_where_a_fill_goes_on(folder):
    """Its shards are there before they are named."""
    shutil.copy(folder / SHARDS[0], folder / shard_name(7))
    write_manifest(folder, replace(read_manifest(folder), fills=(Fill(identity="a", first=3, total=5),)))
    assert verify_bank(folder).shards_to_come == 5


def test_other_files_do_not_count(folder):
    (folder / "README.md").write_text("a card", encoding="utf-8")
    (folder / ".bank-00009.safetensors.tmp").write_bytes(b"half")
    assert verify_bank(folder).count == 7


def test_sources_that_the_manifest_does_not_have(folder):
    content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    content["sources"] = content["sources"][:1]
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")
    text = faults(folder)
    assert named(text) == [SHARDS[0], SHARDS[1]]  # the third's one image is of the first source
    assert f"{SHARDS[0]} (of a source that the manifest does not have)" in text


def test_other_checksum_in_the_manifest(folder):
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, shards=(replace(manifest.shards[0], xxh3="0" * 16), *manifest.shards[1:])))
    assert named(faults(folder)) == [SHARDS[0]]


def test_damaged_manifest(folder):
    (folder / INDEX).write_bytes(b"{")
    with pytest.raises(CorruptFileError, match="not a bank's manifest"):
        verify_bank(folder)


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


def test_forgery_shows_once_sealed(folder):
    """xxh3 is against damage: whoever can find, or write, another one is not stopped by it. sha256 stops him."""
    seal(folder)
    flip(folder / SHARDS[1], -1)
    forged = xxhash.xxh3_64_hexdigest((folder / SHARDS[1]).read_bytes())
    manifest = read_manifest(folder)
    shards = list(manifest.shards)
    shards[1] = replace(shards[1], xxh3=forged)
    write_manifest(folder, replace(manifest, shards=tuple(shards)))
    assert f"{SHARDS[1]} (not the bytes that were written)" in faults(folder)
    shards[1] = replace(shards[1], sha256=None)
    write_manifest(folder, replace(manifest, shards=tuple(shards)))
    assert verify_bank(folder).count == 7


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


@pytest.mark.parametrize("size", [0, 1, 2**22 - 1, 2**22, 2**22 + 1])
def test_hashes_are_those_of_the_bytes(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(content)
    assert file_hash(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert fast_hash(tmp_path / "file") == xxhash.xxh3_64_hexdigest(content)
