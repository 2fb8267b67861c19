"""The generator network: latents to styles w (mapping), truncation, and w to images (synthesis), at any growth."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genmix_transforms.generators.class_embedding import ClassEmbedding, look_up
from genmix_transforms.generators.stylegan.layers import (
    EqualisedConv,
    EqualisedLinear,
    activate,
    blur,
    double,
    paint_over,
    pixel_norm,
)
from genmix_transforms.generators.stylegan.schedule import SMALLEST, channels_up_to, doublings, fade_at, level_at
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings

LR_MULTIPLIER = 0.01
"""The mapping network learns at a hundredth of the others' rate (section C of the paper's appendix)."""


class MappingNetwork(nn.Module):
    """Latents ``(N, latent_size)`` and labels, int64 ``(N,)`` or rows of weights ``(N, K)``, to w ``(N, latent_size)``.

    Pixel norm, then dense layers with leaky ReLU. With more than one class a learned vector of the class joins the
    latent before the norm.
    """

    def __init__(self, settings: StyleGANNetworkSettings, *, classes: int = 1) -> None:
        super().__init__()
        size = settings.latent_size
        self.latent_size: int = size
        self.conditioning: str = settings.conditioning
        self.embedding: ClassEmbedding | None = ClassEmbedding(classes, size) if classes > 1 else None
        joined = 2 * size if classes > 1 and self.conditioning == "concatenate" else size
        self.layers: nn.ModuleList = nn.ModuleList(
            EqualisedLinear(joined if number == 0 else size, size, lr_multiplier=LR_MULTIPLIER)
            for number in range(settings.mapping_layers)
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents, N(0, 1), and labels to w."""
        if self.embedding is not None:
            vectors = self.embedding(labels)
            together = self.conditioning == "multiply"
            latents = latents * vectors if together else torch.cat([latents, vectors], dim=1)
        values = pixel_norm(latents)
        for layer in self.layers:
            values = activate(layer(values))
        return values


class StyledLayer(nn.Module):
    """Convolution, (blur,) noise, bias, leaky ReLU, instance norm, style: in this order.

    Args:
        inputs: channels in; None for the first layer, which has no convolution.
        outputs: channels out.
        settings: of the network. With ``blurred_bias``, as in a port whose weights we read, doubling layers have one
            more bias, before the blur: which sees zeros beyond the border, and wears that bias down there.
        up: whether the image is doubled first; then it is blurred after the convolution.
    """

    def __init__(
        self, inputs: int | None, outputs: int, settings: StyleGANNetworkSettings, *, up: bool = False
    ) -> None:
        super().__init__()
        self.up = up
        self.norm_epsilon: float = settings.norm_epsilon
        self.conv: EqualisedConv | None = None
        if inputs is not None:
            resample = "up" if up else None
            self.conv = EqualisedConv(inputs, outputs, 3, resample=resample, bias=up and settings.blurred_bias)
        self.noise_strength: nn.Parameter = nn.Parameter(torch.zeros(outputs))
        self.bias: nn.Parameter = nn.Parameter(torch.zeros(outputs))
        self.style: EqualisedLinear = EqualisedLinear(settings.latent_size, 2 * outputs, gain=1.0)

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
    ``layers[2 * level + 1]`` does not. Each resolution, a power of two from 8, has its own ``to_rgb``.
    """

    def __init__(self, settings: StyleGANNetworkSettings, *, resolution: int = 64, channels: int = 1) -> None:
        super().__init__()
        self.full_growth: int = doublings(resolution)
        widths = channels_up_to(self.full_growth, fmap_base=settings.fmap_base, fmap_max=settings.fmap_max)
        self.constant: nn.Parameter = nn.Parameter(torch.ones(1, widths[0], SMALLEST, SMALLEST))
        self.layers: nn.ModuleList = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else None
            self.layers.append(StyledLayer(before, width, settings, up=level > 0))
            self.layers.append(StyledLayer(width, width, settings))
        self.to_rgb: nn.ModuleList = nn.ModuleList(EqualisedConv(width, channels, 1, gain=1.0) for width in widths)

    def forward(
        self,
        w: Tensor,
        noise: Sequence[Tensor],
        *,
        growth: float | None = None,
        fade: Tensor | float | None = None,
    ) -> Tensor:
        """Paint images of the resolution at ``growth`` (None: fully grown), with w and noise of all its layers or more.

        The noise is a map ``(N, 1, side, side)`` for each layer; ``fade`` says how much the newest block counts (None:
        as ``growth`` says).
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


