"""The kinds of arm beyond the paper's: every image that comes out is told by its pixels."""

import pytest
import torch
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arms import Setting, build_arm
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import Protocol

CLASSES = ("cyst", "hemangioma", "metastasis")


def numbered_bank(counts=(10, 20, 70)):
    """Image number i, in the bank's order, has the pixel value 100 + i everywhere."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    pixels = (100 + torch.arange(len(labels))).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return SyntheticBank(pixels.clone(), labels, classes=CLASSES)


def setting(bank=None, *, real=None, confidence=None, **options):
    return Setting(
        protocol=Protocol(**options),
        class_counts=dict(zip(CLASSES, (6, 1, 3), strict=True)),
        normalisation=Normalisation(mean=(0.0,), std=(1 / 255,)),
        banks={} if bank is None else {"": bank},
        real=real,
        confidence={} if confidence is None else {"": confidence},
    )


def batch_of(name, some, count=20_000, seed=0):
    """Real images are negative; those of the bank have its pixels' values."""
    torch.manual_seed(seed)
    images = torch.full((count, 1, 4, 4), -100.0)
    return build_arm(name, some)(images, torch.arange(count) % 3)


def values(batch):
    return batch.images[:, 0, 0, 0]


def near(found, expected, count):
    """Five standard deviations of a share."""
    return abs(found - expected) <= 5 * (expected * (1 - expected) / count) ** 0.5


def test_blend_says_which_images_are_synthetic_and_weighs_them():
    batch = batch_of("blend@0.25", setting(numbered_bank()), count=500)
    assert torch.equal(batch.synthetic, values(batch) > 0)
    assert batch.weights is None
    weighed = batch_of("blend@0.25@synthetic_weight=0.8", setting(numbered_bank()), count=500)
    assert torch.equal(values(weighed), values(batch))
    assert torch.equal(weighed.weights, torch.where(batch.synthetic, 0.8, 1.0))


@pytest.mark.parametrize(
    ("balance", "shares"), [("off", (0.1, 0.2, 0.7)), ("equal", (1 / 3,) * 3), ("fill", (0, 5 / 8, 3 / 8))]
)
def test_a_balanced_bank(balance, shares):
    batch = batch_of(f"blend@1@balance={balance}", setting(numbered_bank()))
    for found, expected in zip(batch.labels.mean(dim=0).tolist(), shares, strict=True):
        assert near(found, expected, 20_000)
    # Within a class every image comes, each with its own label.
    numbers = values(batch).round().long() - 100
    assert torch.equal(numbered_bank().labels[numbers], batch.labels.argmax(dim=1))
    assert len(numbers.unique()) == sum(count for count, share in zip((10, 20, 70), shares, strict=True) if share)


def test_blend_mixup_is_mixup_over_the_union():
    some = setting(numbered_bank(), blend_share=0.3, mixup_alpha=0.4)
    mixed = batch_of("blend-mixup", some, count=64)
    torch.manual_seed(0)
    union = build_arm("blend", some)(torch.full((64, 1, 4, 4), -100.0), torch.arange(64) % 3)
    images, labels = v2.MixUp(alpha=0.4, num_classes=3)(union.images, union.labels)
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.labels, labels)
    assert mixed.synthetic is None


def test_balanced_mixup_is_genmix_real_with_balanced_partners():
    some = setting(real=numbered_bank((3, 3, 60)), alpha=0.7)
    ours, theirs = (batch_of(name, some, count=200) for name in ("balanced-mixup", "genmix-real@pairing=balanced"))
    assert torch.equal(ours.images, theirs.images)
    assert torch.equal(ours.labels, theirs.labels)
    # A class without real images is no partner, and stops nothing.
    batch = batch_of("balanced-mixup@1000", setting(real=numbered_bank((30, 0, 30))))
    assert near(batch.labels[:, 0].round().mean().item(), 0.5, 20_000)


def test_the_first_phase_of_pretrain_has_no_real_image():
    assert (values(batch_of("pretrain", setting(numbered_bank()), count=300)) > 0).all()
    assert (values(batch_of("pretrain-repeat", setting(real=numbered_bank()), count=300)) > 0).all()


def test_genmix_first_mixes_as_genmix_does():
    some = setting(numbered_bank(), alpha=0.7, pairing="same")
    one, other = (batch_of(name, some, count=50) for name in ("genmix-first", "genmix"))
    assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("name", ["blend@1", "pretrain", "genmix@1e9", "genmix-union", "genmix-first"])
def test_every_arm_with_a_bank_keeps_the_surest_of_each_class(name):
    sure = torch.zeros(100)
    sure[[3, 15, 40]] = 1
    some = setting(numbered_bank(), confidence=sure, alpha=1e9)
    found = values(batch_of(f"{name}@keep=0.01", some, count=400))
    assert set(found[found > 0].round().int().tolist()) == {103, 115, 140}
    control = values(batch_of(f"{name}@keep=0.01@keep_by=random", some, count=400))
    assert len(set(control[control > 0].round().int().tolist())) == 3


def test_a_filter_that_nobody_has_asked():
    with pytest.raises(InputError, match="'blend@keep=0.5' keeps what a classifier is surest of, and nobody has asked"):
        build_arm("blend@keep=0.5", setting(numbered_bank()))
    build_arm("blend@keep=0.5@keep_by=random", setting(numbered_bank()))
    with pytest.raises(InputError, match="the arm 'blend@balance=fill': balance=fill: the bank has no images of"):
        build_arm("blend@balance=fill", setting(numbered_bank((5, 0, 5))))
