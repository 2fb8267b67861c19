"""The generator network: mapping and synthesis beside the paper written out, truncation, the mean of w, growth."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.network import MappingNetwork, StyledLayer, StyleGANNetwork, SynthesisNetwork
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings

SMALL = StyleGANNetworkSettings(latent_size=8, fmap_base=64, fmap_max=12)


def make(**options: object) -> StyleGANNetwork:
    network = StyleGANNetwork(SMALL, **{"resolution": 16, "classes": 2, **options})  # type: ignore[arg-type]
    initialise(network, seed=0)
    return network.eval()


@pytest.mark.parametrize(
    ("resolution", "count"), [(1024, 26_219_627), (256, 26_086_229), (128, 25_843_858), (64, 25_137_935)]
)
def test_as_many_parameters_as_published(resolution: int, count: int) -> None:
    with torch.device("meta"):
        network = StyleGANNetwork(StyleGANNetworkSettings(), resolution=resolution, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_an_image_is_mapping_then_synthesis() -> None:
    network = make()
    latents, labels = torch.randn(3, 8), torch.tensor([0, 1, 1])
    noise = [torch.randn(3, 1, side, side) for side in network.noise_sides()]
    w = network.mapping(latents, labels)
    expected = network.synthesis(w[:, None].repeat(1, 6, 1), noise)
    assert torch.equal(network(latents, labels, noise=noise), expected)


def test_truncation_pulls_the_coarse_layers_to_their_classes_mean() -> None:
    network = make()
    network.mean_w.copy_(torch.randn(2, 8))
    w, labels = torch.randn(3, 6, 8), torch.tensor([0, 1, 1])
    out = network.truncate(w, labels, psi=0.7, cutoff=4)
    mean = network.mean_w[labels][:, None]
    assert torch.allclose(out[:, :4], mean + 0.7 * (w[:, :4] - mean), atol=1e-6)
    assert torch.equal(out[:, 4:], w[:, 4:])
    assert torch.allclose(network.truncate(w, labels, psi=0.0), mean.expand(3, 6, 8), atol=1e-6)
    assert torch.equal(network.truncate(w, labels, psi=1.0), w)


def test_the_mean_of_w_follows_the_batches_class_by_class() -> None:
    network = make()
    expected = torch.zeros(2, 8)
    for number in range(20):
        w = torch.randn(4, 8)
        labels = torch.tensor([0, 0, 0, 1]) if number % 2 else torch.zeros(4, dtype=torch.int64)
        network.track_mean_w(w, labels)
        expected[0] = 0.995 * expected[0] + 0.005 * w[labels == 0].mean(dim=0)
        if number % 2:
            expected[1] = 0.995 * expected[1] + 0.005 * w[3]
    assert torch.allclose(network.mean_w, expected, atol=1e-6)


@pytest.mark.parametrize("growth", [1.0, 1.5, 2.0])
def test_a_growing_network_draws_the_full_size(growth: float) -> None:
    network = make()
    network.growth.fill_(growth)
    noise = [torch.randn(2, 1, side, side) for side in network.noise_sides(growth)]
    images = network(torch.randn(2, 8), torch.tensor([0, 1]), noise=noise)
    assert images.shape == (2, 1, 16, 16)
    same = torch.equal(images, images[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert same == (growth == 1.0)  # at 8 pixels each is doubled


def test_noise_has_a_map_for_each_layer() -> None:
    assert make().noise_sides() == [4, 4, 8, 8, 16, 16]
    assert make().noise_sides(0.5) == [4, 4, 8, 8]


NONE = torch.zeros(5, dtype=torch.int64)


def test_eight_layers_after_the_norm() -> None:
    network = MappingNetwork(StyleGANNetworkSettings(latent_size=16))
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
    network = MappingNetwork(
        StyleGANNetworkSettings(latent_size=16, mapping_layers=1, conditioning="concatenate"), classes=3
    )
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
    network = MappingNetwork(StyleGANNetworkSettings(latent_size=16, conditioning=conditioning), classes=2)
    initialise(network, seed=0)
    latents = torch.randn(1, 16)
    one, other = (network(latents, torch.tensor([label])) for label in (0, 1))
    assert (one - other).abs().max() > 0.01


def test_multiplied_the_class_says_nothing_without_a_latent() -> None:
    network = MappingNetwork(StyleGANNetworkSettings(latent_size=16), classes=2)
    initialise(network, seed=0)
    nothing = network(torch.zeros(2, 16), torch.tensor([0, 1]))
    assert torch.equal(nothing[0], nothing[1])


def make_synthesis(resolution: int = 16, channels: int = 2) -> SynthesisNetwork:
    network = SynthesisNetwork(SMALL, resolution=resolution, channels=channels)
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
    network = make_synthesis()
    w, noise = inputs(network)
    expected = images_written_out(network, w, noise, level=2)[-1]
    assert torch.allclose(network(w, noise), expected, atol=1e-4)


@pytest.mark.parametrize(("growth", "side"), [(0.0, 4), (1.0, 8), (1.25, 16), (1.75, 16), (2.0, 16)])
def test_growth_blends_the_newest_with_the_one_before_doubled(growth: float, side: int) -> None:
    network = make_synthesis()
    w, noise = inputs(network)
    images = images_written_out(network, w, noise, level=math.ceil(growth))
    expected = images[-1]
    if growth % 1:
        expected = (1 - growth % 1) * F.interpolate(images[-2], scale_factor=2) + growth % 1 * images[-1]
    out = network(w, noise, growth=growth)
    assert out.shape == (3, 2, side, side)
    assert torch.allclose(out, expected, atol=1e-4)


def test_a_fade_may_be_given_as_a_tensor() -> None:
    network = make_synthesis()
    w, noise = inputs(network)
    assert torch.allclose(network(w, noise, growth=1.5, fade=torch.tensor(0.25)), network(w, noise, growth=1.25))


def test_every_layer_has_a_style_and_noise_of_its_own() -> None:
    network = make_synthesis()
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
    network = make_synthesis(resolution, channels=3)
    w, noise = inputs(network, count=1)
    assert network(w, noise).shape == (1, 3, resolution, resolution)
