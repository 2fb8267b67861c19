"""How the generators of few_labels.py see patches: plainly, folded, in color and enlarged, or as latents.

A view brings patches to what a generator is trained on, and its bank back to patches.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from genmix_transforms import SyntheticBank
from genmix_transforms.data import PatchDataset
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.files.images import fit_images, to_channels


class View(Protocol):
    """There and back."""

    def of(self, patches: PatchDataset) -> PatchDataset:
        """The patches as the generator sees them; they keep their origins, so that leaks are still found."""

    def back(self, bank: SyntheticBank, side: int) -> SyntheticBank:
        """A bank of such images as gray patches of a side in pixels."""


def seen(patches: PatchDataset, images: Tensor) -> PatchDataset:
    """Patches with other images, from the same sources."""
    return replace(patches, images=images, source_hashes=patches.origins)


@dataclass(frozen=True)
class Plain:
    """As they are, with sides that are a power of two."""

    def of(self, patches: PatchDataset) -> PatchDataset:
        side = patches.images.shape[-1]
        return seen(patches, fit_images(patches.images, 1 << (side - 1).bit_length()))

    def back(self, bank: SyntheticBank, side: int) -> SyntheticBank:
        return bank.replace(images=fit_images(bank.images, side))


@dataclass(frozen=True)
class Folded:
    """Each square of 2 x 2 pixels as four channels of one: a quarter of the positions for a network to work on."""

    def of(self, patches: PatchDataset) -> PatchDataset:
        return seen(patches, pixel_unshuffle(patches.images, 2))

    def back(self, bank: SyntheticBank, side: int) -> SyntheticBank:
        return bank.replace(images=fit_images(pixel_shuffle(bank.images, 2), side))


@dataclass(frozen=True)
class Colored:
    """Enlarged, and in three equal channels: for a network that knows photographs."""

    side: int

    def of(self, patches: PatchDataset) -> PatchDataset:
        return seen(patches, fit_images(to_channels(patches.images, 3), self.side))

    def back(self, bank: SyntheticBank, side: int) -> SyntheticBank:
        return bank.replace(images=fit_images(to_channels(bank.images, 1), side))


_REACH = 3.0
"""TAEF2's decoder takes latents to be within -3 and 3, softly."""


class Residual(nn.Module):
    """A block of TAEF2.

    Args:
        channels: of the input and output.
        pooled: whether what all positions have in common is added first.
    """

    def __init__(self, channels: int, *, pooled: bool = False) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        inner = 4 * channels
        self.pool = (
            nn.Sequential(
                nn.Conv2d(channels, inner, 1, bias=False), nn.GroupNorm(4, inner), nn.ReLU(),
                nn.Conv2d(inner, channels, 1, bias=False),
            )
            if pooled
            else None
        )  # fmt: skip

    def forward(self, values: Tensor) -> Tensor:
        if self.pool is not None:
            values = values + self.pool(values)
        found: Tensor = torch.relu(self.conv(values) + values)
        return found


class _Clamp(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(values / _REACH) * _REACH


def _blocks(pooled: bool) -> list[nn.Module]:
    return [Residual(64, pooled=pooled) for _ in range(3)]


def encoder(channels: int = 32) -> nn.Sequential:
    """Images ``(N, 3, H, W)`` of 0 to 1 to latents ``(N, 32, H / 8, W / 8)``."""
    down: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), Residual(64)]
    for pooled in (False, False, True):
        down += [nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False), *_blocks(pooled)]
    return nn.Sequential(*down, nn.Conv2d(64, channels, 3, padding=1))


def decoder(channels: int = 32) -> nn.Sequential:
    """The way back."""
    up: list[nn.Module] = [_Clamp(), nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU()]
    for pooled in (True, False, False):
        up += [*_blocks(pooled), nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]
    return nn.Sequential(*up, Residual(64), nn.Conv2d(64, 3, 3, padding=1))


@dataclass(frozen=True, eq=False)
class Latent:
    """As latents of TAEF2 (madebyollin/taesd, MIT), an autoencoder that was distilled from one of photographs.

    A latent is kept as a byte: 0 to 255 are three standard deviations about its channel's mean.

    Args:
        encode: see :func:`encoder`.
        decode: see :func:`decoder`.
        mean: of each channel, ``(32, 1, 1)``.
        std: likewise.
        side: to which the patches are enlarged before.
    """

    encode: nn.Module
    decode: nn.Module
    mean: Tensor
    std: Tensor
    side: int

    @classmethod
    def load(cls, folder: Path, *, like: PatchDataset, kept: Path, side: int = 64) -> "Latent":
        """Read ``taef2_encoder.pth`` and ``taef2_decoder.pth``.

        Args:
            folder: where they are.
            like: images, of the first 1,000 of which each channel's mean and deviation are taken.
            kept: a file for these, ``.safetensors``, which is read where it is there.
            side: to which the patches are enlarged before.
        """
        networks = {"encoder": encoder(), "decoder": decoder()}
        for name, network in networks.items():
            weights = torch.load(folder / f"taef2_{name}.pth", map_location="cpu", weights_only=True)
            network.load_state_dict(weights)
            network.eval().requires_grad_(False)
        if not kept.exists():
            latents = _in_parts(_in_color(like.images[:1000], side), networks["encoder"])
            kept.parent.mkdir(parents=True, exist_ok=True)
            std, mean = torch.std_mean(latents, dim=(0, 2, 3), keepdim=True)
            write_tensors(kept, {"mean": mean[0], "std": std[0]})
        values = load_file(kept)
        return cls(networks["encoder"], networks["decoder"], values["mean"], values["std"], side)

    def of(self, patches: PatchDataset) -> PatchDataset:
        latents = (_in_parts(_in_color(patches.images, self.side), self.encode) - self.mean) / self.std
        return seen(patches, (127.5 * (1 + latents / 3)).clamp(0, 255).round().to(torch.uint8))

    def back(self, bank: SyntheticBank, side: int) -> SyntheticBank:
        latents = (bank.images / 127.5 - 1) * 3 * self.std + self.mean
        images = (255 * _in_parts(latents, self.decode)).clamp(0, 255).round().to(torch.uint8)
        return bank.replace(images=fit_images(to_channels(images, 1), side))


def _in_color(images: Tensor, side: int) -> Tensor:
    """Gray or color images uint8 as values in [0, 1], in three channels and enlarged."""
    return fit_images(to_channels(images, 3), side) / 255


def _in_parts(images: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([network(part) for part in images.split(64)])
