"""Writing shard by shard: what is published is whole, what is not is cleaned up, one writer at a time."""

import errno
import json
import multiprocessing
import shutil
import signal
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.bank import BankWriter, SyntheticBank, writing
from genmix_transforms.bank.manifest import INDEX, LOCK, read_manifest
from genmix_transforms.bank.writing import only_writer
from genmix_transforms.errors import InputError, OverwriteError

CLASSES = ("cyst", "metastasis")


def some(count, value=7):
    return torch.full((count, 1, 4, 4), value, dtype=torch.uint8), torch.arange(count) % 2


def new(folder, **options):
    return BankWriter(folder, **{"classes": CLASSES, "image_shape": (1, 4, 4), "shard_bytes": 64, **options})


def files(folder):
    return sorted(file.name for file in folder.iterdir() if file.name != LOCK)


def test_shards_are_published_one_by_one(tmp_path):
    with new(tmp_path / "bank") as out:
        out.add(*some(3))
        assert files(tmp_path / "bank") == []  # not a shard yet
        out.add(*some(6))
        assert [shard.count for shard in read_manifest(tmp_path / "bank").shards] == [4, 4]
        assert read_manifest(tmp_path / "bank").generation == 2
    assert [shard.count for shard in read_manifest(tmp_path / "bank").shards] == [4, 4, 1]
    assert SyntheticBank.load(tmp_path / "bank", verify=True).class_counts == {"cyst": 5, "metastasis": 4}


def test_published_at_the_end(tmp_path):
    with new(tmp_path / "bank", publish="close") as out:
        out.add(*some(9))
        assert not (tmp_path / "bank" / INDEX).exists()
    assert read_manifest(tmp_path / "bank").generation == 1
    assert read_manifest(tmp_path / "bank").count == 9


def test_every_column_comes_back(tmp_path):
    images, labels = some(5)
    columns = {
        "seeds": torch.tensor([2**62, -1, 0, 5, 6]),
        "source": torch.tensor([1, 0, 1, 0, 0], dtype=torch.int32),
        "distance": torch.tensor([0.5, torch.nan, 0.0, 3.0, 1.0]),
        "flags": torch.tensor([0, 255, 1, 2, 4], dtype=torch.uint8),
    }
    with new(tmp_path / "bank", provenance=[{"a": 1}, {"b": 2}]) as out:
        out.add(images, labels, **columns)
    bank = SyntheticBank.load(tmp_path / "bank")
    for name, column in columns.items():  # class by class
        torch.testing.assert_close(getattr(bank, name), column[[0, 2, 4, 1, 3]], rtol=0, atol=0, equal_nan=True)
    assert bank.sources == ({"a": 1}, {"b": 2})


def test_appending_keeps_the_old_files_and_their_numbers(tmp_path):
    folder = tmp_path / "bank"
    with new(folder, provenance={"a": 1}) as out:
        out.add(*some(5))
    before = {name: (folder / name).read_bytes() for name in files(folder) if name != INDEX}
    for provenance in ({"b": 2}, {"a": 1}):
        with new(folder, append=True, provenance=provenance) as out:
            out.add(*some(2, 9))
    assert files(folder) == [*(f"bank-{number:05d}.safetensors" for number in range(4)), INDEX]
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    bank = SyntheticBank.load(folder, verify=True)
    assert bank.sources == ({"a": 1}, {"b": 2})
    assert sorted(bank.source.tolist()) == [0] * 7 + [1] * 2


def test_overwriting_keeps_the_old_bank_to_the_last_moment(tmp_path):
    folder = tmp_path / "bank"
    with new(folder) as out:
        out.add(*some(6, 1))
    reader = SyntheticBank.load(folder, resident=False)
    with new(folder, overwrite=True) as out:
        out.add(*some(9, 2))
        assert SyntheticBank.load(folder, verify=True).images.unique().tolist() == [1]
    assert SyntheticBank.load(folder, verify=True).images.unique().tolist() == [2]
    assert len(files(folder)) == 4
    assert reader.images.unique().tolist() == [1]  # who has it mapped, keeps it


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=type)
@pytest.mark.parametrize("appended", [False, True])
def test_an_error_leaves_the_last_generation_and_nothing_else(tmp_path, monkeypatch, error, appended):
    folder = tmp_path / "bank"
    if appended:
        with new(folder) as out:
            out.add(*some(5, 1))
    before = files(folder) if appended else []
    monkeypatch.setattr(writing, "write_manifest", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)), new(folder, append=appended) as out:
        out.add(*some(6, 2))
    assert (files(folder) if folder.exists() else []) == before
    if appended:
        assert SyntheticBank.load(folder, verify=True).images.unique().tolist() == [1]


