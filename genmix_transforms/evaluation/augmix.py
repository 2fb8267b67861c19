"""AugMix for a batch: every image its own operations and weights, drawn and applied where the images are.

``torchvision.transforms.v2.AugMix`` draws one chain of operations for a whole batch, and reads every number of it on
the host: for chains of an image's own it must be called image by image. Here the law of the draws is the same, and an
operation is applied to all images that take it at once.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.normalisation import Normalisation

WIDTH = 3
"""Chains an image."""

DEPTH = 3
"""Operations that a chain has at most; at least one."""

LEVELS = 10
"""Magnitudes of an operation, from none to the greatest; a severity is how many of them may be drawn."""

PIECE = 1 << 17
"""Values of the images that are mixed together on the CPU: their chains then stay in the cache."""

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDING = ("Brightness", "Color", "Contrast", "Sharpness")
Names = tuple[str, ...]

OPERATIONS = (*GEOMETRIC, *BLENDING, "Posterize", "Solarize", "AutoContrast", "Equalize")
"""Those of torchvision, in another order: the signed ones first."""

_PLACE = {name: number for number, name in enumerate(OPERATIONS)}
_SIGNED = len(GEOMETRIC) + len(BLENDING)
_NOTHING = -1

# A uniform number each: the weights of image and chains, of the chains among themselves, how deep each chain is, and
# which operation at which level in which direction.
_COLUMNS = 1 + WIDTH + WIDTH + 3 * WIDTH * DEPTH


class AugMixDraw(NamedTuple):
    """What is random about AugMix of a batch; tensors on one device."""

    operation: Tensor
    """int64 ``(N, WIDTH, DEPTH)``: places in :data:`OPERATIONS`; -1 where a chain has ended."""
    level: Tensor
    """int64 ``(N, WIDTH, DEPTH)``, from 0 and below the severity."""
    negative: Tensor
    """bool ``(N, WIDTH, DEPTH)``: whether a signed magnitude points the other way."""
    weights: Tensor
    """float32 ``(N, 1 + WIDTH)``, each row with a sum of 1: of the image itself and of its chains."""


class AugMix:
    """Each image mixed with chains of random operations on it.

    Args:
        normalisation: that the images went through: the operations want values in [0, 1].
        severity: of the operations, 1 to 10.

    Raises:
        InputError: images of other than 1 or 3 channels, which torchvision's operations do not know.

    Source: Hendrycks et al., "AugMix" (arXiv 1912.02781), without its consistency loss: the paper on GenMix names the
    augmentation only. Operations, magnitudes and the law of the draws are those of torchvision's ``v2.AugMix``.
    """

    def __init__(self, normalisation: Normalisation, *, severity: int) -> None:
        channels = len(normalisation.mean)
        if channels not in (1, 3):
            raise InputError(f"AugMix takes images of 1 or 3 channels, got {channels}: leave the arm 'augmix' out")
        self.severity = severity
        self._mean, self._std = (
            torch.tensor(values).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Normalized images ``(N, C, H, W)`` to as many."""
        device = images.device
        # Of a few numbers each, sent without waiting for the device.
        mean, std = (values.to(device, non_blocking=True) for values in (self._mean, self._std))
        table = magnitudes(*images.shape[-2:]).to(device, non_blocking=True)
        draw = draw_augmix(len(images), severity=self.severity, device=device)
        return (apply_augmix((images * std + mean).clamp_(0, 1), draw, table) - mean) / std


