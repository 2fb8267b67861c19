"""The training set's mean and standard deviation, and how its pixels become the values a network is trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL

_SLICE = 512


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """As of ``v2.Normalize``: values in [0, 1] become ``(value - mean) / std``.

    Args:
        mean: of the training set's pixels, in [0, 1], one a channel.
        std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Tensor) -> "Normalisation":
        """The statistics of integer images ``(N, C, H, W)``, summed in float64. A constant channel has a std of 1.

        Raises:
            InputError: no images.

        Example:
            >>> Normalisation.of(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
            Normalisation(mean=(0.5,), std=(0.5,))
        """
        if not images.numel():
            raise InputError("no images to take a mean of")
        count, channels = images.numel() // images.shape[1], images.shape[1]
        highest = HIGHEST_PIXEL[images.dtype]
        total = torch.zeros(channels, dtype=torch.float64)
        for part in images.split(_SLICE):
            total += part.double().sum(dim=(0, 2, 3)).cpu()
        mean = total / count
        squares = torch.zeros(channels, dtype=torch.float64)
        for part in images.split(_SLICE):
            centred = part.double() - mean.to(images.device).view(-1, 1, 1)
            squares += centred.square_().sum(dim=(0, 2, 3)).cpu()
        std = (squares / count).sqrt() / highest
        return cls(
            mean=tuple((mean / highest).tolist()), std=tuple(torch.where(std > 0, std, torch.ones_like(std)).tolist())
        )

    @classmethod
    def none(cls, channels: int) -> "Normalisation":
        """Values stay in [0, 1]: a pre-trained network knows which values it wants, and makes them of these."""
        return cls(mean=(0.0,) * channels, std=(1.0,) * channels)

    def unit(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """``scale`` and ``shift``, float32 ``(C, 1, 1)`` on these pixels' device: ``value = pixel * scale + shift``.

        The same numbers as :meth:`genmix_transforms.SyntheticBank.unit` gives, so that real and synthetic values agree.
        """
        highest = HIGHEST_PIXEL[pixels.dtype]
        scale = torch.tensor([1 / (highest * std) for std in self.std], device=pixels.device)
        shift = torch.tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=pixels.device)
        return scale.view(-1, 1, 1), shift.view(-1, 1, 1)
