"""The StyleGAN network that images are drawn from: mapping, truncation, synthesis, and how far it has grown."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genmix_transforms.generators.stylegan.growth import SMALLEST, doublings, level_at
from genmix_transforms.generators.stylegan.layers import EPSILON, double
from genmix_transforms.generators.stylegan.mapping import MappingNetwork
from genmix_transforms.generators.stylegan.synthesis import SynthesisNetwork

MEAN_DECAY = 0.995
"""Of the tracked mean w, for each batch."""


class StyleGANNetwork(nn.Module):
    """The generator network of Karras, Laine, Aila, "A Style-Based Generator Architecture" (arXiv 1812.04948).

    Attributes:
        mapping: latents to w.
        synthesis: w and noise to images.
        mean_w: ``(classes, latent_size)``, the tracked mean w of each class, which truncation pulls towards. (NVIDIA's
            network has one for all classes; pulled towards it, classes would blend.)
        growth: scalar, how far the weights have grown; at other sizes than the full one, images are doubled up to it.

    Args:
        resolution: side of the images in pixels, a power of two from 8 to 1024.
        channels: of the images.
        classes: number of classes.
        latent_size: numbers in z and in w; 512 in the paper.
        mapping_layers: dense layers of the mapping network; 8 in the paper.
        fmap_base: channels at a resolution are ``2 * fmap_base / side``; 8192 in the paper.
        fmap_max: the most channels; 512 in the paper.
        conditioning: how the class reaches the mapping network, "multiply" or "concatenate".
        blurred_bias: see :class:`SynthesisNetwork`.
        norm_epsilon: of the instance norms.
    """

    mean_w: Tensor
    growth: Tensor

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 1,
        classes: int = 1,
        latent_size: int = 512,
        mapping_layers: int = 8,
        fmap_base: int = 8192,
        fmap_max: int = 512,
        conditioning: str = "multiply",
        blurred_bias: bool = False,
        norm_epsilon: float = EPSILON,
    ) -> None:
        super().__init__()
        self.full_growth: int = doublings(resolution)
        self.mapping = MappingNetwork(
            latent_size=latent_size, layers=mapping_layers, classes=classes, conditioning=conditioning
        )
        self.synthesis = SynthesisNetwork(
            resolution=resolution,
            channels=channels,
            latent_size=latent_size,
            fmap_base=fmap_base,
            fmap_max=fmap_max,
            blurred_bias=blurred_bias,
            norm_epsilon=norm_epsilon,
        )
        self.register_buffer("mean_w", torch.zeros(classes, latent_size))
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
            labels: int64 ``(N,)``.
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
        """Pull w of the first ``cutoff`` layers towards the class's mean: ``mean + psi * (w - mean)``.

        Args:
            w: ``(N, layers, latent_size)``.
            labels: int64 ``(N,)``.
            psi: 1 leaves w as it is.
            cutoff: number of layers; None: all.
        """
        if psi == 1.0:
            return w
        mean = self.mean_w[labels][:, None].to(w.dtype)
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
        """Move each class's mean w towards the mean of a batch; classes that are not in it stay.

        Args:
            w: ``(N, latent_size)``.
            labels: int64 ``(N,)``.
        """
        belongs = (labels[:, None] == torch.arange(len(self.mean_w), device=labels.device)).float()
        counts = belongs.sum(dim=0)[:, None]
        means = belongs.T @ w.float() / counts.clamp(min=1)
        self.mean_w.copy_(torch.where(counts > 0, torch.lerp(means, self.mean_w, MEAN_DECAY), self.mean_w))
