"""What an audit refuses."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.inputs import NO_GROUPS, compared


@pytest.fixture
def real(make):
    return make.patches(40, seed=4)


def test_classes_go_by_name(make, real):
    turned = SyntheticBank(real.images, 1 - real.labels, classes=real.classes[::-1])
    found = compared(turned, real)
    assert found.bank.classes == real.classes
    assert (found.bank.images == make.bank(real).images).all()
    assert found.notes == ()


def test_without_groups_it_is_said(make):
    patches = make.patches(40, seed=4, groups=False)
    assert compared(make.bank(patches), patches).notes == (NO_GROUPS,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda bank: SyntheticBank(bank.images, bank.labels, classes=["disc", "cross"]),
            "cross is no class of the data",
        ),
        (lambda bank: bank.replace(images=bank.images[..., ::2, ::2]), r"1 x 16 x 16 .* the patches 1 x 32 x 32"),
        (lambda bank: bank.replace(images=bank.images.expand(-1, 3, -1, -1)), "channels=3"),
        (lambda bank: bank.replace(images=bank.images.to(torch.uint16)), "8 or both to 16 bits"),
        (lambda bank: bank.select(classes=["disc"]), "the bank has no image of stripes"),
        (lambda bank: bank.subsample(6, seed=0, per_class=True), r"fewer than 10 .*disc 6, stripes 6"),
        (lambda bank: bank.replace(images=bank.images[..., None].repeat(1, 1, 1, 1, 2)), r"must be \(C, H, W\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make, real, change, message):
    with pytest.raises(InputError, match=message):
        compared(change(make.bank(real)), real)


def test_few_real_images(make, real):
    with pytest.raises(InputError, match="the real set has fewer than 10"):
        compared(make.bank(real), real.subset(torch.arange(12)))
