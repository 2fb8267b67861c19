"""The synthesis network: a learned constant, doubled and painted over, layer by layer, in the styles of w."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genmix_transforms.generators.stylegan.growth import SMALLEST, channels_at, doublings, fade_at, level_at
from genmix_transforms.generators.stylegan.layers import EPSILON, EqualisedConv, EqualisedLinear, blur, double
from genmix_transforms.generators.stylegan.styling import paint_over


class StyledLayer(nn.Module):
    """Convolution, (blur,) noise, bias, leaky ReLU, instance norm, style: in this order.

    Args:
        inputs: channels in; None for the first layer, which has no convolution.
        outputs: channels out.
        latent_size: numbers in w.
        up: whether the image is doubled first; then it is blurred after the convolution.
        blurred_bias: with ``up``, one more bias, before the blur; see :class:`SynthesisNetwork`.
        norm_epsilon: of the instance norm.
    """

    def __init__(
        self,
        inputs: int | None,
        outputs: int,
        *,
        latent_size: int,
        up: bool = False,
        blurred_bias: bool = False,
        norm_epsilon: float = EPSILON,
    ) -> None:
        super().__init__()
        self.up = up
        self.norm_epsilon: float = norm_epsilon
        self.conv = (
            None
            if inputs is None
            else EqualisedConv(inputs, outputs, 3, resample="up" if up else None, bias=up and blurred_bias)
        )
        self.noise_strength = nn.Parameter(torch.zeros(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = EqualisedLinear(latent_size, 2 * outputs, gain=1.0)

    def forward(self, values: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Values ``(N, inputs, H, W)``, w ``(N, latent_size)`` and noise ``(N, 1, H', W')`` to the next values."""
        if self.conv is not None:
            values = self.conv(values)
            if self.up:
                values = blur(values)
        scale, shift = self.style(w).chunk(2, dim=1)
        return paint_over(values, noise, self.noise_strength, self.bias, scale, shift, epsilon=self.norm_epsilon)


class SynthesisNetwork(nn.Module):
    """w of every layer ``(N, layers, latent_size)`` and noise to images ``(N, channels, side, side)``.

    Two layers for every resolution: ``layers[2 * level]`` doubles (at 4 pixels it is the constant's), and
    ``layers[2 * level + 1]`` does not. Each resolution has its own ``to_rgb``.

    Args:
        resolution: side of the images in pixels, a power of two from 8.
        channels: of the images.
        latent_size: numbers in w.
        fmap_base: channels of a block are ``fmap_base / side * 2`` ...
        fmap_max: ... but never more than this.
        blurred_bias: doubling layers have a bias before the blur too, as in a port whose weights we read: the blur,
            which sees zeros beyond the border, wears that bias down there.
        norm_epsilon: of the instance norms; ports have 1e-5.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 1,
        latent_size: int = 512,
        fmap_base: int = 8192,
        fmap_max: int = 512,
        blurred_bias: bool = False,
        norm_epsilon: float = EPSILON,
    ) -> None:
        super().__init__()
        own: dict[str, Any] = {"latent_size": latent_size, "norm_epsilon": norm_epsilon}
        self.full_growth: int = doublings(resolution)
        widths = [channels_at(level, fmap_base=fmap_base, fmap_max=fmap_max) for level in range(self.full_growth + 1)]
        self.constant = nn.Parameter(torch.ones(1, widths[0], SMALLEST, SMALLEST))
        self.layers = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else None
            self.layers.append(StyledLayer(before, width, up=level > 0, blurred_bias=blurred_bias, **own))
            self.layers.append(StyledLayer(width, width, **own))
        self.to_rgb = nn.ModuleList(EqualisedConv(width, channels, 1, gain=1.0) for width in widths)

    def forward(
        self,
        w: Tensor,
        noise: Sequence[Tensor],
        *,
        growth: float | None = None,
        fade: Tensor | float | None = None,
    ) -> Tensor:
        """Paint.

        Args:
            w: ``(N, layers, latent_size)``, layers as many as are active at this growth, or more.
            noise: a map ``(N, 1, side, side)`` for each active layer.
            growth: see :mod:`genmix_transforms.generators.stylegan.growth`; None: fully grown.
            fade: how much the newest block counts; None: as ``growth`` says.

        Returns:
            ``(N, channels, side, side)``; side is the resolution at this growth.
        """
        growth = float(self.full_growth) if growth is None else growth
        level = level_at(growth)
        fade = fade_at(growth) if fade is None else fade
        values = self.constant.expand(len(w), -1, -1, -1)
        before = values
        for number, layer in enumerate(self.layers[: 2 * level + 2]):
            if number == 2 * level:
                before = values
            values = layer(values, w[:, number], noise[number])
        images: Tensor = self.to_rgb[level](values)
        if level and growth != level:
            images = torch.lerp(double(self.to_rgb[level - 1](before)), images, fade)
        return images
