"""Which images of a bank are drawn from, and how often its classes come."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.bank_choice import at_random, class_shares, most_confident

CLASSES = ("cyst", "hemangioma", "metastasis")


def bank_of(counts):
    """Image number i, in the bank's order, has the pixel value i."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    images = torch.arange(len(labels)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return SyntheticBank(images.clone(), labels, classes=CLASSES)


def numbers(bank):
    return bank.images[:, 0, 0, 0].tolist()


@given(
    counts=st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any),
    keep=st.floats(0.01, 1),
    seed=st.integers(0, 2**31),
)
def test_of_each_class_the_most_confident_are_kept(counts, keep, seed):
    bank = bank_of(counts)
    sure = torch.rand(len(bank), generator=torch.Generator().manual_seed(seed))
    kept = most_confident(bank, sure, keep=keep)
    control = at_random(bank, keep=keep)
    for label, count in enumerate(counts):
        mine = [number for number in range(len(bank)) if bank.labels[number] == label]
        best = sorted(mine, key=lambda number: -sure[number])[: math.ceil(round(keep * count, 9))]
        assert sorted(set(numbers(kept)) & set(mine)) == sorted(best)
    assert control.class_counts == kept.class_counts


def test_the_share_is_exact_and_chance_is_seeded():
    bank = bank_of((70, 10, 3))
    assert most_confident(bank, torch.ones(83), keep=0.1).class_counts == {"cyst": 7, "hemangioma": 1, "metastasis": 1}
    assert numbers(at_random(bank, keep=0.5)) == numbers(at_random(bank, keep=0.5))
    assert numbers(at_random(bank, keep=0.5)) != numbers(most_confident(bank, torch.ones(83), keep=0.5))


def test_confidences_of_another_bank():
    with pytest.raises(InputError, match=r"6 images in the bank, but confidences of shape \(5,\)"):
        most_confident(bank_of((3, 2, 1)), torch.ones(5), keep=0.5)


@pytest.mark.parametrize(
    ("balance", "shares"), [("off", None), ("equal", [0.5, 0.5, 0.0]), ("fill", [0.25, 0.75, 0.0])]
)
def test_the_shares_of_the_classes(balance, shares):
    found = class_shares(bank_of((9, 1, 0)), balance, class_counts={"cyst": 6, "hemangioma": 2, "metastasis": 8 - 0})
    if shares is None:
        assert found is None
    else:
        assert found.tolist() == pytest.approx(shares)


def test_a_fill_that_cannot_be():
    bank = bank_of((9, 1, 0))
    with pytest.raises(InputError, match="balance=fill: every class has as many real images already"):
        class_shares(bank, "fill", class_counts=dict.fromkeys(CLASSES, 5))
    with pytest.raises(InputError, match="balance=fill: the bank has no images of metastasis"):
        class_shares(bank, "fill", class_counts={"cyst": 5, "hemangioma": 5, "metastasis": 1})
