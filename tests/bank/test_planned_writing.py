"""Shared work: shards of any number of processes, in any order and number of sittings; and what is in the way."""

from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import BankWriter, SyntheticBank, planned_writing, writing
from genmix_transforms.bank.manifest import INDEX, LOCK, Manifest, read_manifest, shard_name
from genmix_transforms.bank.planned_writing import ShardPlan, write_planned
from genmix_transforms.bank.rows import Rows
from genmix_transforms.bank.shard import fill_of
from genmix_transforms.bank.writing import only_writer
from genmix_transforms.errors import InputError, OverwriteError, UnfinishedBankError

KIND = Manifest(classes=("cyst", "metastasis"), dtype="uint8", shape=(1, 4, 4), sources=({"by": "one"},))
OTHER = Manifest(classes=KIND.classes, dtype="uint8", shape=(1, 4, 4), sources=({"by": "two"}, {"by": "one"}))


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    as_process(monkeypatch, 0, 1)


def as_process(monkeypatch, rank, count):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))


def shard(number, source=0):
    """Two images: of the shard's number, and that of the work."""
    images = torch.full((2, 1, 4, 4), number % 256, dtype=torch.uint8)
    return Rows.complete(images, torch.tensor([1, 0]), source=torch.full((2,), source, dtype=torch.int32))


def do(folder, kind=KIND, *, stop=None, identity="first", total=5, source=0, other="of another kind", **options):
    """Write all shards that are missing, but for those from the ``stop``-th on; the numbers of those that were made."""
    made = []

    def make(task):
        for number in task.shards:
            if len(made) == stop:
                raise KeyboardInterrupt
            made.append(number)
            task.advance(2)
            yield shard(number, source)

    plan = ShardPlan(identity=identity, counts=[2] * total, make=make, other=other)
    write_planned(folder, kind, plan, progress=False, **options)
    return made


def values(folder):
    return sorted(SyntheticBank.load(folder, verify=True).images[:, 0, 0, 0].tolist())


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != LOCK}


def shards_in(folder):
    return sorted(file.name for file in folder.glob("bank-*"))


def a_long_time_each(folder, monkeypatch):
    """Let every shard take long, so that the manifest is written after each."""
    monkeypatch.setattr(planned_writing.time, "monotonic", lambda: 100.0 * len(shards_in(folder)))


def test_one_process_does_all(tmp_path):
    assert do(tmp_path / "bank") == [0, 1, 2, 3, 4]
    assert values(tmp_path / "bank") == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    manifest = read_manifest(tmp_path / "bank")
    assert manifest.shards_to_come == 0
    assert [entry.number for entry in manifest.shards] == [0, 1, 2, 3, 4]
    assert fill_of(tmp_path / "bank" / shard_name(3)) == manifest.fills[0].identity == "first"


def test_done_is_done(tmp_path):
    do(tmp_path / "bank")
    before = contents(tmp_path / "bank")
    assert do(tmp_path / "bank") == []
    assert contents(tmp_path / "bank") == before


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_each_process_does_its_share_and_the_last_completes_the_bank(tmp_path, monkeypatch, count):
    do(tmp_path / "one")
    shares = []
    for rank in reversed(range(count)):
        as_process(monkeypatch, rank, count)
        if rank:
            with pytest.raises(
                UnfinishedBankError, match="this process's share is done; . of 5 shards are still to come"
            ):
                do(tmp_path / "bank")
        else:
            shares = do(tmp_path / "bank")
    assert shares == list(range(0, 5, count))
    assert contents(tmp_path / "bank") == contents(tmp_path / "one")


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_stopped_it_goes_on(tmp_path, stop):
    do(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "bank", stop=stop)
    assert do(tmp_path / "bank") == list(range(stop, 5))
    assert contents(tmp_path / "bank") == contents(tmp_path / "whole")


def test_shards_of_killed_processes_are_kept_and_halves_removed(tmp_path):
    do(tmp_path / "whole")
    (tmp_path / "bank").mkdir()
    for number in (1, 4):
        content = (tmp_path / "whole" / shard_name(number)).read_bytes()
        (tmp_path / "bank" / shard_name(number)).write_bytes(content)
    (tmp_path / "bank" / f".{shard_name(2)}.tmp").write_bytes(b"half")
    assert do(tmp_path / "bank") == [0, 2, 3]
    assert contents(tmp_path / "bank") == contents(tmp_path / "whole")