MEAN_DECAY = 0.995
"""Of the tracked mean w, for each batch."""


class StyleGANNetwork(nn.Module):
    """The generator network of Karras, Laine, Aila, "A Style-Based Generator Architecture" (arXiv 1812.04948).

    Attributes:
        mapping: latents to w.
        synthesis: w and noise to images.
        mean_w: ``(classes, latent_size)``, the tracked mean w of each class, which truncation pulls toward. (NVIDIA's
            network has one for all classes; pulled toward it, classes would blend.)
        growth: scalar, how far the weights have grown; at other sizes than the full one, images are doubled up to it.
    """

    mean_w: Tensor
    growth: Tensor

    def __init__(
        self, settings: StyleGANNetworkSettings, *, resolution: int = 64, channels: int = 1, classes: int = 1
    ) -> None:
        super().__init__()
        self.full_growth: int = doublings(resolution)
        self.mapping: MappingNetwork = MappingNetwork(settings, classes=classes)
        self.synthesis: SynthesisNetwork = SynthesisNetwork(settings, resolution=resolution, channels=channels)
        self.register_buffer("mean_w", torch.zeros(classes, settings.latent_size))
        self.register_buffer("growth", torch.tensor(float(self.full_growth)))

    @property
    def latent_size(self) -> int:
        """Numbers in z and in w."""
        return self.mapping.latent_size

    @property
    def layer_count(self) -> int:
        """Styled layers of the fully grown network: two for each resolution."""
        return len(self.synthesis.layers)

    def noise_sides(self, growth: float | None = None) -> list[int]:
        """The side of each active layer's noise map, in pixels."""
        level = self.full_growth if growth is None else level_at(growth)
        return [SMALLEST << (number // 2) for number in range(2 * level + 2)]

    def forward(
        self,
        latents: Tensor,
        labels: Tensor,
        *,
        noise: Sequence[Tensor],
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Draw images of the full size, outside training.

        Args:
            latents: ``(N, latent_size)``, N(0, 1).
            labels: int64 ``(N,)``, or rows of weights, float32 ``(N, K)``.
            noise: a map ``(N, 1, side, side)`` for each layer, sides as :meth:`noise_sides` says.
            psi: truncation: 1 for none, 0 for the class's mean image.
            cutoff: truncate this many layers, from the coarsest; None: all.

        Returns:
            ``(N, C, resolution, resolution)``, about [-1, 1].
        """
        w = self.mapping(latents, labels)
        return self.paint(self.truncate(self.broadcast(w), labels, psi=psi, cutoff=cutoff), noise=noise)

    def broadcast(self, w: Tensor) -> Tensor:
        """One w for all layers: ``(N, latent_size)`` to ``(N, layers, latent_size)``."""
        return w[:, None].expand(-1, self.layer_count, -1)

    def truncate(self, w: Tensor, labels: Tensor, *, psi: float, cutoff: int | None = None) -> Tensor:
        """Pull w ``(N, layers, latent_size)`` toward the class's mean: ``mean + psi * (w - mean)``.

        Only the first ``cutoff`` layers are pulled; None: all.
        """
        if psi == 1.0:
            return w
        mean = look_up(self.mean_w, labels)[:, None].to(w.dtype)
        inside = torch.arange(w.shape[1], device=w.device) < (w.shape[1] if cutoff is None else cutoff)
        return torch.where(inside[:, None], torch.lerp(mean.expand_as(w), w, psi), w)

    def paint(self, w: Tensor, *, noise: Sequence[Tensor]) -> Tensor:
        """w of every layer to images of the full size, at whatever growth the network has."""
        growth = float(self.growth)
        images: Tensor = self.synthesis(w, noise, growth=growth)
        for _ in range(self.full_growth - level_at(growth)):
            images = double(images)
        return images

    @torch.no_grad()
    def track_mean_w(self, w: Tensor, labels: Tensor) -> None:
        """Move each class's mean w toward that of a batch ``(N, latent_size)``; classes that are not in it stay."""
        belongs = (labels[:, None] == torch.arange(len(self.mean_w), device=labels.device)).float()
        counts = belongs.sum(dim=0)[:, None]
        means = belongs.T @ w.float() / counts.clamp(min=1)
        self.mean_w.copy_(torch.where(counts > 0, torch.lerp(means, self.mean_w, MEAN_DECAY), self.mean_w))
