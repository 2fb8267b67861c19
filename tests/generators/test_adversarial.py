"""What all GANs train alike: the losses beside their formulas, and where the average lies in memory."""

import pytest
import torch
from torch import nn

from genmix_transforms.generators.adversarial import AdversarialTraining, discriminator_loss, generator_loss


def test_the_losses_are_the_non_saturating_ones() -> None:
    real, fake = torch.randn(7), torch.randn(7)
    expected = -(torch.sigmoid(real).log() + (1 - torch.sigmoid(fake)).log()).mean()
    assert discriminator_loss(real, fake).item() == pytest.approx(expected.item(), abs=1e-6)
    assert generator_loss(fake).item() == pytest.approx(-torch.sigmoid(fake).log().mean().item(), abs=1e-6)
    assert discriminator_loss(torch.tensor([200.0]), torch.tensor([-200.0])) == 0  # no overflow


def test_the_average_lies_in_memory_as_the_network_does() -> None:
    """The update of all tensors at once has a fast path for those of equal strides."""
    network = nn.Conv2d(4, 4, 3).requires_grad_(False).eval()
    training = AdversarialTraining(network, nn.Conv2d(4, 1, 3), ema_half_life=100)
    assert network.training
    assert network.weight.requires_grad
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert training.result() is training.average.average
    strides = [parameter.stride() for parameter in network.parameters()]
    assert [parameter.stride() for parameter in training.result().parameters()] == strides
