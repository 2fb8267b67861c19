"""What follows every convolution of the synthesis, in one differentiable step: noise, bias, leaky ReLU, norm, style.

Written out as five layers, autograd would keep a copy of the activations for each, and PyTorch's instance norm, which
knows no channels-last images, would copy them twice more: together as much time as a narrow network's convolutions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from genmix_transforms.generators.stylegan.layers import EPSILON, LEAK


def paint_over(
    values: Tensor,
    noise: Tensor,
    strength: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    epsilon: float = EPSILON,
) -> Tensor:
    """``instance_norm(leaky_relu(values + strength * noise + bias)) * (scale + 1) + shift``; differentiable once.

    Args:
        values: ``(N, C, H, W)``, float32, or under autocast a narrower type.
        noise: ``(N, 1, H, W)``.
        strength: ``(C,)``.
        bias: ``(C,)``.
        scale: ``(N, C)``.
        shift: ``(N, C)``.
        epsilon: of the instance norm.

    Returns:
        ``(N, C, H, W)`` of the type of ``values``; computed in float32.
    """
    with torch.autocast(values.device.type, enabled=False):
        painted: Tensor = _PaintOver.apply(
            values.float(), noise.float(), strength.float(), bias.float(), scale.float(), shift.float(), epsilon
        )
    return painted.to(values.dtype)


class _PaintOver(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        noise: Tensor,
        strength: Tensor,
        bias: Tensor,
        scale: Tensor,
        shift: Tensor,
        epsilon: float,
    ) -> Tensor:
        active = torch.addcmul(values, noise, strength[:, None, None]).add_(bias[:, None, None])
        F.leaky_relu(active, LEAK, inplace=True)
        positive = active > 0
        centred = active.sub_(active.mean(dim=(2, 3), keepdim=True))
        rate = torch.rsqrt(centred.square().mean(dim=(2, 3), keepdim=True) + epsilon)
        gain = rate * (scale + 1)[:, :, None, None]
        ctx.save_for_backward(centred, positive, rate, gain, noise, strength)
        return torch.addcmul(shift[:, :, None, None], centred, gain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        centred, positive, rate, gain, noise, strength = ctx.saved_tensors
        pixels = centred.shape[2] * centred.shape[3]
        to_shift = gradient.sum(dim=(2, 3), keepdim=True)
        along = (gradient * centred).sum(dim=(2, 3), keepdim=True)
        # The norm takes away what the gradient has of the mean and of the values themselves.
        to_active = torch.addcmul(-gain * to_shift / pixels, gradient, gain)
        to_active.addcmul_(centred, -gain * rate.square() * along / pixels)
        to_values = torch.where(positive, to_active, to_active * LEAK)
        to_strength = _sum_of_products(to_values, noise)
        return (
            to_values,
            (to_values * strength[:, None, None]).sum(dim=1, keepdim=True) if ctx.needs_input_grad[1] else None,
            to_strength,
            to_values.sum(dim=(0, 2, 3)),
            (rate * along).flatten(1),
            to_shift.flatten(1),
            None,
        )


def _sum_of_products(values: Tensor, plane: Tensor) -> Tensor:
    """``(N, C, H, W)`` and ``(N, 1, H, W)`` to ``(C,)``, without their product in between."""
    count, channels, height, width = values.shape
    if values.is_contiguous(memory_format=torch.channels_last):
        rows = values.permute(0, 2, 3, 1).reshape(count * height * width, channels)
        return plane.reshape(-1) @ rows
    return torch.bmm(values.reshape(count, channels, height * width), plane.reshape(count, height * width, 1)).sum(
        dim=(0, 2)
    )