def draw_augmix(count: int, *, severity: int, device: torch.device | str = "cpu") -> AugMixDraw:
    """Draw for so many images, by torch's global generator of the device; the host reads nothing.

    The weight of the image itself is uniform; the rest is shared among the chains by a flat Dirichlet distribution,
    which is that of exponential numbers over their sum.

    Example:
        >>> draw_augmix(2, severity=3).operation.shape
        torch.Size([2, 3, 3])
    """
    uniform = torch.rand(count, _COLUMNS, device=device)
    own, shares, depth, chosen = uniform.split((1, WIDTH, WIDTH, 3 * WIDTH * DEPTH), dim=1)
    which, level, direction = chosen.view(count, 3, WIDTH, DEPTH).unbind(1)
    operation = (which * len(OPERATIONS)).long().clamp_(max=len(OPERATIONS) - 1)
    ended = torch.arange(DEPTH, device=device) > (depth.unsqueeze(2) * DEPTH).floor()
    exponential = -torch.log1p(-shares)
    shares = exponential / exponential.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return AugMixDraw(
        operation.masked_fill(ended, _NOTHING),
        (level * severity).long().clamp_(max=severity - 1),
        direction <= 0.5,
        torch.cat([own, (1 - own) * shares], dim=1),
    )


def magnitudes(height: int, width: int) -> Tensor:
    """What each operation does at each level, float32 ``(len(OPERATIONS), LEVELS)``, for images of that many pixels.

    Shears in pixels a pixel, translations in whole pixels, rotations in degrees, the factors of the blending
    operations less 1, the levels that posterizing leaves, and the value from which solarizing inverts. 0 for those
    that have no magnitude.
    """
    rows = {
        "ShearX": torch.linspace(0.0, 0.3, LEVELS),
        "ShearY": torch.linspace(0.0, 0.3, LEVELS),
        "TranslateX": torch.linspace(0.0, width / 3.0, LEVELS).trunc(),
        "TranslateY": torch.linspace(0.0, height / 3.0, LEVELS).trunc(),
        "Rotate": torch.linspace(0.0, 30.0, LEVELS),
        **dict.fromkeys(BLENDING, torch.linspace(0.0, 0.9, LEVELS)),
        "Posterize": torch.tensor([float(2**bits) for bits in _bits()]),
        "Solarize": torch.linspace(1.0, 0.0, LEVELS),
    }
    nothing = torch.zeros(LEVELS)
    return torch.stack([rows.get(name, nothing) for name in OPERATIONS])


def _bits() -> list[int]:
    bits: list[int] = (4 - torch.arange(LEVELS) / ((LEVELS - 1) / 4)).round().int().tolist()
    return bits