def test_others_halves_are_left_to_them(tmp_path, monkeypatch):
    (tmp_path / "bank").mkdir()
    half = tmp_path / "bank" / f".{shard_name(1)}.tmp"
    half.write_bytes(b"half")
    as_process(monkeypatch, 0, 2)
    with pytest.raises(UnfinishedBankError, match="2 of 5 shards are still to come from others"):
        do(tmp_path / "bank")
    assert half.read_bytes() == b"half"


def test_what_is_there_can_be_read_before_the_rest_is(tmp_path, monkeypatch):
    a_long_time_each(tmp_path / "bank", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "bank", stop=3)
    assert values(tmp_path / "bank") == [0, 0, 1, 1, 2, 2]
    assert read_manifest(tmp_path / "bank").shards_to_come == 2


def test_the_first_process_tells_of_everybodys_shards(tmp_path, monkeypatch):
    a_long_time_each(tmp_path / "bank", monkeypatch)
    as_process(monkeypatch, 1, 2)
    with pytest.raises(UnfinishedBankError):
        do(tmp_path / "bank")
    assert not (tmp_path / "bank" / INDEX).exists()
    as_process(monkeypatch, 0, 2)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "bank", stop=1)
    assert values(tmp_path / "bank") == [0, 0, 1, 1, 3, 3]


def test_added_to_a_bank(tmp_path):
    do(tmp_path / "bank")
    before = contents(tmp_path / "bank")
    do(tmp_path / "bank", OTHER, identity="second", total=2, append=True)
    manifest = read_manifest(tmp_path / "bank")
    assert manifest.sources == ({"by": "one"}, {"by": "two"})
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.source.tolist().count(1) == 4  # the work's first source is the bank's second
    assert [fill.numbers for fill in manifest.fills] == [range(5), range(5, 7)]
    assert all(contents(tmp_path / "bank")[name] == before[name] for name in before if name != INDEX)


def test_the_works_sources_are_found_in_the_bank(tmp_path):
    do(tmp_path / "bank")
    do(tmp_path / "bank", OTHER, identity="second", total=1, source=1, append=True)
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.sources == ({"by": "one"}, {"by": "two"})
    assert bank.source.tolist() == [0] * 12  # the work's second source is the bank's first


def test_overwritten(tmp_path):
    do(tmp_path / "bank")
    (tmp_path / "bank" / "notes.txt").write_text("mine")
    do(tmp_path / "bank", OTHER, identity="second", total=2, overwrite=True)
    assert values(tmp_path / "bank") == [0, 0, 1, 1]
    assert (tmp_path / "bank" / "notes.txt").read_text() == "mine"
    assert shards_in(tmp_path / "bank") == [shard_name(0), shard_name(1)]


# What is in the way


def test_another_bank(tmp_path):
    do(tmp_path / "bank")
    before = contents(tmp_path / "bank")
    for append, ways in (
        (False, "give another folder, append, or overwrite"),
        (None, "give another folder, or overwrite"),
    ):
        with pytest.raises(OverwriteError, match=f"holds a bank of another kind; {ways}$"):
            do(tmp_path / "bank", identity="second", append=append)
    assert contents(tmp_path / "bank") == before


def test_unlisted_shards_of_another_work(tmp_path):
    do(tmp_path / "bank")
    (tmp_path / "bank" / INDEX).unlink()
    with pytest.raises(
        OverwriteError, match=r"bank-00000.safetensors belongs to a bank of another kind; give another f"
    ):
        do(tmp_path / "bank", identity="second")


def test_a_bank_of_another_kind_to_append_to(tmp_path):
    do(tmp_path / "bank")
    with pytest.raises(InputError, match=r"the bank's shape are \(1, 4, 4\), what is to be added has \(3, 4, 4\)"):
        do(tmp_path / "bank", replace(KIND, shape=(3, 4, 4)), identity="second", append=True)


def test_work_that_is_not_finished_to_append_to(tmp_path, monkeypatch):
    a_long_time_each(tmp_path / "bank", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "bank", stop=3)
    with pytest.raises(OverwriteError, match="2 shards of a fill are still to come; finish it first"):
        do(tmp_path / "bank", identity="second", append=True)