def append_for_ever(folder, ready):
    torch.set_num_threads(1)
    ready.set()
    while True:
        with new(folder, append=True, provenance={"run": 1}) as out:
            for _ in range(5):
                out.add(torch.full((3, 1, 4, 4), 9, dtype=torch.uint8), torch.tensor([0, 1, 1]))


def test_killed_at_any_moment_the_last_generation_stands(tmp_path):
    """kill -9 while a process appends: whole, never less than before, and what was left over is cleaned up.

    At moments that are named, and by a full disk or Ctrl-C: attacks/writing.py.
    """
    folder = tmp_path / "bank"
    with new(folder) as out:
        out.add(*some(4, 1))
    count = 4
    context = multiprocessing.get_context("fork")
    for number in range(4):
        ready = context.Event()
        process = context.Process(target=append_for_ever, args=(folder, ready))
        process.start()
        assert ready.wait(60)
        time.sleep(0.003 + 0.017 * number)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        bank = SyntheticBank.load(folder, verify=True)
        assert len(bank) >= count
        values = [image.unique().tolist() for image in bank.images]
        assert sorted(values) == [[1]] * (4 + number) + [[9]] * (len(bank) - 4 - number)  # no image of two halves
        count = len(bank)
        with new(folder, append=True) as out:
            out.add(*some(1, 1))
        count += 1
        named = {shard.file for shard in read_manifest(folder).shards}
        assert set(files(folder)) == named | {INDEX}
    SyntheticBank.load(folder).verify()


def test_one_writer_at_a_time(tmp_path):
    with new(tmp_path / "bank") as out:
        out.add(*some(4))
        with (
            pytest.raises(OverwriteError, match="bank: another process is writing this bank; wait for it"),
            new(tmp_path / "bank", append=True),
        ):
            pass
    with only_writer(tmp_path / "bank"):
        pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"append": True, "overwrite": True}, "append and overwrite exclude each other"),
        ({"publish": "never"}, "publish must be 'shard' or 'close', got 'never'"),
        ({"labels": "names"}, "labels must be 'index' or 'probabilities', got 'names'"),
        ({"classes": ["a", "a"]}, "classes must be different names"),
        ({"classes": ["a/b"]}, "class name 'a/b': it holds a slash"),
        ({"image_shape": (4,)}, r"images must be a uint8 or uint16 tensor of shape \(N, C"),
        ({"pixel_dtype": torch.float32}, "images must be a uint8 or uint16 tensor"),
        ({"window": (1, 0)}, "window must be"),
        ({"provenance": {"a": {1}}}, "provenance must be"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, options, text):
    with pytest.raises(InputError, match=text):
        new(tmp_path / "bank", **options)
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    ("images", "labels", "columns", "text"),
    [
        (torch.zeros(2, 1, 4, 5, dtype=torch.uint8), [0, 1], {}, r"made for \(1, 4, 4\) torch.uint8 images"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint16), [0, 1], {}, r"made for \(1, 4, 4\) torch.uint8 images"),
        (some(2)[0], [[1.0, 0.0], [0.0, 1.0]], {}, "labels of kind 'index', got .* and 'probabilities'"),
        (some(2)[0], [0, 2], {}, "labels run from 0 to 2, but there are 2 classes"),
        (some(2)[0], [0, 1], {"seeds": torch.zeros(3, dtype=torch.int64)}, r"seeds must be int64 of shape \(2,\)"),
        (some(2)[0], [0, 1], {"source": torch.ones(2, dtype=torch.int32)}, "source must be from 0 to 0"),
        (some(2)[0], [0, 1], {"distance": torch.tensor([-1.0, 0.0])}, "distance must not be negative"),
        (some(2)[0], [0, 1], {"flags": torch.zeros(2)}, "flags must be uint8"),
    ],
)
def test_images_that_do_not_fit(tmp_path, images, labels, columns, text):
    with new(tmp_path / "bank") as out:
        with pytest.raises(InputError, match=text):
            out.add(images, torch.tensor(labels), **columns)
        out.add(*some(2))
    assert len(SyntheticBank.load(tmp_path / "bank")) == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": ["metastasis", "cyst"]}, "the bank's classes are"),
        ({"image_shape": (1, 4, 5)}, "the bank's shape are"),
        ({"window": (-100, 200)}, "the bank's window are None"),
        ({"labels": "probabilities"}, "the bank's labels are index"),
    ],
)
def test_another_kind_of_bank_is_not_appended_to(tmp_path, options, text):
    with new(tmp_path / "bank") as out:
        out.add(*some(4))
    before = (tmp_path / "bank" / INDEX).read_text()
    with pytest.raises(InputError, match=text), new(tmp_path / "bank", append=True, **options):
        pass
    assert (tmp_path / "bank" / INDEX).read_text() == before


