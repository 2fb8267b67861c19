"""The fused step after a convolution, beside the five layers it stands for."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.styling import paint_over


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
