"""The audit as a whole: each fault in the first line, and bad input in one sentence."""

import json
from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import record_images
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit import AuditSettings, audit
from genmix_transforms.evaluation.audit.copies import SHARE
from genmix_transforms.evaluation.audit.report.page import render
from genmix_transforms.evaluation.protocol import Protocol

QUICK = Protocol(steps=40, batch_size=16, validate_every=20, learning_rate=3e-3)
FAST = AuditSettings(features="pixels", draws=3, train=False, copies=False, tsne=False)


@pytest.mark.parametrize("fault", ["noise", "collapsed", "wrong classes"])
def test_each_fault_is_named_in_the_first_line(splits, banks, fault):
    settings = replace(FAST, train=fault == "wrong classes")
    found = audit(banks[fault], splits, settings=settings, protocol=QUICK)
    first = found.text.splitlines()[0]
    assert first == found.verdict.text
    assert {"noise": "are noise", "collapsed": "is collapsed", "wrong classes": "labels are wrong"}[fault] in first
    assert "Do not train with this bank" in found.text


@pytest.fixture(scope="module")
def copying(splits):
    train = splits[0].subset(torch.arange(24))
    bank = SyntheticBank(train.images.flip(-1), train.labels, classes=train.classes)
    parts = (train, splits[1].subset(torch.arange(20)), splits[2].subset(torch.arange(20)))
    return audit(bank, parts, settings=replace(FAST, copies=True))


def test_a_bank_of_copies_is_named_and_unseen_patients_are_tried(copying):
    assert copying.verdict.kind == "copies"
    assert copying.text.startswith("The bank holds copies: 24 of its 24 images")
    flagged, images = copying.flagged_unseen
    assert images == 40
    assert copying.copy_share.expected_share == max(SHARE, flagged / images)
    assert copying.answers[0].status == "fault"


def test_what_unseen_patients_have_too_is_no_copy(copying):
    same = replace(copying, flagged_unseen=(40, 40))
    assert same.copy_share.expected_share == 1
    assert same.verdict.kind != "copies"
    assert same.answers[0].status == "look"


def test_it_is_json_and_names_no_group_and_no_path(copying):
    content = json.loads(json.dumps(copying.to_dict(), allow_nan=False))
    assert content["verdict"]["kind"] == "copies"
    assert content["copies"]["near_copies"] == 24
    assert content["data"]["train"]["class_counts"] == {"disc": 12, "stripes": 12}
    assert content["settings"]["features"] == "pixels at 16 x 16"
    assert set(content["flagged_of_unseen_patients"]) == {"flagged", "images"}
    assert "verdict" not in content["quality"]
    assert "group" not in json.dumps(content).replace("groups", "").replace("group_names", "")


def test_patches_are_split_as_they_are_split_everywhere(make):
    patches = make.patches(200, seed=4)
    bank = make.bank(make.patches(40, seed=5))
    found = audit(bank, patches, settings=FAST)
    assert found.splits[0].fingerprint == patches.split()[0].fingerprint


def test_a_generator_that_has_seen_test_images_is_told(splits, banks):
    seen = {"training_set": {"fingerprint": splits[2].fingerprint, "images": record_images(splits[2].origins)}}
    good = banks["good"]
    bank = SyntheticBank(good.images, good.labels, classes=good.classes, provenance=seen)
    found = audit(bank, splits, settings=FAST)
    assert any("was trained on 72 of the 120 validation and test images" in note for note in found.notes)
    with pytest.raises(InputError, match="--any-training-set"):
        audit(bank, splits, settings=replace(FAST, copies=True))


def test_without_groups_patients_cannot_be_told_apart(make, banks):
    parts = tuple(make.patches(40, seed=seed, groups=False) for seed in (1, 2, 3))
    found = audit(banks["good"], parts, settings=FAST)
    assert sum("patients cannot be told apart" in note for note in found.notes) == 1


def test_bad_input_is_refused_in_one_sentence(splits, banks, make):
    good = banks["good"]
    few = SyntheticBank(good.images[:44], good.labels[:44], classes=good.classes)
    one_class = SyntheticBank(good.images[:20], good.labels[:20], classes=good.classes)
    renamed = SyntheticBank(good.images, good.labels, classes=["disc", "other"])
    large = make.bank(make.patches(40, seed=1, size=48))
    small_data = (splits[0], splits[1].subset(torch.arange(4)), splits[2].subset(torch.arange(4)))
    for bank, parts, message in [
        (few, splits, r"the bank has fewer than 10 images of a class \(stripes 4\)"),
        (one_class, splits, "the bank has no image of stripes"),
        (renamed, splits, "other"),
        (large, splits, "48 x 48"),
        (good, small_data, "the real set has fewer than 10 images of a class"),
        (good, splits[:2], "train, validation and test"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            audit(bank, parts, settings=replace(FAST, copies=True))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="share must be at least 0 and below 1"):
        AuditSettings(share=1.0)
    with pytest.raises(InputError, match="features must be"):
        audit(good, splits, settings=replace(FAST, features="other"))


def test_the_pool_is_searched_and_its_images_are_not_unseen(splits, make):
    train = splits[0].subset(torch.arange(24))
    pool = make.patches(30, seed=7).without_labels()
    seen = splits[2].images[:4]
    pool = replace(pool, images=torch.cat([pool.images[:26], seen]))
    bank = SyntheticBank(pool.images[:24].flip(-1), train.labels, classes=train.classes)
    parts = (train, splits[1].subset(torch.arange(20)), splits[2].subset(torch.arange(20)))
    found = audit(bank, parts, pool=pool, settings=replace(FAST, copies=True))
    assert found.verdict.kind == "copies"
    assert int(found.copies.near_copy.sum()) == 24
    assert found.flagged_unseen[1] == 36
    content = found.to_dict()
    assert content["data"]["pool"]["images"] == 30
    assert {row["nearest"] for row in content["copies"]["copies"]} == set(range(24, 48))
    page = render(found)
    assert "24 training images and 30 images of the pool" in page
    assert "<strong>image 0 of the pool</strong>" in page
