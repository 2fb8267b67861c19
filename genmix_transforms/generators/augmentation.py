"""DiffAugment, the differentiable augmentation of what a discriminator sees, and the mirroring of real images.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training" (arXiv 2006.10738): brightness, saturation
and contrast; translation by up to an eighth; cutout of half the side. What is drawn (:func:`draw_augmentation`) stands
apart from how it is applied (:func:`diff_augment`). Volumes are shifted along all three of their axes, and their hole
is a cube.
"""

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.settings import Augmentation

POLICIES: tuple[Augmentation, ...] = get_args(Augmentation)
"""The names that a policy is made of."""

_TRANSLATION = 1 / 8
_CUTOUT = 1 / 2


def mirrored(images: Tensor, *, which: Tensor | None = None) -> Tensor:
    """Images of which some are mirrored left to right.

    Args:
        images: ``(N, C, H, W)`` or ``(N, C, D, H, W)``, on any device.
        which: those to mirror, bool ``(N,)`` on the same device; None: each with probability one half, drawn with
            torch's global generator of the device.

    Returns:
        The same shape and dtype.

    Example:
        >>> mirrored(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2), which=torch.tensor([True])).flatten()
        tensor([2., 1.])
    """
    if which is None:
        which = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(_each(which, images), images.flip(-1), images)


def draw_augmentation(images: Tensor, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw the numbers of one augmentation, one of each for every image, on the images' device.

    Args:
        images: ``(N, C, H, W)`` or ``(N, C, D, H, W)``; only shape and device are looked at.
        generator: of the draws; None: torch's global one.

    Returns:
        ``brightness`` in [-0.5, 0.5), ``saturation`` in [0, 2), ``contrast`` in [0.5, 1.5), ``shift`` (N, 2) in whole
        pixels, ``hole`` (N, 2), the hole's center in whole pixels; of volumes (N, 3) each.
    """
    count, _, *sides = images.shape
    uniform = torch.rand(3 + 2 * len(sides), count, generator=generator, device=images.device)
    shift, hole = [], []
    for axis, size in enumerate(sides):
        reach = int(size * _TRANSLATION + 0.5)
        shift.append(torch.floor(uniform[3 + axis] * (2 * reach + 1)).long() - reach)
        centre = uniform[3 + len(sides) + axis] * (size + 1 - int(size * _CUTOUT + 0.5) % 2)
        hole.append(torch.floor(centre).long())
    return {
        "brightness": uniform[0] - 0.5,
        "saturation": uniform[1] * 2,
        "contrast": uniform[2] + 0.5,
        "shift": torch.stack(shift, dim=1),
        "hole": torch.stack(hole, dim=1),
    }


def diff_augment(images: Tensor, draw: dict[str, Tensor], *, policy: Sequence[Augmentation] = POLICIES) -> Tensor:
    """Apply a draw to images; differentiable in the images, twice if need be.

    Args:
        images: ``(N, C, H, W)`` or ``(N, C, D, H, W)``, float, in [-1, 1].
        draw: from :func:`draw_augmentation`.
        policy: which of :data:`POLICIES` to apply.

    Returns:
        The same shape and dtype.
    """
    if "color" in policy:
        images = images + _each(draw["brightness"], images).to(images.dtype)
        if images.shape[1] > 1:  # one channel has no saturation
            grey = images.mean(dim=1, keepdim=True)
            images = grey + (images - grey) * _each(draw["saturation"], images).to(images.dtype)
        mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
        images = mean + (images - mean) * _each(draw["contrast"], images).to(images.dtype)
    if "translation" in policy:
        images = _translate(images, draw["shift"])
    if "cutout" in policy:
        images = images * _holes(images, draw["hole"])
    return images


def _each(values: Tensor, images: Tensor) -> Tensor:
    """Values ``(N,)``, one for each image, in a shape that broadcasts against the images."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _translate(images: Tensor, shift: Tensor) -> Tensor:
    """Shift every image by its own whole pixels; zeros come in from outside."""
    count, channels, *sides = images.shape
    # One ring of zeros is all that is ever read outside.
    padded = F.pad(images, (1, 1) * len(sides)).flatten(2)
    place = torch.zeros(count, *[1] * len(sides), dtype=torch.int64, device=images.device)
    for axis, size in enumerate(sides):
        along = torch.arange(size, device=images.device) + shift[:, axis : axis + 1]
        place = place * (size + 2) + _along_axis((along + 1).clamp(0, size + 1), axis, len(sides))
    place = place.reshape(count, 1, math.prod(sides))
    # Not padded[..., rows, columns]: the gradient of an index sorts all places first, that of a gather does not.
    return padded.gather(2, place.expand(-1, channels, -1)).view(images.shape)


def _holes(images: Tensor, centre: Tensor) -> Tensor:
    """A mask ``(N, 1, H, W)`` with a square hole of half the side around each center; of volumes a cube."""
    sides = images.shape[2:]
    hole = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, size in enumerate(sides):
        length = int(size * _CUTOUT + 0.5)
        offset = torch.arange(size, device=images.device) - centre[:, axis : axis + 1] + length // 2
        hole = hole & _along_axis((offset >= 0) & (offset < length), axis, len(sides))
    return (~hole).unsqueeze(1).to(images.dtype)


def _along_axis(values: Tensor, axis: int, axes: int) -> Tensor:
    """Values ``(N, size)`` along one of the spatial axes, in a shape that broadcasts over the others."""
    return values.view(len(values), *[1] * axis, -1, *[1] * (axes - axis - 1))
