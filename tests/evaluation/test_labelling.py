"""Labels for a bank without classes, by a classifier of the labeled few."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, label_bank
from genmix_transforms.evaluation.leakage import check_unseen

PROTOCOL = Protocol(steps=40, batch_size=16, validate_every=20, learning_rate=3e-3)


@pytest.fixture
def unlabelled(bank):
    """The bank's images in another order, and nobody has said what they are."""
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))
    made = SyntheticBank(
        bank.images[order], torch.zeros(len(bank), dtype=torch.int64), classes=["unlabelled"], seeds=order
    )
    return made, bank.labels


def truth(labeled, labels):
    return labels[labeled.seeds]


def test_images_get_the_classes_that_they_show(unlabelled, splits):
    raw, labels = unlabelled
    labeled = label_bank(raw, splits, protocol=PROTOCOL)
    assert labeled.classes == splits[0].classes
    assert len(labeled) == len(raw)
    assert sorted(labeled.seeds.tolist()) == sorted(raw.seeds.tolist())
    assert (labeled.labels == truth(labeled, labels)).double().mean() > 0.9


def test_soft_labels_are_probabilities_of_which_the_likeliest_is_the_hard_one(unlabelled, splits):
    raw, _ = unlabelled
    hard = label_bank(raw, splits, protocol=PROTOCOL)
    soft = label_bank(raw, splits, soft=True, protocol=PROTOCOL)
    assert soft.label_kind == "probabilities"
    torch.testing.assert_close(soft.labels.sum(dim=1), torch.ones(len(raw)))
    by_image = dict(zip(hard.seeds.tolist(), hard.labels.tolist(), strict=True))
    assert [by_image[seed] for seed in soft.seeds.tolist()] == soft.labels.argmax(dim=1).tolist()


def test_the_surest_of_each_class_are_kept(unlabelled, splits):
    raw, _ = unlabelled
    everything = label_bank(raw, splits, soft=True, protocol=PROTOCOL)
    sure = dict(zip(everything.seeds.tolist(), everything.labels.max(dim=1).values.tolist(), strict=True))
    few = label_bank(raw, splits, per_class=5, protocol=PROTOCOL)
    assert few.class_counts == dict.fromkeys(few.classes, 5)
    everyone = label_bank(raw, splits, protocol=PROTOCOL)
    for number in range(len(few.classes)):
        kept = {seed for seed, label in zip(few.seeds.tolist(), few.labels.tolist(), strict=True) if label == number}
        others = set(everyone.seeds[everyone.labels == number].tolist()) - kept
        assert min(sure[seed] for seed in kept) >= max(sure[seed] for seed in others) - 1e-6


def test_a_bank_remembers_whose_labels_it_has(unlabelled, splits):
    train, validation, test = splits
    raw, _ = unlabelled
    labeled = label_bank(raw, splits, protocol=PROTOCOL)
    *before, added = labeled.sources
    assert before == list(raw.sources)
    assert added["training_set"]["fingerprint"] == train.fingerprint
    assert added["labelled_by"]["classifier"]["steps"] == 40
    check_unseen(labeled, splits, name="bank")
    with pytest.raises(InputError, match=r"bank: its generator was trained on 90 of the 90 test images"):
        check_unseen(labeled, (test, validation, train), name="bank")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 0}, "label_bank: per_class must be a whole number, at least 1, got 0"),
        (
            {"per_class": 61},
            r"61 images of each class were asked for, and the classifier takes \d+ for .*; fill a larger bank, or ask",
        ),
    ],
)
def test_what_cannot_be_kept(options, message, unlabelled, splits):
    with pytest.raises(InputError, match=message):
        label_bank(unlabelled[0], splits, protocol=PROTOCOL, **options)


def test_images_of_another_size(splits):
    train: PatchDataset = splits[0]
    channels, side, _ = train.images.shape[1:]
    images = torch.zeros(2, channels, side * 2, side * 2, dtype=torch.uint8)
    small = SyntheticBank(images, torch.zeros(2, dtype=torch.int64), classes=["unlabelled"])
    told = f"the bank's images are {channels} x {2 * side} x {2 * side} .*, the patches {channels} x {side} x {side}"
    with pytest.raises(InputError, match=told):
        label_bank(small, splits, protocol=PROTOCOL)


def test_pixels_of_another_depth(splits):
    images = splits[0].images[:2].to(torch.int32).to(torch.uint16)
    deep = SyntheticBank(images, torch.zeros(2, dtype=torch.int64), classes=["unlabelled"])
    with pytest.raises(InputError, match=r"the bank's pixels are torch.uint16, the patches' torch.uint8"):
        label_bank(deep, splits, protocol=PROTOCOL)
