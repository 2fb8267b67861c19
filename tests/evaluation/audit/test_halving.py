"""Halves of real images, by patient."""

import numpy as np
import torch

from genmix_transforms.evaluation.audit.halving import halvings


def drawn(groups, *, draws=5, bank=40, **options):
    labels = torch.arange(60) % 2
    return labels, list(halvings(labels, groups, torch.arange(bank) % 2, classes=2, draws=draws, seed=0, **options))


def test_no_patient_is_in_both_halves_and_classes_are_alike():
    groups = torch.arange(60) // 6 * 2 + torch.arange(60) % 2
    labels, halves = drawn(groups)
    for half in halves:
        assert not set(groups[half.reference].tolist()) & set(groups[half.real].tolist())
        for part in half:
            assert len(set(part.tolist())) == len(part)
        counts = [np.bincount(of[part]).tolist() for of, part in zip((labels, labels, labels), half, strict=True)]
        assert counts[0] == counts[1] == counts[2] == [10, 10]


def test_draws_differ_and_the_first_stay_the_same():
    _, two = drawn(None, draws=2)
    _, five = drawn(None)
    assert all(
        (a == b).all() for first, second in zip(two, five[:2], strict=True) for a, b in zip(first, second, strict=True)
    )
    assert set(two[0].reference) != set(two[1].reference)


def test_no_more_than_asked_and_parts_of_a_class():
    labels, halves = drawn(None, most=12)
    assert [len(part) for part in halves[0]] == [6 * 2] * 3
    part = halves[0].of_class(1, labels.numpy(), (torch.arange(40) % 2).numpy())
    assert (labels[part.real] == 1).all()
    assert len(part.bank) == 6


def test_a_single_patient_leaves_nothing_to_compare():
    _, halves = drawn(torch.zeros(60, dtype=torch.int64))
    assert [len(part) for part in halves[0]] == [0, 0, 0]
