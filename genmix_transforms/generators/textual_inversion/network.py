"""A latent diffusion model taken apart: what reads the prompt, what denoises, and what turns images into latents.

Two families are known: the model of the paper (``LDMTextToImagePipeline``, BERT tokens) and Stable Diffusion and its
likes (``StableDiffusionPipeline``, CLIP tokens). Both condition a U-Net on the last hidden state of 77 tokens.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.textual_inversion.rows import LearnedRows


@dataclass(frozen=True, kw_only=True)
class BaseSource:
    """Where a base model comes from.

    Args:
        name: the hub's id, or the folder's own name: never a path, which would tell of somebody's machine.
        revision: the hub's commit; None for a folder.
        folder: where it lies on this machine.
    """

    name: str
    revision: str | None
    folder: Path


class LatentDiffusion(nn.Module):
    """A frozen latent diffusion model, in evaluation mode.

    Args:
        tokenizer: of the text encoder; it is not changed.
        text_encoder: token ids to hidden states.
        unet: a diffusers ``UNet2DConditionModel``.
        autoencoder: ``AutoencoderKL``, ``AutoencoderTiny`` or ``VQModel``.
        scheduler_config: of the scheduler that the model came with: the noise schedule and what the U-Net predicts.
        family: "ldm" or "stable-diffusion".

    Attributes:
        learned: the text encoder's embedding, with room for rows of ours.
        source: where it came from; None for one that was put together by hand.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        unet: Any,
        autoencoder: Any,
        scheduler_config: Mapping[str, Any],
        family: str,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.unet = unet
        self.autoencoder = autoencoder
        self.scheduler_config: dict[str, Any] = dict(scheduler_config)
        self.family = family
        table = self._embedder().get_input_embeddings()
        # Ids of new tokens begin behind the tokenizer's, also where the table has spare rows behind those.
        self.learned: LearnedRows = LearnedRows(table, first=len(tokenizer))
        # Evaluation mode is no matter of taste: LDM's text encoder has a dropout of 0.1 that its training never used.
        self.requires_grad_(False).eval()
        self.source: BaseSource | None = None
        self._hash: str | None = None

    def with_unet(self, unet: Any) -> "LatentDiffusion":
        """The same model with another U-Net, one that adapters were put into: it shares all the rest.

        :attr:`weights_hash` stays that of the base model.
        """
        _ = self.weights_hash  # of this one: counted later, it would be that of the other U-Net
        other = copy.copy(self)
        # A module keeps its parts in a dict of its own, which a shallow copy would share.
        other._modules = dict(self._modules)
        other.unet = unet.requires_grad_(False).eval()
        return other

    def _embedder(self) -> Any:
        # LDMBert keeps its table in the encoder within, and says so only there.
        return self.text_encoder.model if self.family == "ldm" else self.text_encoder

    @property
    def device(self) -> torch.device:
        """Where it is."""
        device: torch.device = next(self.unet.parameters()).device  # diffusers' own property walks through all modules
        return device

    @property
    def width(self) -> int:
        """Numbers in a word vector."""
        table: Any = self.learned.table
        return int(table.weight.shape[1])

    @property
    def pixels_per_latent(self) -> int:
        """Side in pixels of what one place of the latent stands for: 8 in all published models."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    @property
    def native_size(self) -> int:
        """Side in pixels of the images that it was trained on: 256 for LDM, 512 for Stable Diffusion 1."""
        return int(self.unet.config.sample_size) * self.pixels_per_latent

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(C, h, w)`` of a latent."""
        side = int(self.unet.config.sample_size)
        return (int(self.unet.config.in_channels), side, side)

    @property
    def weights_hash(self) -> str:
        """sha256 of all weights that an image depends on; computed once."""
        if self._hash is None:
            parts = {"text_encoder": self.text_encoder, "unet": self.unet, "autoencoder": self.autoencoder}
            self._hash = weights_hash(
                {
                    f"{part}.{name}": value
                    for part, module in parts.items()
                    for name, value in module.state_dict().items()
                }
            )
        return self._hash

    def encode_text(self, ids: Tensor, *, rows: Tensor | None = None) -> Tensor:
        """The U-Net's context.

        Args:
            ids: int64 ``(N, 77)``; ids from ``learned.first`` on are ``rows``'.
            rows: learned vectors ``(R, width)``; gradients reach them.

        Returns:
            Hidden states ``(N, 77, width')``.
        """
        with self._with_rows(rows):
            hidden: Tensor = self.text_encoder(ids)[0]
        return hidden

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' distribution, scaled as the U-Net takes them.

        Args:
            images: ``(N, 3, H, W)`` in [-1, 1].

        Returns:
            Two tensors ``(N, C, h, w)``; a deviation of 0 from autoencoders that know only one latent for an image.
        """
        scale, shift = self._latent_scale()
        if isinstance(self.autoencoder, AutoencoderKL):
            distribution = self.autoencoder.encode(images).latent_dist
            return (distribution.mean - shift) * scale, distribution.std * scale
        latents: Tensor = self.autoencoder.encode(images).latents
        return (latents - shift) * scale, torch.zeros_like(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(N, C, h, w)``, scaled as the U-Net takes them, to images ``(N, 3, H, W)``, around [-1, 1]."""
        scale, shift = self._latent_scale()
        images: Tensor = self.autoencoder.decode(latents / scale + shift).sample
        return images

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """What the U-Net predicts (``scheduler_config["prediction_type"]`` says what that is), ``(N, C, h, w)``."""
        prediction: Tensor = self.unet(latents, timesteps, encoder_hidden_states=context, return_dict=False)[0]
        return prediction

    def _latent_scale(self) -> tuple[float, float]:
        config = self.autoencoder.config
        return float(config.scaling_factor), float(getattr(config, "shift_factor", None) or 0.0)

    @contextmanager
    def _with_rows(self, rows: Tensor | None) -> Iterator[None]:
        # Put in for the call and taken out again: what is saved or read from outside is the base model as it came.
        if rows is None:
            yield
            return
        embedder = self._embedder()
        self.learned.rows = rows
        embedder.set_input_embeddings(self.learned)
        try:
            yield
        finally:
            embedder.set_input_embeddings(self.learned.table)
            self.learned.rows = None
