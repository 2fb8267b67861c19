"""Folds that fit together, and those that would give the test away."""

from dataclasses import replace

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.folds import Fold, check_folds


@pytest.fixture
def whole(shapes):
    patches = shapes.patches(60)
    return replace(patches, groups=torch.arange(60) // 2)


def made(whole, shapes, *, of=None):
    """Three folds, each with a bank that says it was trained on that fold's training part, or on ``of``'s."""
    folds = []
    for splits in whole.folds(3):
        fingerprint = (of or splits[0]).fingerprint
        bank = shapes.bank(provenance={"training_set": {"fingerprint": fingerprint}})
        folds.append(Fold(splits=splits, banks={"dcgan": bank}))
    return folds


def test_sound_folds(whole, shapes):
    check_folds(made(whole, shapes))
    check_folds([Fold(splits=splits) for splits in whole.folds(2)])


def test_a_bank_of_another_folds_training_part(whole, shapes):
    folds = made(whole, shapes)
    swapped = [folds[0], replace(folds[1], banks=folds[0].banks), folds[2]]
    with pytest.raises(InputError, match="fold 1: the generator of the bank 'dcgan' was trained on another set"):
        check_folds(swapped)
    check_folds(swapped, foreign_banks=True)
    with pytest.raises(InputError, match="fold 0: the generator"):
        check_folds(made(whole, shapes, of=whole))


def test_one_split_may_have_a_bank_of_another_set_with_a_warning_elsewhere(whole, shapes):
    check_folds(made(whole, shapes, of=whole)[:1])


def test_groups_on_two_sides_of_a_fold(whole):
    first, second = whole.folds(2)
    train, val, test = first
    leaking = (train, val, replace(test, groups=torch.cat([train.groups[:1], test.groups[1:]])))
    with pytest.raises(InputError, match="fold 0: 1 groups have images in both its train and its test part"):
        check_folds([Fold(splits=leaking), Fold(splits=second)])


def test_a_group_that_is_tested_twice(whole):
    folds = whole.folds(3)
    with pytest.raises(InputError, match="folds 0 and 1 both test images of one group"):
        check_folds([Fold(splits=folds[0]), Fold(splits=folds[0])])


def test_folds_that_differ(whole, shapes):
    folds = made(whole, shapes)
    other = tuple(replace(part, classes=("a", "b", "c")) for part in folds[1].splits)
    for changed, what in (
        (replace(folds[1], splits=other), "classes"),
        (replace(folds[1], splits=tuple(part.resized(20) for part in folds[1].splits)), "shape"),
        (replace(folds[1], banks={}), "banks"),
    ):
        with pytest.raises(InputError, match=f"all folds need the same {what}: fold 0 has .*, fold 1 has"):
            check_folds([folds[0], changed])


def test_no_folds():
    with pytest.raises(InputError, match="no folds"):
        check_folds([])
