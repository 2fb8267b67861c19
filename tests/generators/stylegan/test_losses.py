"""The losses beside their formulas; R1 beside gradients known by hand and second derivatives by differences."""

import pytest
import torch
from torch import Tensor

from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.losses import discriminator_loss, generator_loss, r1_penalty


def test_the_losses_are_the_non_saturating_ones() -> None:
    real, fake = torch.randn(7), torch.randn(7)
    expected = -(torch.sigmoid(real).log() + (1 - torch.sigmoid(fake)).log()).mean()
    assert discriminator_loss(real, fake).item() == pytest.approx(expected.item(), abs=1e-6)
    assert generator_loss(fake).item() == pytest.approx(-torch.sigmoid(fake).log().mean().item(), abs=1e-6)
    assert discriminator_loss(torch.tensor([200.0]), torch.tensor([-200.0])) == 0  # no overflow


def test_r1_of_a_plane_and_of_a_bowl() -> None:
    images = torch.randn(4, 2, 3, 3, requires_grad=True)
    slope = torch.randn(2, 3, 3)
    assert r1_penalty((images * slope).sum(dim=(1, 2, 3)), images).item() == pytest.approx(
        slope.square().sum().item(), rel=1e-5
    )
    bowl = images.square().sum(dim=(1, 2, 3))  # gradient 2 x
    penalty = r1_penalty(bowl, images)
    assert penalty.item() == pytest.approx(4 * images.square().sum(dim=(1, 2, 3)).mean().item(), rel=1e-5)
    penalty.backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, 8 * images / len(images), atol=1e-5)


def test_the_discriminators_weights_feel_r1() -> None:
    """The derivative of the penalty in a weight, beside the difference of penalties."""
    judge = StyleGANDiscriminator(resolution=8, fmap_base=16, fmap_max=4, minibatch_group=2).double()
    initialise(judge, seed=0)
    images, labels = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)

    def penalty() -> Tensor:
        own = images.clone().requires_grad_(True)
        return r1_penalty(judge(own, labels), own)

    penalty().backward()
    for parameter in (judge.blocks[0].conv.weight, judge.blocks[0].conv_down.weight, judge.last.dense.weight):
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
        above = penalty().item()
        with torch.no_grad():
            parameter.add_(direction, alpha=-2e-6)
        below = penalty().item()
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
        assert (parameter.grad * direction).sum().item() == pytest.approx((above - below) / 2e-6, rel=1e-3)
