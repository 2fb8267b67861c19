"""The layers of StyleGAN's networks: equalised learning rates, blur, fused up- and downsampling, fused styling.

Equalised learning rate (Karras et al., arXiv 1710.10196, section 4.1): weights are drawn from N(0, 1) and multiplied,
at every use, by what He's initialization would have multiplied them by once; Adam then moves all of them alike.
"""

import math
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEAK = 0.2
"""Slope of the leaky ReLU below zero, everywhere."""

HE_GAIN = math.sqrt(2)

EPSILON = 1e-8
"""Of all norms."""


class EqualisedLinear(nn.Module):
    """A dense layer ``(N, inputs)`` to ``(N, outputs)`` with an equalised learning rate.

    Args:
        gain: sqrt(2) before a leaky ReLU, 1 before nothing.
        lr_multiplier: the layer learns this many times as fast; weights are stored divided by it.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = HE_GAIN, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.lr_multiplier: float = lr_multiplier
        self.scale: float = gain / math.sqrt(inputs) * lr_multiplier
        self.weight: nn.Parameter = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias: nn.Parameter = nn.Parameter(torch.zeros(outputs))

    def forward(self, values: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs)``."""
        return F.linear(values, self.weight * self.scale, self.bias * self.lr_multiplier)


class EqualisedConv(nn.Module):
    """A convolution ``(N, inputs, H, W)`` to ``(N, outputs, H', W')`` with an equalised learning rate.

    Args:
        size: side of the kernel, 1 or 3; the borders are padded with zeros.
        gain: as in :class:`EqualisedLinear`.
        resample: "up" doubles the image first (nearest neighbor), "down" halves it afterwards (mean of 2 x 2); both
            are one strided convolution, exactly.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        gain: float = HE_GAIN,
        resample: str | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.scale: float = gain / math.sqrt(inputs * size * size)
        self.weight: nn.Parameter = nn.Parameter(torch.zeros(outputs, inputs, size, size))
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, images: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H', W')``."""
        weight = self.weight * self.scale
        if self.resample == "up":
            return upsampling_conv(images, weight, self.bias)
        if self.resample == "down":
            return downsampling_conv(images, weight, self.bias)
        return F.conv2d(images, weight, self.bias, padding=self.weight.shape[-1] // 2)


def upsampling_conv(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Double the image (nearest neighbor) and convolve it, in one transposed convolution.

    Each pixel of the doubled image has three neighbors with the same value, so that 3 x 3 taps on it are 2 x 2 sums
    of taps on the small one: 16 multiplications where the two steps take 36. The weight is ``(D, C, 3, 3)``, as
    ``conv2d`` takes it.
    """
    # Transposed convolution correlates with the flipped kernel.
    kernel = _summed(weight.flip(2, 3)).transpose(0, 1)
    return F.conv_transpose2d(images, kernel, bias, stride=2, padding=1)


def downsampling_conv(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve an image of even sides and halve it (mean of 2 x 2), in one strided convolution."""
    return F.conv2d(images, _summed(weight) / 4, bias, stride=2, padding=1)


def _summed(weight: Tensor) -> Tensor:
    """A 3 x 3 kernel and its three shifts by one tap, summed: 4 x 4."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


def blur(images: Tensor) -> Tensor:
    """Convolve every channel with [1, 2, 1] x [1, 2, 1] / 16; zeros beyond the border."""
    blurred: Tensor = _Blur.apply(images)
    return blurred


def _make_blur_kernel(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    kernel = torch.full((channels, 1, 3, 3), 1 / 16, dtype=dtype, device=device)
    kernel[:, :, 1].mul_(2)
    kernel[..., 1].mul_(2)
    return kernel


_blur_kernel = lru_cache(maxsize=64)(_make_blur_kernel)
"""Kept, for otherwise every blur would make it anew. It is made on the device: a copy would wait for it."""


class _Blur(torch.autograd.Function):
    """The blur is symmetric, and so its own derivative: every derivative is one more blur.

    Autograd's own second derivative of a convolution in as many groups as channels is far slower.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        channels = images.shape[1]
        # A compiled graph keeps its constants itself, and does not look into caches.
        make = _make_blur_kernel if torch.compiler.is_compiling() else _blur_kernel
        return F.conv2d(images, make(channels, images.dtype, images.device), padding=1, groups=channels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return blur(gradient)


def activate(values: Tensor) -> Tensor:
    """Leaky ReLU, in place: no layer here needs what it gave to it."""
    return F.leaky_relu(values, LEAK, inplace=True)


def pixel_norm(values: Tensor) -> Tensor:
    """Divide each row of ``(N, size)`` by its root mean square."""
    return values * torch.rsqrt(values.square().mean(dim=1, keepdim=True) + EPSILON)


def double(images: Tensor) -> Tensor:
    """Twice the size, nearest neighbor."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


def halve(images: Tensor) -> Tensor:
    """Half the size, mean of 2 x 2."""
    return F.avg_pool2d(images, 2)


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

    Values are ``(N, C, H, W)``, noise ``(N, 1, H, W)``, strength and bias ``(C,)``, scale and shift ``(N, C)``. It is
    computed in float32, and comes in the type of the values: under autocast a narrower one.
    """
    with torch.autocast(values.device.type, enabled=False):
        painted: Tensor = _PaintOver.apply(
            values.float(), noise.float(), strength.float(), bias.float(), scale.float(), shift.float(), epsilon
        )
    return painted.to(values.dtype)


class _PaintOver(torch.autograd.Function):
    """The whole step as one function, with its derivative written out.

    As five layers, autograd would keep a copy of the activations for each, and PyTorch's instance norm, which does not
    know channels-last images, would copy them twice more. Together that takes as much time as a narrow network's
    convolutions.
    """

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


@torch.no_grad()
def initialise(network: nn.Module, *, seed: int) -> None:
    """Draw the weights: N(0, 1), divided by a layer's learning-rate multiplier; biases and noise strengths 0.

    Always on the CPU and in the same order, so that a seed gives the same network everywhere. Class vectors are drawn
    from N(0, 1), and the constant that the synthesis starts from is 1.
    """
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        own = dict(module.named_parameters(recurse=False))
        for name, parameter in own.items():
            if name == "weight":
                drawn = torch.randn(parameter.shape, generator=random)
                parameter.copy_(drawn / getattr(module, "lr_multiplier", 1.0))
            else:
                parameter.fill_(1.0 if name == "constant" else 0.0)
        for name, buffer in module.named_buffers(recurse=False):
            buffer.fill_(float(cast(int, module.full_growth)) if name == "growth" else 0.0)
