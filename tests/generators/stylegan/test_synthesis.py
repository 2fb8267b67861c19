"""The synthesis network beside the paper's layer order written out; noise, styles and fades."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.synthesis import StyledLayer, SynthesisNetwork


def make(resolution: int = 16, channels: int = 2) -> SynthesisNetwork:
    network = SynthesisNetwork(resolution=resolution, channels=channels, latent_size=8, fmap_base=64, fmap_max=12)
    initialise(network, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():  # noise strengths and biases begin at 0: nothing could be told of them
        for name, parameter in network.named_parameters():
            if "noise_strength" in name or "bias" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    return network


def inputs(network: SynthesisNetwork, count: int = 3) -> tuple[Tensor, list[Tensor]]:
    random = torch.Generator().manual_seed(2)
    w = torch.randn(count, len(network.layers), 8, generator=random)
    noise = [torch.randn(count, 1, 4 << n // 2, 4 << n // 2, generator=random) for n in range(len(network.layers))]
    return w, noise


def layer_written_out(layer: StyledLayer, values: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    if layer.conv is not None:
        weight = layer.conv.weight * math.sqrt(2) / math.sqrt(layer.conv.weight[0].numel())
        if layer.up:
            values = F.interpolate(values, scale_factor=2)
        values = F.conv2d(values, weight, padding=1)
        if layer.up:
            taps = torch.tensor([1.0, 2, 1])
            kernel = (taps[:, None] * taps / 16).expand(values.shape[1], 1, 3, 3)
            values = F.conv2d(values, kernel, padding=1, groups=values.shape[1])
    values = values + noise * layer.noise_strength[None, :, None, None]
    values = F.leaky_relu(values + layer.bias[None, :, None, None], 0.2)
    values = F.instance_norm(values, eps=1e-8)
    styles = w @ (layer.style.weight / math.sqrt(8)).T + layer.style.bias
    s0, s1 = styles[:, : values.shape[1], None, None], styles[:, values.shape[1] :, None, None]
    return values * (s0 + 1) + s1


def images_written_out(network: SynthesisNetwork, w: Tensor, noise: list[Tensor], *, level: int) -> list[Tensor]:
    """The image of each resolution up to ``level``."""
    values = network.constant.repeat(len(w), 1, 1, 1)
    images = []
    for number, layer in enumerate(network.layers[: 2 * level + 2]):
        values = layer_written_out(layer, values, w[:, number], noise[number])
        if number % 2:
            to_rgb = network.to_rgb[number // 2]
            images.append(F.conv2d(values, to_rgb.weight / math.sqrt(values.shape[1]), to_rgb.bias))
    return images


def test_fully_grown() -> None:
    network = make()
    w, noise = inputs(network)
    expected = images_written_out(network, w, noise, level=2)[-1]
    assert torch.allclose(network(w, noise), expected, atol=1e-4)


@pytest.mark.parametrize(("growth", "side"), [(0.0, 4), (1.0, 8), (1.25, 16), (1.75, 16), (2.0, 16)])
def test_growth_blends_the_newest_with_the_one_before_doubled(growth: float, side: int) -> None:
    network = make()
    w, noise = inputs(network)
    images = images_written_out(network, w, noise, level=math.ceil(growth))
    expected = images[-1]
    if growth % 1:
        expected = (1 - growth % 1) * F.interpolate(images[-2], scale_factor=2) + growth % 1 * images[-1]
    out = network(w, noise, growth=growth)
    assert out.shape == (3, 2, side, side)
    assert torch.allclose(out, expected, atol=1e-4)


def test_a_fade_may_be_given_as_a_tensor() -> None:
    network = make()
    w, noise = inputs(network)
    assert torch.allclose(network(w, noise, growth=1.5, fade=torch.tensor(0.25)), network(w, noise, growth=1.25))


def test_every_layer_has_a_style_and_noise_of_its_own() -> None:
    network = make()
    w, noise = inputs(network, count=1)
    first = network(w, noise)
    for number in range(len(network.layers)):
        other = w.clone()
        other[:, number] += 1
        assert not torch.allclose(network(other, noise), first)
        changed = [*noise[:number], noise[number] + torch.randn_like(noise[number]), *noise[number + 1 :]]
        assert not torch.allclose(network(w, changed), first)


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
def test_every_size(resolution: int) -> None:
    network = make(resolution, channels=3)
    w, noise = inputs(network, count=1)
    assert network(w, noise).shape == (1, 3, resolution, resolution)