def test_files_that_are_no_banks(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OverwriteError, match=r"holds other files and no bank \(notes.txt\)"):
        do(tmp_path)
    with pytest.raises(OverwriteError, match="cannot be a folder"):
        do(tmp_path / "notes.txt")


def test_another_writer(tmp_path):
    with only_writer(tmp_path / "bank"), pytest.raises(OverwriteError, match="another process is writing this bank"):
        do(tmp_path / "bank")


def test_several_processes_cannot_overwrite(tmp_path, monkeypatch):
    do(tmp_path / "bank")
    as_process(monkeypatch, 0, 2)
    with pytest.raises(InputError, match="several processes cannot overwrite a bank: remove the folder first"):
        do(tmp_path / "bank", overwrite=True)
    assert values(tmp_path / "bank") == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_more_shards_than_have_names(tmp_path):
    with pytest.raises(InputError, match="a bank has at most 1,000,000 shards, this would be 1,000,001"):
        do(tmp_path / "bank", total=1_000_001)
    with BankWriter(tmp_path / "one", classes=KIND.classes, image_shape=KIND.shape) as writer:
        writer.add(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(InputError, match="this would be 1,000,001"):
        do(tmp_path / "one", total=1_000_000, append=True)


# Whose share is whose


def test_a_share_that_is_given_is_taken_whatever_the_environment_says(tmp_path, monkeypatch):
    """In a Slurm array, or under ``sbatch --ntasks=8`` without srun, a process may be alone all the same."""
    as_process(monkeypatch, 2, 4)
    assert do(tmp_path / "alone", share=(0, 1)) == [0, 1, 2, 3, 4]
    with pytest.raises(UnfinishedBankError, match=r"take all shards: share=\(0, 1\), on the command line --share 0/1"):
        do(tmp_path / "shared")
    with pytest.raises(UnfinishedBankError, match="2 of 5 shards are still to come"):
        do(tmp_path / "third", share=(0, 2))
    assert do(tmp_path / "third", share=(0, 1)) == [1, 3]
    assert contents(tmp_path / "third") == contents(tmp_path / "alone")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        ((2, 2), "share: rank must be a whole number, from 0 to 1, got 2"),
        ((0, 0), "share: count must be a whole number, at least 1, got 0"),
        ((0,), r"share must be \(rank, count\)"),
        ("0/1", r"share must be \(rank, count\)"),
        (1, r"share must be \(rank, count\)"),
    ],
)
def test_a_share_that_is_none(tmp_path, share, text):
    with pytest.raises(InputError, match=text):
        do(tmp_path / "bank", share=share)
    assert not (tmp_path / "bank").exists()


def test_one_share_is_done_once_at_a_time(tmp_path):
    """A job that was submitted twice, or requeued before it had ended."""
    folder = tmp_path / "bank"
    with only_writer(folder, rank=1):
        with pytest.raises(OverwriteError, match="another process is writing this bank"):
            do(folder, share=(1, 2))
        with pytest.raises(OverwriteError, match="another process is writing this bank"):
            do(folder, share=(0, 1))
        with pytest.raises(UnfinishedBankError):
            do(folder, share=(0, 2))
    assert do(folder, share=(1, 2)) == [1, 3]


def test_who_is_alone_leaves_others_no_share(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PATIENCE", 0)
    with only_writer(tmp_path / "bank"), pytest.raises(OverwriteError, match="another process is writing this bank"):
        do(tmp_path / "bank", share=(1, 2))


def test_a_lock_that_a_killed_process_left_is_no_hindrance(tmp_path):
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / ".bank.3.lock").touch()
    assert do(tmp_path / "bank") == [0, 1, 2, 3, 4]
    assert not list((tmp_path / "bank").glob(".bank.*.lock"))


def test_what_is_overwritten_is_seen_by_who_has_it_open(tmp_path):
    """The new bank has as many shards as the old one, and may have the same generation."""
    do(tmp_path / "bank")
    readers = [SyntheticBank.load(tmp_path / "bank", resident=resident) for resident in (True, False)]
    do(tmp_path / "bank", OTHER, identity="second", source=1, total=5, overwrite=True)
    fresh = SyntheticBank.load(tmp_path / "bank")
    assert fresh.sources != readers[0].sources
    for reader in readers:
        before = reader.version
        assert reader.refresh() == 0  # not one image more
        assert reader.version > before
        assert reader.sources == fresh.sources
        assert torch.equal(reader.source, fresh.source)
