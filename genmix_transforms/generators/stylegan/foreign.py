"""Weights trained elsewhere, under our names, before a network is made for them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.growth import channels_at
from genmix_transforms.generators.stylegan.layers import EPSILON


@dataclass
class ForeignWeights:
    """What a file of somebody else's holds.

    Attributes:
        source: whose layout it was.
        network: tensors by the names of :class:`StyleGANNetwork`; without ``mean_w``, ``growth`` or the ``to_rgb`` of
            lower resolutions where the file has none.
        discriminator: tensors by the names of :class:`StyleGANDiscriminator`; None where the file has none that fits.
        norm_epsilon: of its instance norms.
        notes: what a user should know of the file.
    """

    source: str
    network: dict[str, Tensor]
    discriminator: dict[str, Tensor] | None = None
    norm_epsilon: float = EPSILON
    notes: tuple[str, ...] = ()

    @property
    def full_growth(self) -> int:
        """Doublings beyond 4 pixels."""
        return (
            sum(re.fullmatch(r"synthesis\.layers\.\d+\.style\.bias", name) is not None for name in self.network) // 2
            - 1
        )

    @property
    def levels_without_rgb(self) -> list[int]:
        """Resolutions, as doublings, at which the network cannot make an image."""
        return [level for level in range(self.full_growth) if f"synthesis.to_rgb.{level}.weight" not in self.network]


def widths_to_fmap(widths: Sequence[int]) -> tuple[int, int]:
    """``fmap_base`` and ``fmap_max`` of a network, from the channels at 4, 8, ... pixels.

    Raises:
        InputError: channels that do not halve as StyleGAN's do.

    Example:
        >>> widths_to_fmap([512, 512, 512, 512, 256])
        (8192, 512)
    """
    most = max(widths)
    # A block's width is the base halved so often, rounded down, but one at least.
    base = max((width << (level + 1) for level, width in enumerate(widths) if width > 1), default=1)
    expected = [channels_at(level, fmap_base=base, fmap_max=most) for level in range(len(widths))]
    if expected != list(widths):
        raise InputError(f"its channels ({', '.join(map(str, widths))} from 4 pixels on) do not halve as StyleGAN's do")
    return base, most


def check_tensor(tensor: Tensor, *, name: str) -> Tensor:
    """A weight as float32, in memory of its own.

    Raises:
        InputError: values that are no finite numbers.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        raise InputError(f"{name}: expected weights, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    tensor = tensor.to(torch.float32, copy=True).contiguous()
    if not torch.isfinite(tensor).all():
        raise InputError(f"{name}: holds values that are not finite")
    return tensor
