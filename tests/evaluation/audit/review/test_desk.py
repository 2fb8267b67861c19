"""A bank on the reviewer's desk."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from genmix_transforms.bank import BankWriter, Flag, SyntheticBank
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.audit.review.desk import BankDesk


def test_it_says_what_is_there(folder: Path):
    desk = BankDesk(folder)
    start = desk.start()
    assert (start["mode"], start["name"], start["total"]) == ("review", "bank", 12)
    assert (start["classes"], start["labels"]) == (["cyst", "metastasis"], [0] * 5 + [1] * 7)
    assert start["marks"] == {"3": ["near copy"]}
    assert [(one["verdict"], one["key"]) for one in start["answers"]] == [("accepted", "a"), ("rejected", "r")]
    assert desk.state() == {"letters": "." * 12, "text": "0 of 12 decided: 0 accepted, 0 rejected"}


def test_it_goes_on_where_an_earlier_one_stopped_and_sees_what_others_decide(folder: Path):
    first = BankDesk(folder, reviewer="A")
    first.decide(0, "accepted")
    undone = first.decide(1, "rejected")
    second = BankDesk(folder, reviewer="B")
    assert second.state()["letters"] == "ar.........."
    first.undo(undone)
    second.decide(11, "rejected")
    assert first.state() == second.state()
    assert first.state()["letters"] == "a..........r"
    assert first.summary() == f"{folder}: 2 decisions made; 2 of 12 decided: 1 accepted, 1 rejected"


def test_flags_in_the_shards_are_decisions_that_another_bank_brought(tmp_path: Path):
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    flags = torch.tensor([0, Flag.REJECTED, 0], dtype=torch.uint8)
    SyntheticBank(images, torch.tensor([0, 0, 0]), classes=["cyst"], flags=flags).save(tmp_path / "bank")
    desk = BankDesk(tmp_path / "bank")
    assert desk.state()["letters"] == ".r."
    accepted = desk.decide(1, "accepted")
    assert (desk.state()["letters"], SyntheticBank.load(tmp_path / "bank").flags.tolist()) == (".a.", [0, 0, 0])
    desk.undo(accepted)
    assert desk.state()["letters"] == ".r."


def test_numbers_are_the_banks_over_several_shards(folder: Path):
    bank = SyntheticBank.load(folder)
    with BankWriter(folder, classes=bank.classes, image_shape=(1, 8, 8), append=True) as writer:
        writer.add(bank.images, bank.labels)
    desk = BankDesk(folder)
    chosen = [0, 5, 9, 10, 16, 17, 23]
    for number in chosen:
        desk.decide(number, "rejected")
    rejected = (SyntheticBank.load(folder).flags & Flag.REJECTED).bool()
    assert rejected.nonzero().flatten().tolist() == chosen


def test_decisions_of_many_threads_are_all_kept(folder: Path):
    desk = BankDesk(folder)
    with ThreadPoolExecutor(4) as threads:
        identities = list(threads.map(lambda number: desk.decide(number, "rejected"), range(12)))
    assert len(set(identities)) == 12
    assert BankDesk(folder).state()["letters"] == "r" * 12


def test_a_bank_that_grows_is_reviewed_on_and_one_that_was_replaced_is_not(folder: Path):
    desk, bank = BankDesk(folder), SyntheticBank.load(folder)
    with BankWriter(folder, classes=bank.classes, image_shape=(1, 8, 8), append=True) as writer:
        writer.add(bank.images, bank.labels)
    desk.decide(0, "rejected")
    assert int((SyntheticBank.load(folder).flags & Flag.REJECTED).bool().sum()) == 1
    bank.save(folder, overwrite=True)
    with pytest.raises(InputError, match="another bank has taken the place of this one"):
        desk.decide(1, "rejected")


def test_what_cannot_be_reviewed_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(MissingPathError, match="no such bank"):
        BankDesk(tmp_path / "none")
    with BankWriter(tmp_path / "empty", classes=["cyst"], image_shape=(1, 8, 8)):
        pass
    with pytest.raises(InputError, match="a bank without images, there is nothing to review"):
        BankDesk(tmp_path / "empty")
    lines = torch.zeros(2, 1, 8, dtype=torch.uint8)
    SyntheticBank(lines, torch.tensor([0, 0]), classes=["cyst"]).save(tmp_path / "lines")
    with pytest.raises(InputError, match="cannot be shown"):
        BankDesk(tmp_path / "lines")