def test_a_folder_of_somebody_elses(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for options in ({}, {"append": True}, {"overwrite": True}):
        with pytest.raises(OverwriteError, match="holds other files and no bank"), new(tmp_path, **options):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_manifest_has_a_date_that_can_be_fixed(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with new(tmp_path / "bank") as out:
        out.add(*some(4))
    assert json.loads((tmp_path / "bank" / INDEX).read_text())["created"] == "2023-11-14T22:13:20Z"


def test_what_cannot_be_removed_or_locked_is_a_clear_error(tmp_path):
    folder = tmp_path / "bank"

    def write(**options):
        with new(folder, **options) as opened:
            opened.add(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))

    write()
    (folder / "bank-00099.safetensors").mkdir()
    with pytest.raises(OverwriteError, match=r"bank-00099.safetensors: a folder with a shard's name; move it"):
        write(append=True)
    (folder / "bank-00099.safetensors").rmdir()
    (folder / ".bank.lock").unlink(missing_ok=True)
    (folder / ".bank.lock").mkdir()
    with pytest.raises(OverwriteError, match=r"\.bank\.lock cannot be locked \(Is a directory\)"):
        write(append=True)
    assert len(SyntheticBank.load(folder, verify=True)) == 1  # nothing has changed


@settings(max_examples=40)  # each writes files, and has them all on the disk before it goes on
@given(counts=st.lists(st.integers(0, 10), max_size=5), per_shard=st.integers(1, 6))
def test_however_images_are_added_the_files_are_the_same(tmp_path_factory, counts, per_shard):
    folder = tmp_path_factory.mktemp("pieces")
    images = torch.arange(sum(counts), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    labels = torch.arange(sum(counts)) % 2
    columns = {"seeds": torch.arange(sum(counts)), "distance": torch.arange(sum(counts)) / 2}
    for name, pieces in (("pieces", counts), ("at once", [sum(counts)])):
        first = 0
        with new(folder / name, shard_bytes=16 * per_shard) as out:
            for count in pieces:
                some = slice(first, first + count)
                out.add(images[some], labels[some], **{name: column[some] for name, column in columns.items()})
                first += count
    one, other = (
        {path.name: path.read_bytes() for path in sorted((folder / name).glob("bank-*"))}
        for name in ("pieces", "at once")
    )
    assert one == other
    assert len(SyntheticBank.load(folder / "pieces")) == sum(counts)


# A manifest that is missing


@pytest.fixture
def without_manifest(tmp_path):
    """Four shards, as a copy looks that was broken off before it came to the manifest."""
    with new(tmp_path / "bank") as out:
        out.add(*some(14))
    (tmp_path / "bank" / INDEX).unlink()
    return tmp_path / "bank"


@pytest.mark.parametrize("how", ["save", "write", "append"])
def test_shards_without_a_manifest_are_nobodys_to_delete(without_manifest, make_bank, how):
    before = {path.name: path.read_bytes() for path in without_manifest.glob("bank-*")}

    def write():
        if how == "save":
            return make_bank().save(without_manifest)
        with new(without_manifest, append=how == "append") as out:
            out.add(*some(1))

    with pytest.raises(OverwriteError, match=f"holds bank-00000.safetensors and no {INDEX}: .*bring the manifest"):
        write()
    assert {path.name: path.read_bytes() for path in without_manifest.glob("bank-*")} == before


def test_shards_without_a_manifest_are_replaced_when_told_to(without_manifest):
    with new(without_manifest, overwrite=True) as out:
        out.add(*some(3, 2))
    assert SyntheticBank.load(without_manifest, verify=True).images.unique().tolist() == [2]
    assert files(without_manifest) == ["bank-00000.safetensors", INDEX]


# A writer that is not open


@pytest.mark.parametrize("count", [1, 4])
def test_images_are_added_to_an_open_writer_only(tmp_path, count):
    out = new(tmp_path / "bank")
    with pytest.raises(InputError, match=r"bank is not open for writing; add within `with BankWriter"):
        out.add(*some(count))
    assert not (tmp_path / "bank").exists()
    with out:
        out.add(*some(2))
    before = {path.name: path.read_bytes() for path in (tmp_path / "bank").iterdir()}
    with pytest.raises(InputError, match=r"bank is not open for writing"):
        out.add(*some(count))
    assert {path.name: path.read_bytes() for path in (tmp_path / "bank").iterdir()} == before


def test_a_folder_that_is_removed_meanwhile(tmp_path):
    with only_writer(tmp_path / "bank"):
        shutil.rmtree(tmp_path / "bank")
    assert not (tmp_path / "bank").exists()
