"""Saving, loading, verifying: every bit comes back, and a failure leaves what was there. Damage and kills: attacks/."""

import errno
import json
import shutil

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank, manifest, writing
from genmix_transforms.bank import shard as shard_files
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError, OverwriteError
from genmix_transforms.files.checks import name_fault

CLASSES = ("cyst", "hemangioma", "metastasis")
FIELDS = ("images", "labels", "seeds", "class_start", "class_count")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.name != manifest.LOCK)


def shards(folder):
    return sorted(folder.glob("bank-*.safetensors"))


@pytest.fixture
def small_shards(monkeypatch):
    """Two 4x4 images of 8 bits a shard."""
    monkeypatch.setattr(shard_files, "SHARD_BYTES", 32)


@pytest.fixture
def folder(tmp_path, make_bank, small_shards):
    """A bank of seven images in four shards."""
    make_bank().save(tmp_path / "bank")
    return tmp_path / "bank"


def rewrite(folder, change):
    """Change what the manifest says."""
    path = folder / manifest.INDEX
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# Round trips


SOFT = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0, 1, 0], [1 / 3] * 3])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shape": (3, 8, 6)},
        {"dtype": torch.uint16, "window": (-100.0, 200.5)},
        {"shape": (2, 3, 4, 5), "dtype": torch.uint16},
        {"labels": SOFT},
        {"labels": [1]},
        {"labels": torch.zeros(0, dtype=torch.int64)},
        {"classes": ("foie d'œil", "a b", "ß", "-")},
        {
            "provenance": {
                "generator": {"kind": "dcgan", "steps": 70_000},
                "training_set": {"class_counts": {"cyst": 433}},
                "note": "hémangiome",
            }
        },
    ],
    ids=["plain", "colour", "window", "volumes", "soft", "one", "empty", "names", "provenance"],
)
@pytest.mark.parametrize("several", [False, True])
def test_comes_back_bit_for_bit(tmp_path, make_bank, same, monkeypatch, options, several):
    bank = make_bank(**options)
    if several:
        monkeypatch.setattr(shard_files, "SHARD_BYTES", 2 * bank.images[:1].nbytes)
    bank.save(tmp_path / "bank")
    assert len(shards(tmp_path / "bank")) == (-(-len(bank) // 2) if several else min(1, len(bank)))
    loaded = SyntheticBank.load(tmp_path / "bank", verify=True)
    same(loaded, bank)
    loaded.verify()


@given(
    data=st.data(),
    spatial=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    channels=st.integers(1, 4),
    classes=st.lists(
        st.text("aéß .-", min_size=1, max_size=6).filter(lambda name: not name_fault(name)),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    dtype=st.sampled_from([torch.uint8, torch.uint16]),
    shard_bytes=st.integers(1, 200),
)
def test_any_bank_comes_back(tmp_path_factory, data, spatial, channels, classes, dtype, shard_bytes):
    labels = data.draw(st.lists(st.integers(0, len(classes) - 1), max_size=9))
    soft = data.draw(st.booleans())
    seeds = data.draw(st.lists(st.integers(-1, 2**63 - 1), min_size=len(labels), max_size=len(labels)))
    images = torch.randint(0, 256, (len(labels), channels, *spatial), generator=torch.Generator().manual_seed(0))
    index = torch.tensor(labels, dtype=torch.int64)
    bank = SyntheticBank(
        images.to(dtype) * (1 if dtype == torch.uint8 else 257),
        torch.eye(len(classes))[index] if soft else index,
        classes=classes,
        seeds=torch.tensor(seeds, dtype=torch.int64),
    )
    folder = tmp_path_factory.mktemp("any", numbered=True) / "bank"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_files, "SHARD_BYTES", shard_bytes)
        bank.save(folder)
    loaded = SyntheticBank.load(folder, verify=True)
    for name in FIELDS:
        assert getattr(loaded, name).dtype == getattr(bank, name).dtype
        assert torch.equal(getattr(loaded, name), getattr(bank, name))
    assert loaded.classes == bank.classes
    read = manifest.read_manifest(folder)
    assert read.count == len(bank)
    assert dict(zip(read.classes, read.class_counts, strict=True)) == bank.class_counts


def test_shards_are_filled_in_order(folder):
    read = manifest.read_manifest(folder)
    assert [shard.file for shard in read.shards] == [manifest.shard_name(number) for number in range(4)]
    assert [shard.count for shard in read.shards] == [2, 2, 2, 1]
    assert [shard.xxh3 for shard in read.shards] == [
        xxhash.xxh3_64_hexdigest(path.read_bytes()) for path in shards(folder)
    ]
    assert names(folder) == [*(path.name for path in shards(folder)), manifest.INDEX]
    assert names(folder.parent) == ["bank"]


def test_the_same_bank_gives_the_same_bytes(tmp_path, make_bank, small_shards, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    folder = tmp_path / "bank"
    make_bank().save(folder)
    make_bank().save(folder.parent / "again")
    for name in names(folder):
        assert (folder / name).read_bytes() == (folder.parent / "again" / name).read_bytes()


def test_load_takes_strings_and_a_device(folder):
    bank = SyntheticBank.load(str(folder), device="meta")
    assert {buffer.device.type for buffer in bank.buffers()} == {"meta"}
    assert bank.image_shape == (1, 4, 4)


def test_load_with_the_classes_of_the_data(folder, make_bank, same):
    order = ["metastasis", "normal", "cyst", "hemangioma"]
    bank = SyntheticBank.load(folder, classes=order)
    same(bank, make_bank().with_classes(order))
    assert bank.class_counts == {"metastasis": 3, "normal": 0, "cyst": 2, "hemangioma": 2}
    bank.verify()  # the re-mapped bank still knows its files
    SyntheticBank.load(folder).with_classes(order).verify()


def test_load_refuses_classes_that_are_not_the_datas(folder):
    with pytest.raises(InputError, match="hemangioma is no class of the data"):
        SyntheticBank.load(folder, classes=["cyst", "metastasis"])


def test_verify_of_a_bank_that_is_in_no_folder(make_bank):
    with pytest.raises(InputError, match="was neither saved nor loaded"):
        make_bank().verify()


def test_a_saved_bank_can_be_verified_at_once(make_bank, tmp_path):
    bank = make_bank()
    bank.save(tmp_path / "mine")
    bank.verify()
    shard = shards(tmp_path / "mine")[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFileError, match=shard.name):
        bank.verify()


def test_verify_of_a_folder_that_is_gone(folder):
    bank = SyntheticBank.load(folder)
    shutil.rmtree(folder)
    with pytest.raises(MissingPathError, match="no such bank"):
        bank.verify()


# Saving over something


def test_an_existing_bank_is_not_overwritten(folder, make_bank, same):
    other = make_bank(seed=1)
    with pytest.raises(OverwriteError, match="bank: holds a bank already; give another folder, append, or over"):
        other.save(folder)
    same(SyntheticBank.load(folder), make_bank())
    other.save(folder, overwrite=True)
    same(SyntheticBank.load(folder, verify=True), other)
    assert names(folder.parent) == ["bank"]


def test_overwriting_leaves_no_shard_of_the_old_bank(folder, make_bank):
    make_bank([0]).save(folder, overwrite=True)
    assert names(folder) == ["bank-00004.safetensors", manifest.INDEX]


def test_a_bank_can_be_saved_over_the_files_it_was_read_from(folder, make_bank, same):
    """Its images are mapped from those files."""
    for _ in range(2):
        bank = SyntheticBank.load(folder)
        bank.save(folder, overwrite=True)
        same(bank, make_bank())
        same(SyntheticBank.load(folder, verify=True), make_bank())


def test_an_overwrite_takes_nobodys_files_with_it(folder, make_bank, same):
    (folder / "README.md").write_text("mine")
    make_bank(seed=1).save(folder, overwrite=True)
    assert (folder / "README.md").read_text() == "mine"
    same(SyntheticBank.load(folder, verify=True), make_bank(seed=1))


def test_a_loaded_bank_is_found_again_from_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    bank = SyntheticBank.load(folder.name)
    monkeypatch.chdir("/")
    bank.verify()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_bank_is_never_overwritten(tmp_path, make_bank, overwrite):
    thesis = tmp_path / "home" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("two years of work")
    with pytest.raises(OverwriteError, match=r"home: holds other files and no bank \(thesis.tex\)"):
        make_bank().save(tmp_path / "home", overwrite=overwrite)
    with pytest.raises(OverwriteError, match=r"thesis\.tex: cannot be a folder"):
        make_bank().save(thesis, overwrite=overwrite)
    assert thesis.read_text() == "two years of work"
    assert names(tmp_path) == ["home"]
    assert names(tmp_path / "home") == ["thesis.tex"]


def test_an_empty_folder_is_taken_and_parents_are_made(tmp_path, make_bank):
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "a", tmp_path / "b" / "c" / "d"):
        make_bank().save(str(path))
        SyntheticBank.load(path, verify=True)
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path / "b" / "c") == ["d"]


# Failing while it saves


def fail_at(call, error):
    """A ``write_shard`` that fails at its given call."""
    calls = iter(range(1, 100))
    write = shard_files.write_shard

    def write_or_fail(*args, **kwargs):
        if next(calls) == call:
            raise error
        return write(*args, **kwargs)

    return write_or_fail


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", [1, 2, 4])
@pytest.mark.parametrize("error", [DISK_FULL, KeyboardInterrupt()], ids=["disk full", "ctrl-c"])
def test_a_failed_write_leaves_nothing(tmp_path, make_bank, small_shards, monkeypatch, call, error):
    monkeypatch.setattr(writing, "write_shard", fail_at(call, error))
    with pytest.raises(type(error)):
        make_bank().save(tmp_path / "bank")
    assert names(tmp_path) == []


@pytest.mark.parametrize("function", ["write_shard", "write_manifest"])
def test_a_failed_overwrite_leaves_the_old_bank(folder, make_bank, same, monkeypatch, function):
    def fail(*_, **__):
        raise DISK_FULL

    monkeypatch.setattr(writing, function, fail)
    with pytest.raises(OSError, match="No space left"):
        make_bank(seed=1).save(folder, overwrite=True)
    assert names(folder.parent) == ["bank"]
    same(SyntheticBank.load(folder, verify=True), make_bank())
