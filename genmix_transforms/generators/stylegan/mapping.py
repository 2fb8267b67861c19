"""The mapping network: latents z to the styles' space w (Karras et al., arXiv 1812.04948, section 2)."""

import torch
from torch import Tensor, nn

from genmix_transforms.generators.stylegan.layers import EqualisedLinear, activate, pixel_norm

LR_MULTIPLIER = 0.01
"""The mapping network learns at a hundredth of the others' rate (section C of the paper's appendix)."""

CONDITIONINGS = ("multiply", "concatenate")
"""How the class reaches the mapping network: multiplied into the latent, or beside it as in NVIDIA's network."""


class MappingNetwork(nn.Module):
    """Latents ``(N, latent_size)`` and labels int64 ``(N,)`` to w ``(N, latent_size)``.

    Pixel norm, then ``layers`` dense layers with leaky ReLU. With more than one class a learned vector of the class
    joins the latent before the norm.

    Args:
        latent_size: numbers in z and in w.
        layers: how many dense layers.
        classes: number of classes; with one there is no class vector.
        conditioning: one of :data:`CONDITIONINGS`.
    """

    def __init__(
        self, *, latent_size: int = 512, layers: int = 8, classes: int = 1, conditioning: str = "multiply"
    ) -> None:
        super().__init__()
        self.latent_size: int = latent_size
        self.conditioning = conditioning
        self.embedding = nn.Embedding(classes, latent_size) if classes > 1 else None
        joined = 2 * latent_size if classes > 1 and conditioning == "concatenate" else latent_size
        self.layers = nn.ModuleList(
            EqualisedLinear(joined if number == 0 else latent_size, latent_size, lr_multiplier=LR_MULTIPLIER)
            for number in range(layers)
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
