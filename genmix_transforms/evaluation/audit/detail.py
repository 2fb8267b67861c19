"""What of an image two images are compared by: its structure as a whole, the texture of its parts, and its noise."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_BROAD = 1 / 5
"""Standard deviation, as a share of the side, of the blur that takes broad shading for itself."""

_LOCAL = 1.0
"""The same of texture, in pixels: it reaches 2 pixels far, so that what stands beside a copied part changes little."""

_NEIGHBORHOOD = 1.5
"""Standard deviation, in pixels, of the blur that says how strong the texture around a pixel is."""

_FLOOR = 0.1
"""The share of the whole image's mean strength in that: the little noise of what is flat does not count as texture."""

_LEAST_RELIABILITY = 0.6
"""Below, an image is noise, and nothing is corrected: the little that is left of its structure would count too much."""


def structure(images: Tensor, *, side: int, smooth: float = 0.0, device: str | torch.device = "cpu") -> Tensor:
    """Bring images to one size and take their broad shading away.

    Args:
        images: ``(N, C, H, W)``, uint8 or uint16.
        side: pixels of the result's side.
        smooth: pixels of a blur of the result: noise falls away, and half a pixel of shift costs little.
        device: where to compute.

    Returns:
        float32 ``(N, C, side, side)``, of mean power 1; of flat images 0.
    """
    return _in_parts(images, side, device, lambda values: _high(values, smooth))


def texture(images: Tensor, *, side: int, device: str | torch.device = "cpu") -> Tensor:
    """Bring images to one size and keep what differs from the neighboring pixels, loud and soft alike.

    Args and returns as :func:`structure`.

    A faint part that was copied into an image of strong contrast has the texture that it had before: strength is that
    of the few pixels around.

    Source: local contrast normalization (Jarrett et al., ICCV 2009).
    """
    return _in_parts(images, side, device, _texture)


def reliability(images: Tensor, *, side: int, smooth: float, device: str | torch.device = "cpu") -> Tensor:
    """The largest correlation that an image's structure can have with what it would be without noise.

    Args:
        images: ``(N, C, H, W)``, uint8 or uint16.
        side: of :func:`structure`.
        smooth: likewise.
        device: where to compute.

    Returns:
        float32 ``(N,)``, from 0.6 to 1 (no noise); 1 also for images that are noise, of which it cannot be said.

    Source: Spearman's correction for attenuation (1904); the noise is measured by differences that lines and edges do
    not pass (Immerkaer, "Fast noise variance estimation", 1996), by the median.
    """
    found = []
    for some in images.split(2048):
        values = some.to(device).float()
        power = _high(_sized(values, side), smooth).square().mean(dim=(1, 2, 3))
        noise = _noise(values).square() * _gain(tuple(values.shape[-2:]), side, smooth)
        reliable = (1 - noise / power.clamp_min(1e-9)).clamp_min(0).sqrt()
        found.append(torch.where(reliable < _LEAST_RELIABILITY, torch.ones_like(reliable), reliable))
    return torch.cat(found) if found else torch.zeros(0, device=device)


def _in_parts(images: Tensor, side: int, device: str | torch.device, look: Callable[[Tensor], Tensor]) -> Tensor:
    parts = []
    for some in images.split(2048):
        values = some.to(device).float()
        seen = look(_sized(values, side))
        power = seen.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        # Of a flat image rounding leaves something, which is no pattern.
        flat = (values.amax(dim=(1, 2, 3)) == values.amin(dim=(1, 2, 3)))[:, None, None, None] | (power == 0)
        parts.append(torch.where(flat, torch.zeros_like(seen), seen / power.clamp_min(1e-12)))
    return torch.cat(parts) if parts else torch.zeros(0, images.shape[1], side, side, device=device)


def _sized(values: Tensor, side: int) -> Tensor:
    if values.shape[-2:] == (side, side):
        return values
    return F.interpolate(values, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def _high(values: Tensor, smooth: float) -> Tensor:
    high = values - blurred(values, sigma=_BROAD * values.shape[-1])
    return blurred(high, sigma=smooth) if smooth else high


def _texture(values: Tensor) -> Tensor:
    high = values - blurred(values, sigma=_LOCAL, reach=2)
    strength = high.abs()
    whole = strength.mean(dim=(1, 2, 3), keepdim=True)
    around = blurred(strength.mean(dim=1, keepdim=True), sigma=_NEIGHBORHOOD)
    return high / (strength + _FLOOR * whole + (1 - _FLOOR) * around).clamp_min(1e-6)


def _noise(values: Tensor) -> Tensor:
    """Standard deviation of white noise, ``(N,)``."""
    count, channels, height, width = values.shape
    kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], device=values.device)
    rough = F.conv2d(values.reshape(count * channels, 1, height, width), kernel[None, None]).abs().flatten(1)
    # The kernel's squares sum to 36; of a normal law half lies within 0.6745 deviations.
    return (rough.median(dim=1).values / 6 / 0.6745).view(count, channels).mean(dim=1)


@lru_cache(maxsize=16)
def _gain(size: tuple[int, int], side: int, smooth: float) -> float:
    """How much of white noise's power is left in structure; measured."""
    noise = torch.randn(32, 1, *size, generator=torch.Generator().manual_seed(0))
    return float(_high(_sized(noise, side), smooth).square().mean())


def blurred(images: Tensor, *, sigma: float, reach: int | None = None) -> Tensor:
    """Gaussian blur of ``(N, C, H, W)``, its borders mirrored.

    Args:
        images: floats.
        sigma: standard deviation, in pixels.
        reach: pixels to each side that count; None: three standard deviations, or up to the other side.
    """
    down, across = (_blur(length, sigma, reach).to(images) for length in images.shape[-2:])
    return down @ images @ across.T


@lru_cache(maxsize=32)
def _blur(length: int, sigma: float, reach: int | None) -> Tensor:
    """The blur of a column as a matrix, float64 ``(length, length)``: of images so small faster than convolution."""
    far = min(math.ceil(3 * sigma) if reach is None else reach, length - 1)
    at = torch.arange(-far, far + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    lines = F.pad(torch.eye(length, dtype=torch.float64)[None], (far, far), mode="reflect")[0]
    return F.conv1d(lines[:, None], (kernel / kernel.sum())[None, None])[:, 0].T.contiguous()
