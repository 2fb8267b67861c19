"""The mapping network beside the paper's formulas, and how a class reaches it."""

import math

import pytest
import torch
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.mapping import MappingNetwork

NONE = torch.zeros(5, dtype=torch.int64)


def test_eight_layers_after_the_norm() -> None:
    network = MappingNetwork(latent_size=16)
    initialise(network, seed=0)
    latents = torch.randn(5, 16)
    values = latents / (latents.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for layer in network.layers:
        weight = layer.weight * (math.sqrt(2) / math.sqrt(16)) * 0.01
        values = F.leaky_relu(values @ weight.T + layer.bias * 0.01, 0.2)
    assert len(network.layers) == 8
    assert torch.allclose(network(latents, NONE), values, atol=1e-5)
    assert network.embedding is None


def test_the_published_network_has_the_class_beside_the_latent_before_the_norm() -> None:
    network = MappingNetwork(latent_size=16, layers=1, classes=3, conditioning="concatenate")
    initialise(network, seed=0)
    latents, labels = torch.randn(4, 16), torch.tensor([0, 1, 2, 2])
    assert network.embedding is not None
    joined = torch.cat([latents, network.embedding(labels)], dim=1)
    joined = joined / (joined.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    weight = network.layers[0].weight * (math.sqrt(2) / math.sqrt(32)) * 0.01
    assert network.layers[0].weight.shape == (16, 32)
    assert torch.allclose(network(latents, labels), F.leaky_relu(joined @ weight.T, 0.2), atol=1e-5)


@pytest.mark.parametrize("conditioning", ["multiply", "concatenate"])
def test_the_class_changes_w(conditioning: str) -> None:
    network = MappingNetwork(latent_size=16, classes=2, conditioning=conditioning)
    initialise(network, seed=0)
    latents = torch.randn(1, 16)
    one, other = (network(latents, torch.tensor([label])) for label in (0, 1))
    assert (one - other).abs().max() > 0.01


def test_multiplied_the_class_says_nothing_without_a_latent() -> None:
    network = MappingNetwork(latent_size=16, classes=2)
    initialise(network, seed=0)
    nothing = network(torch.zeros(2, 16), torch.tensor([0, 1]))
    assert torch.equal(nothing[0], nothing[1])
