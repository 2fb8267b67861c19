"""The discriminator beside its layers written out; minibatch deviation beside a loop; published sizes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator, append_minibatch_deviation
from genmix_transforms.generators.stylegan.layers import EqualisedConv, initialise
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings


def make(**options: int) -> StyleGANDiscriminator:
    settings = StyleGANNetworkSettings(fmap_base=64, fmap_max=12)
    network = StyleGANDiscriminator(settings, **{"resolution": 16, "channels": 2, "classes": 3, **options})
    initialise(network, seed=0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    return network


@pytest.mark.parametrize(("resolution", "count"), [(64, 22_498_049), (1024, 23_087_249)])
def test_as_many_parameters_as_published(resolution: int, count: int) -> None:
    with torch.device("meta"):
        network = StyleGANDiscriminator(StyleGANNetworkSettings(), resolution=resolution, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def deviation_by_loop(values: Tensor, *, group: int) -> Tensor:
    planes = []
    for start in range(0, len(values), group):
        some = values[start : start + group]
        deviation = (some.var(dim=0, correction=0) + 1e-8).sqrt().mean()
        planes += [torch.full((1, 1, *values.shape[2:]), deviation.item())] * len(some)
    return torch.cat([values, torch.cat(planes)], dim=1)


@pytest.mark.parametrize(("count", "group"), [(8, 4), (4, 4), (6, 3), (2, 4), (1, 4), (12, 2)])
def test_the_minibatch_deviation(count: int, group: int) -> None:
    values = torch.randn(count, 5, 4, 4)
    expected = deviation_by_loop(values, group=group)
    assert torch.allclose(append_minibatch_deviation(values, group=group), expected, atol=1e-6)


def test_equal_images_show_no_deviation() -> None:
    same = torch.randn(1, 5, 4, 4).repeat(4, 1, 1, 1)
    assert append_minibatch_deviation(same, group=4)[:, -1].max() == pytest.approx(1e-4, rel=1e-3)


def test_two_batches_may_share_a_pass() -> None:
    network = make()
    one, other = torch.randn(4, 2, 16, 16), torch.randn(4, 2, 16, 16) * 3
    labels = torch.tensor([0, 1, 2, 0])
    together = network(torch.cat([one, other]), labels.repeat(2))
    assert torch.allclose(together, torch.cat([network(one, labels), network(other, labels)]), atol=1e-5)


def conv(layer: EqualisedConv, values: Tensor) -> Tensor:
    size = layer.weight.shape[-1]
    weight = layer.weight * math.sqrt(2) / math.sqrt(layer.weight[0].numel())
    values = F.conv2d(values, weight, layer.bias, padding=size // 2)
    return F.avg_pool2d(values, 2) if layer.resample == "down" else values


def logits_written_out(network: StyleGANDiscriminator, images: Tensor, labels: Tensor, *, growth: float) -> Tensor:
    level = math.ceil(growth)
    values = F.leaky_relu(conv(network.from_rgb[level], images), 0.2)
    taps = torch.tensor([1.0, 2, 1])
    for here in range(level, 0, -1):
        block = network.blocks[here - 1]
        values = F.leaky_relu(conv(block.conv, values), 0.2)
        kernel = (taps[:, None] * taps / 16).expand(values.shape[1], 1, 3, 3)
        values = F.conv2d(values, kernel, padding=1, groups=values.shape[1])
        values = F.leaky_relu(conv(block.conv_down, values), 0.2)
        if here == level and growth % 1:
            before = F.leaky_relu(conv(network.from_rgb[level - 1], F.avg_pool2d(images, 2)), 0.2)
            values = (1 - growth % 1) * before + growth % 1 * values
    values = deviation_by_loop(values, group=4)
    values = F.leaky_relu(conv(network.last.conv, values), 0.2).flatten(1)
    dense, score = network.last.dense, network.last.score
    values = F.leaky_relu(values @ dense.weight.T * math.sqrt(2) / math.sqrt(values.shape[1]) + dense.bias, 0.2)
    scores = values @ score.weight.T / math.sqrt(values.shape[1]) + score.bias
    return (scores * F.one_hot(labels, 3)).sum(dim=1)


@pytest.mark.parametrize("growth", [0.0, 1.0, 1.25, 2.0])
def test_the_logits(growth: float) -> None:
    network = make()
    side = 4 << math.ceil(growth)
    images, labels = torch.randn(8, 2, side, side), torch.arange(8) % 3
    expected = logits_written_out(network, images, labels, growth=growth)
    assert torch.allclose(network(images, labels, growth=growth), expected, atol=1e-4)


def test_memory_layout_does_not_matter() -> None:
    network = make()
    images, labels = torch.randn(4, 2, 16, 16), torch.tensor([0, 1, 2, 0])
    first = network(images, labels)
    network.to(memory_format=torch.channels_last)
    assert torch.allclose(network(images.contiguous(memory_format=torch.channels_last), labels), first, atol=1e-5)
