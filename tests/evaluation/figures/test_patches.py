"""Which patches a figure shows, and what the transform makes of them."""

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.evaluation.figures import patches
from genmix_transforms.transforms import GenMix


def test_chosen_are_of_the_class_and_each_once():
    of_class = torch.tensor([True, False, True, True, False])
    found = patches.choose(of_class, 2, np.random.default_rng(0))
    assert len(set(found.tolist())) == 2
    assert of_class[found].all()
    assert sorted(patches.choose(of_class, 9, np.random.default_rng(0)).tolist()) == [0, 2, 3]


def test_mixed_is_equation_1_in_the_unit_range(shapes):
    train, bank = shapes.patches(12), shapes.bank(20)
    for options in ({}, {"mean": (0.3,), "std": (0.2,)}):
        mixed = patches.mix(train.images, train.labels, GenMix(bank, alpha=1.0, **options), seed=3)
        lam = mixed.lam.view(-1, 1, 1, 1)
        expected = lam * bank.images[mixed.index] / 255 + (1 - lam) * train.images / 255
        assert torch.allclose(mixed.values, expected, atol=1e-5)
        assert not mixed.from_batch.any()
        rows = torch.nn.functional.one_hot(torch.stack([bank.labels[mixed.index], train.labels]), 3).float()
        assert torch.allclose(mixed.labels, mixed.lam[:, None] * rows[0] + (1 - mixed.lam[:, None]) * rows[1])


def test_the_seed_is_all_that_counts(shapes):
    train, genmix = shapes.patches(6), GenMix(shapes.bank(20))
    one = patches.mix(train.images, train.labels, genmix, seed=1)
    torch.manual_seed(5)
    assert torch.equal(one.values, patches.mix(train.images, train.labels, genmix, seed=1).values)
    assert not torch.equal(one.values, patches.mix(train.images, train.labels, genmix, seed=2).values)
    assert genmix.params is None


def test_labels_of_a_bank_are_classes():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    soft = SyntheticBank(images, torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), classes=("a", "b"))
    assert patches.hard_labels(soft).tolist() == [0, 0, 1]  # a bank is sorted by class
    assert patches.hard_labels(SyntheticBank(images, torch.tensor([0, 1, 1]), classes=("a", "b"))).tolist() == [0, 1, 1]


def test_either_depth_shows_the_same():
    grey = torch.tensor([0, 17, 255]).view(3, 1, 1, 1)
    assert torch.equal(patches.in_eight_bits(grey.to(torch.uint8)), grey.to(torch.uint8))
    assert torch.equal(patches.in_eight_bits((grey * 257).to(torch.uint16)), grey.to(torch.uint8))
    assert patches.in_unit(grey.to(torch.uint8)).flatten().tolist() == pytest.approx([0, 17 / 255, 1])
