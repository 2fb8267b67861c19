"""What a bank holds, in memory and on disk: the same rows, the same laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import BankWriter, SyntheticBank
from genmix_transforms.errors import InputError

CLASSES = ("cyst", "hemangioma", "metastasis")
COUNT = 20
LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor([10, 3, 7]))


def everything(labels=LABELS):
    """Image i is full of the value i, and every column says i."""
    numbers = torch.arange(COUNT)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    columns = {"seeds": numbers + 100, "distance": numbers / 2, "flags": numbers.to(torch.uint8)}
    return images, labels, {**columns, "source": (numbers % 2).int()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks") / "bank"
    images, labels, columns = everything()
    with BankWriter(
        folder, classes=CLASSES, image_shape=(1, 4, 4), shard_bytes=64, provenance=[{"n": 0}, {"n": 1}]
    ) as writer:
        writer.add(images, labels, **columns)
    return folder


@pytest.fixture(scope="module", params=["in memory", "on disk"])
def bank(request, folder):
    return SyntheticBank.load(folder, resident=request.param == "in memory")


def check(bank, numbers):
    """That the bank has these images, in this order, and all that is known of each."""
    numbers = torch.as_tensor(numbers, dtype=torch.int64)
    assert bank.rows(torch.arange(len(bank)))[:, 0, 0, 0].tolist() == numbers.tolist()
    assert bank.labels.tolist() == LABELS[numbers].tolist()
    assert (bank.seeds - 100).tolist() == numbers.tolist()
    assert (bank.distance * 2).tolist() == numbers.tolist()
    assert bank.flags.tolist() == numbers.tolist()
    assert bank.source.tolist() == (numbers % 2).tolist()
    assert bank.class_count.tolist() == torch.bincount(LABELS[numbers], minlength=3).tolist()
    assert bank.class_start.tolist() == [0, *bank.class_count.cumsum(0)[:-1].tolist()]


def test_all_of_it(bank):
    check(bank, range(COUNT))
    assert bank.image_shape == (1, 4, 4)
    assert bank.pixel_dtype == torch.uint8
    assert bank.device == torch.device("cpu")


@given(numbers=st.lists(st.integers(0, COUNT - 1), max_size=30))
def test_rows_are_those_asked_for_in_the_order_asked(bank, numbers):
    rows = bank.rows(torch.tensor(numbers, dtype=torch.int64))
    assert rows.shape == (len(numbers), 1, 4, 4)
    assert rows.dtype == torch.uint8
    assert bool((rows == rows[:, :1, :1, :1]).all())
    assert rows[:, 0, 0, 0].tolist() == numbers


@given(numbers=st.lists(st.integers(0, COUNT - 1), max_size=30))
def test_what_is_taken_is_in_the_banks_order_with_all_that_is_known(bank, numbers):
    taken = bank.take(torch.tensor(numbers, dtype=torch.int64))
    assert taken.resident == bank.resident
    assert (taken.classes, taken.sources, taken.window) == (bank.classes, bank.sources, bank.window)
    check(taken, sorted(numbers))


@given(first=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=15), data=st.data())
def test_taken_twice(bank, first, data):
    second = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=15))
    taken = bank.take(torch.tensor(first)).take(torch.tensor(second, dtype=torch.int64))
    check(taken, [sorted(first)[number] for number in sorted(second)])


def test_what_is_taken_of_other_classes(bank):
    taken = bank.take(torch.tensor([0, 12, 15])).with_classes(["metastasis", "ghost", "cyst", "hemangioma"])
    assert taken.labels.tolist() == [0, 2, 3]
    assert taken.rows(torch.arange(3))[:, 0, 0, 0].tolist() == [15, 0, 12]
    assert (taken.seeds - 100).tolist() == [15, 0, 12]


def test_a_class_that_has_no_image_left_can_be_left_out(bank):
    cysts = bank.take(torch.arange(10))
    assert cysts.with_classes(["normal", "cyst"]).class_counts == {"normal": 0, "cyst": 10}
    with pytest.raises(InputError, match="hemangioma is no class of the data"):
        bank.take(torch.arange(11)).with_classes(["normal", "cyst"])


def test_what_is_taken_is_no_folders_content(bank):
    taken = bank.take(torch.arange(3))
    with pytest.raises(InputError, match="refresh: this bank was neither saved nor loaded"):
        taken.refresh()
    with pytest.raises(InputError, match="verify: this bank was neither saved nor loaded"):
        taken.verify()
    assert len(bank) == COUNT


def test_probabilities_are_taken_too(tmp_path):
    images, labels, columns = everything(torch.nn.functional.one_hot(LABELS, 3) * 0.8)
    whole = SyntheticBank(images, labels, classes=CLASSES, provenance=[{"n": 0}, {"n": 1}], **columns)
    whole.save(tmp_path / "bank")
    for bank in (whole, SyntheticBank.load(tmp_path / "bank", resident=False)):
        taken = bank.take(torch.tensor([19, 3]))
        assert torch.equal(taken.labels, labels[[3, 19]])
        assert taken.class_counts == {"cyst": 1, "hemangioma": 0, "metastasis": 1}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, COUNT]), "numbers must be from 0 to 19, got 0 to 20"),
        (torch.tensor([-1]), "numbers must be from 0 to 19, got -1 to -1"),
        (torch.tensor([0.0]), r"numbers must be int64 of shape \(n,\), got torch.float32 of \(1,\)"),
        (torch.tensor([True]), "must be int64"),
        (torch.tensor([[0]]), r"got torch.int64 of \(1, 1\)"),
    ],
)
@pytest.mark.parametrize("method", ["rows", "take"])
def test_numbers_that_the_bank_does_not_have(bank, method, index, message):
    with pytest.raises(InputError, match=message):
        getattr(bank, method)(index)
