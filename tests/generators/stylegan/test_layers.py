"""Equalised layers, blur, fused resampling and fused styling, beside what they replace written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.layers import (
    EqualisedConv,
    EqualisedLinear,
    blur,
    double,
    downsampling_conv,
    halve,
    initialise,
    paint_over,
    pixel_norm,
    upsampling_conv,
)

sizes = st.integers(1, 4)


@settings(max_examples=25)
@given(sizes, sizes, sizes, st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_upsampling_is_doubling_and_a_convolution(
    count: int, inputs: int, outputs: int, height: int, width: int, channels_last: bool
) -> None:
    images = torch.randn(count, inputs, height, width, dtype=torch.float64)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3, dtype=torch.float64)
    bias = torch.randn(outputs, dtype=torch.float64)
    twice = images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(twice, weight, bias, padding=1)
    assert torch.allclose(upsampling_conv(images, weight, bias), expected, atol=1e-12)


@settings(max_examples=25)
@given(sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4))
def test_downsampling_is_a_convolution_and_the_mean_of_four(
    count: int, inputs: int, outputs: int, height: int, width: int
) -> None:
    images = torch.randn(count, inputs, 2 * height, 2 * width, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, 3, 3, dtype=torch.float64)
    bias = torch.randn(outputs, dtype=torch.float64)
    expected = F.avg_pool2d(F.conv2d(images, weight, bias, padding=1), 2)
    assert torch.allclose(downsampling_conv(images, weight, bias), expected, atol=1e-12)


def test_the_blur_weighs_1_2_1_both_ways() -> None:
    point = torch.zeros(1, 2, 5, 5)
    point[0, 1, 2, 2] = 16
    spread = blur(point)
    assert torch.equal(spread[0, 0], torch.zeros(5, 5))
    assert torch.equal(spread[0, 1, 1:4, 1:4], torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))
    assert blur(torch.ones(1, 1, 4, 4))[0, 0, 0, 0] == 9 / 16  # zeros beyond the border


def test_the_blurs_derivatives_are_those_of_the_convolution() -> None:
    images = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(blur, (images,))
    assert torch.autograd.gradgradcheck(blur, (images,))


def test_doubling_and_halving() -> None:
    images = torch.randn(2, 1, 4, 4)
    assert torch.equal(double(images), images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert torch.allclose(halve(double(images)), images)


def test_pixel_norm_leaves_a_root_mean_square_of_one() -> None:
    values = torch.randn(4, 33) * 7
    assert torch.allclose(pixel_norm(values).square().mean(dim=1), torch.ones(4), atol=1e-5)
    assert torch.equal(pixel_norm(torch.zeros(1, 5)), torch.zeros(1, 5))


def test_equalised_layers_scale_when_used() -> None:
    linear = EqualisedLinear(8, 3, lr_multiplier=0.01)
    initialise(linear, seed=0)
    nn.init.normal_(linear.bias)
    values = torch.randn(4, 8)
    expected = values @ (linear.weight.T * math.sqrt(2 / 8) * 0.01) + linear.bias * 0.01
    assert torch.allclose(linear(values), expected, atol=1e-5)
    conv = EqualisedConv(8, 3, 3, gain=1.0)
    initialise(conv, seed=0)
    images = torch.randn(2, 8, 5, 5)
    assert torch.allclose(conv(images), F.conv2d(images, conv.weight / math.sqrt(72), padding=1), atol=1e-5)


def test_weights_are_normal_divided_by_the_multiplier_and_follow_from_the_seed() -> None:
    layers = [nn.Sequential(EqualisedLinear(64, 64, lr_multiplier=0.01), EqualisedConv(16, 16, 3)) for _ in range(3)]
    for network, seed in zip(layers, (3, 3, 4), strict=True):
        initialise(network, seed=seed)
    one, again, other = layers
    assert one[0].weight.std().item() == pytest.approx(100, rel=0.05)
    assert one[1].weight.std().item() == pytest.approx(1, rel=0.05)
    assert not one[0].bias.any()
    assert torch.equal(one[1].weight, again[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)


def draw(*, dtype: torch.dtype = torch.float64, channels_last: bool = False) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = [(3, 5, 4, 6), (3, 1, 4, 6), (5,), (5,), (3, 5), (3, 5)]
    drawn = [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]
    if channels_last:
        drawn[0] = drawn[0].contiguous(memory_format=torch.channels_last)
    return [tensor.requires_grad_(True) for tensor in drawn]


def written_out(values: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    values = F.leaky_relu(values + noise * strength[:, None, None] + bias[:, None, None], 0.2)
    values = F.instance_norm(values, eps=1e-8)
    return values * (scale[:, :, None, None] + 1) + shift[:, :, None, None]


@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_those_of_the_layers(channels_last: bool) -> None:
    ours, theirs = draw(dtype=torch.float32, channels_last=channels_last), draw(dtype=torch.float32)
    out, expected = paint_over(*ours), written_out(*theirs)
    assert torch.allclose(out, expected, atol=1e-5)
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        assert own.grad is not None
        assert other.grad is not None
        assert torch.allclose(own.grad, other.grad, atol=2e-5)


def test_a_constant_plane_gives_the_shift_and_not_noise_blown_up() -> None:
    values, noise, _, bias, scale, shift = (tensor.detach() for tensor in draw(dtype=torch.float32))
    out = paint_over(torch.full_like(values, 0.1), noise, torch.zeros(5), bias, scale, shift)
    assert torch.allclose(out, shift[:, :, None, None].expand_as(out), atol=1e-2)


def test_a_narrow_type_comes_back_narrow_and_is_computed_wide() -> None:
    wide = [tensor.detach() for tensor in draw(dtype=torch.float32)]
    narrow = wide[0].bfloat16()
    out = paint_over(narrow, *wide[1:])
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, paint_over(narrow.float(), *wide[1:]).bfloat16())
