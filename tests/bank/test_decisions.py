"""Decisions of reviewers: kept beside the shards at once, seen by whoever opens the bank, and never another image's."""

import json
import pickle

import pytest
import torch

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.bank.decisions import Decisions
from genmix_transforms.bank.hub import _files
from genmix_transforms.bank.manifest import DECISIONS, read_manifest
from genmix_transforms.bank.merging import merge_banks
from genmix_transforms.bank.opening import verify_bank
from genmix_transforms.bank.writing import BankWriter
from genmix_transforms.errors import CorruptFileError, InputError

FIRST = "bank-00000.safetensors"


@pytest.fixture
def folder(make_bank, tmp_path):
    """A bank of two shards, 7 and 7 images, of which row 1 of the first is a near copy and row 2 rejected already."""
    bank = make_bank(flags=torch.zeros(7, dtype=torch.uint8))
    flags = bank.flags.clone()
    flags[1], flags[2] = Flag.NEAR_COPY, Flag.REJECTED
    bank.replace(flags=flags).save(tmp_path / "bank")
    with BankWriter(tmp_path / "bank", classes=bank.classes, image_shape=(1, 4, 4), append=True) as writer:
        writer.add(bank.images, bank.labels)
    return tmp_path / "bank"


def opened(folder):
    return Decisions(folder, read_manifest(folder))


def flags_of(folder, **options):
    """The flags by shard and row: the bank's order is by class, that of a shard too."""
    return SyntheticBank.load(folder, **options).flags.tolist()


def test_a_rejection_is_a_flag_of_whoever_opens_the_bank(folder):
    before = flags_of(folder)
    decisions = opened(folder)
    decisions.decide(FIRST, 1, "rejected", reviewer="A")
    decisions.decide(FIRST, 2, "accepted")
    after = flags_of(folder)
    # Rows 0 and 1 are cysts, row 2 a hemangioma; the second shard's cysts come before it in the bank's order.
    assert [(n, a, b) for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [
        (1, Flag.NEAR_COPY, Flag.NEAR_COPY | Flag.REJECTED),
        (4, Flag.REJECTED, 0),
    ]
    assert flags_of(folder, resident=False) == after
    bank = SyntheticBank.load(folder, resident=False)
    assert pickle.loads(pickle.dumps(bank.content.mapped)).column("flags").tolist() == after
    assert len(SyntheticBank.load(folder).select(without_flags=Flag.REJECTED)) == 13
    assert (decisions.verdict(FIRST, 1), decisions.verdict(FIRST, 2), decisions.verdict(FIRST, 0)) == (
        "rejected",
        "accepted",
        None,
    )
    assert decisions.counts() == {"accepted": 1, "rejected": 1}


def test_shards_and_manifest_stay_as_they_are(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    decisions = opened(folder)
    decisions.undo(decisions.decide(FIRST, 0, "rejected"))
    decisions.decide(FIRST, 0, "rejected")
    assert {name: (folder / name).read_bytes() for name in before} == before
    verify_bank(folder)


def test_the_last_decision_counts_and_each_reviewer_undoes_his_own(folder):
    one, two = opened(folder), opened(folder)
    first = one.decide(FIRST, 0, "accepted", reviewer="A")
    second = two.decide(FIRST, 0, "rejected", reviewer="B")
    assert two.verdict(FIRST, 0) == "rejected"
    assert one.undo(first, reviewer="A") == (FIRST, 0)
    assert one.verdict(FIRST, 0) == "rejected"  # that of B stays
    assert one.undo(first) == (FIRST, 0)  # a second time changes nothing
    two.undo(second)
    one.refresh()
    assert one.verdict(FIRST, 0) is two.verdict(FIRST, 0) is None
    assert one.counts() == {"accepted": 0, "rejected": 0}


def test_decisions_are_of_the_very_images(folder, make_bank):
    opened(folder).decide(FIRST, 0, "rejected")
    line = json.loads((folder / DECISIONS).read_text())
    assert line["xxh3"] == read_manifest(folder).shards[0].xxh3
    make_bank(seed=5).save(folder, overwrite=True)
    assert not any(flags_of(folder))
    # Even under the name of the old shard.
    (folder / DECISIONS).write_text(json.dumps({**line, "shard": read_manifest(folder).shards[0].file}) + "\n")
    assert not any(flags_of(folder))


def test_a_bank_without_decisions_opens_as_before(folder):
    assert not (folder / DECISIONS).exists()
    assert sum(flags_of(folder)) == Flag.NEAR_COPY + Flag.REJECTED
    assert opened(folder).summary() == b""


def test_merging_takes_the_decisions_along(folder, make_bank, tmp_path):
    opened(folder).decide(FIRST, 0, "rejected")
    make_bank(seed=9).save(tmp_path / "other")
    merged = merge_banks([folder, tmp_path / "other"], out=tmp_path / "both", progress=False)
    assert sorted(merged.flags.tolist()) == [0] * 18 + [Flag.NEAR_COPY, Flag.REJECTED, Flag.REJECTED]


def test_what_is_published_names_nobody(folder):
    decisions = opened(folder)
    decisions.decide(FIRST, 3, "accepted", reviewer="Dr. Who")
    decisions.decide(FIRST, 3, "rejected", reviewer="Dr. Who")
    decisions.undo(decisions.decide(FIRST, 0, "rejected", reviewer="Dr. Who"))
    published = _files(folder, read_manifest(folder), repo_id="a/b", licence=None, title=None)[DECISIONS]
    assert b"Who" not in published
    (line,) = [json.loads(line) for line in published.splitlines()]
    assert (line["shard"], line["row"], line["verdict"]) == (FIRST, 3, "rejected")
    before = flags_of(folder)
    (folder / DECISIONS).write_bytes(published)
    assert flags_of(folder) == before


@pytest.mark.parametrize(
    ("file", "row", "verdict", "message"),
    [
        (FIRST, 7, "accepted", "the bank has no row 7"),
        (FIRST, -1, "accepted", "the bank has no row -1"),
        ("../x", 0, "accepted", "the bank has no row 0 of ../x"),
        (FIRST, 0, "maybe", "a verdict is one of accepted, rejected, got 'maybe'"),
    ],
)
def test_what_is_no_decision_is_not_written(folder, file, row, verdict, message):
    with pytest.raises(InputError, match=message):
        opened(folder).decide(file, row, verdict)
    assert not (folder / DECISIONS).exists()


def test_nothing_to_undo_is_an_error(folder):
    with pytest.raises(InputError, match="no decision 'x' to undo"):
        opened(folder).undo("x")


@pytest.mark.parametrize(
    "changes", [{"id": "../x"}, {"row": 7}, {"row": 1.0}, {"row": True}, {"verdict": None}, {"shard": "/etc/passwd"},
                {"xxh3": 3}, {"undo": 5}]
)  # fmt: skip
def test_a_line_that_is_no_decision_is_damage(folder, changes):
    opened(folder).decide(FIRST, 0, "rejected")
    line = json.loads((folder / DECISIONS).read_text())
    (folder / DECISIONS).write_text(json.dumps({**line, **changes}) + "\n")
    with pytest.raises(CorruptFileError, match=DECISIONS):
        SyntheticBank.load(folder)


def test_files_that_are_links_into_a_cache_are_not_written(folder, tmp_path):
    (tmp_path / "cache").mkdir()
    for file in folder.iterdir():
        (tmp_path / "cache" / file.name).symlink_to(file)
    decisions = opened(tmp_path / "cache")
    with pytest.raises(InputError, match="copy the bank first"):
        decisions.check_writable()
    opened(folder).check_writable()