def apply_augmix(images: Tensor, draw: AugMixDraw, table: Tensor) -> Tensor:
    """Mix images with what their chains make of them.

    Args:
        images: ``(N, C, H, W)``, float32 in [0, 1], C 1 or 3.
        draw: for so many images.
        table: :func:`magnitudes` of their size, on their device.

    Returns:
        The same shape, in [0, 1].
    """
    several = max(1, PIECE // max(1, images[:1].numel()))
    if images.device.type == "cpu" and len(images) > several:
        parts = zip(images.split(several), *(values.split(several) for values in draw), strict=True)
        return torch.cat([apply_augmix(some, AugMixDraw(*drawn), table) for some, *drawn in parts])
    found = table[draw.operation.clamp(min=0), draw.level]
    found = torch.where(draw.negative & (draw.operation < _SIGNED), -found, found)
    chains = images.repeat_interleave(WIDTH, dim=0)  # a copy, which may be written into
    for step in range(DEPTH):
        chains = _apply(chains, draw.operation[:, :, step].flatten(), found[:, :, step].flatten())
    own, *weights = draw.weights.view(-1, 1 + WIDTH, 1, 1, 1).unbind(1)
    mixed = images * own
    for chain, weight in zip(chains.view(-1, WIDTH, *images.shape[1:]).unbind(1), weights, strict=True):
        mixed.addcmul_(chain, weight)
    return mixed


def apply_operations(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Apply to each image its own operation.

    Args:
        images: ``(M, C, H, W)``, float32 in [0, 1], C 1 or 3.
        operation: int64 ``(M,)``, places in :data:`OPERATIONS`; -1 leaves an image as it is.
        magnitude: float32 ``(M,)``, with its sign: see :func:`magnitudes`.

    Returns:
        The same shape, in new memory.
    """
    return _apply(images.clone(), operation, magnitude)


def _apply(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """The same; on the CPU in the images' own memory."""
    if images.device.type != "cpu":
        # All of them, and those that take it are chosen: to know these the host would wait for the device.
        for names, apply in _FAMILIES:
            first, last = _PLACE[names[0]], _PLACE[names[-1]]
            takes = _wide((operation >= first) & (operation <= last))
            images = torch.where(takes, apply(images, names, operation, magnitude), images)
        return images
    order = operation.tolist()
    for names, apply in _FAMILIES:
        for name in names:
            some: Any = [number for number, place in enumerate(order) if place == _PLACE[name]]
            if len(some) == 1:
                some = slice(some[0], some[0] + 1)  # which is not copied
            if some:
                images[some] = apply(images[some], (name,), operation[some], magnitude[some])
    return images


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _resample(images: Tensor, names: Names, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shears about the upper left corner, translations, and rotations about the middle; black comes in from outside."""
    height, width = images.shape[-2:]
    shear_x, shear_y, move_x, move_y, angle = (
        torch.where(operation == _PLACE[name], magnitude, 0.0) for name in GEOMETRIC
    )
    angle = angle * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    # From a place in the result to one in the image, both from -1 to 1.
    across = (cosine, (shear_x - sine) * (height / width), shear_x * (height / width) - move_x * (2 / width))
    down = ((shear_y + sine) * (width / height), cosine, shear_y * (width / height) - move_y * (2 / height))
    matrix = torch.stack([*across, *down], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _blend(images: Tensor, names: Names, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Away from a plainer image, or toward it."""
    first, *others = names
    plain = _PLAIN[first](images)
    for name in others:
        plain = torch.where(_wide(operation == _PLACE[name]), _PLAIN[name](images), plain)
    return torch.lerp(plain.expand_as(images), images, _wide(1 + magnitude)).clamp_(0, 1)


def _black(images: Tensor) -> Tensor:
    return images.new_zeros(1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = 0.2989 * red + 0.587 * green + 0.114 * blue
    return grey


def _evenly_grey(images: Tensor) -> Tensor:
    return _grey(images).mean((1, 2, 3), keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels, the middle one counting five times; the outermost pixels stay."""
    if min(images.shape[-2:]) <= 2:
        return images
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (9 * F.avg_pool2d(images, 3, stride=1) + 4 * images[..., 1:-1, 1:-1]) / 13
    return smooth


def _posterize(images: Tensor, names: Names, operation: Tensor, magnitude: Tensor) -> Tensor:
    levels = _wide(magnitude).clamp(min=1)
    return torch.minimum((images * levels).floor_(), levels - 1) / levels


def _solarize(images: Tensor, names: Names, operation: Tensor, magnitude: Tensor) -> Tensor:
    return torch.where(images >= _wide(magnitude), 1 - images, images)


def _autocontrast(images: Tensor, names: Names, operation: Tensor, magnitude: Tensor) -> Tensor:
    stretched: Tensor = vision.autocontrast(images)
    return stretched


def _equalize(images: Tensor, names: Names, operation: Tensor, magnitude: Tensor) -> Tensor:
    equalized: Tensor = vision.equalize(images)
    return equalized


_PLAIN = {"Brightness": _black, "Color": _grey, "Contrast": _evenly_grey, "Sharpness": _smooth}

# Operations that follow each other, and what does them all at once.
_FAMILIES: tuple[tuple[Names, Callable[[Tensor, Names, Tensor, Tensor], Tensor]], ...] = (
    (GEOMETRIC, _resample),
    (BLENDING, _blend),
    (("Posterize",), _posterize),
    (("Solarize",), _solarize),
    (("AutoContrast",), _autocontrast),
    (("Equalize",), _equalize),
)
