"""What of an image two images are compared by: its detail, without brightness, contrast and broad shading."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_BROAD = 1 / 25
"""Standard deviation, as a share of the side, of the blur that takes broad shading for itself. All chest radiographs
are alike in it."""

_EVEN = 1.0
"""Share of the image's own mean contrast that is added to the local one before detail is divided by it: below, noise
in dark corners would count as much as tissue."""


def detail(images: Tensor, *, side: int, device: str | torch.device = "cpu") -> Tensor:
    """Bring images to one size, take the local mean away, and even out the local contrast.

    Args:
        images: ``(N, C, H, W)``, uint8 or uint16.
        side: pixels of the result's side.
        device: where to compute.

    Returns:
        float32 ``(N, C, side, side)``; of flat images 0.

    Source: local contrast normalization (Jarrett et al., ICCV 2009, section 2.1), Gaussian windows.
    """
    parts = [_detail(part, side, device) for part in images.split(2048)]
    return torch.cat(parts) if parts else torch.zeros(0, images.shape[1], side, side, device=device)


def _detail(images: Tensor, side: int, device: str | torch.device) -> Tensor:
    values = images.to(device).float()
    small = F.interpolate(values, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    high = small - blurred(small, sigma=_BROAD * side)
    power = high.square().mean(dim=1, keepdim=True)
    overall = power.mean(dim=(1, 2, 3), keepdim=True)
    even = high / (blurred(power, sigma=_BROAD * side) + _EVEN**2 * overall).clamp_min(1e-12).sqrt()
    # Of a flat image rounding leaves something, which is no pattern.
    flat = overall.sqrt() <= values.abs().amax(dim=(1, 2, 3), keepdim=True) * 1e-4
    return torch.where(flat, torch.zeros_like(even), even)


def blurred(images: Tensor, *, sigma: float) -> Tensor:
    """Gaussian blur of ``(N, C, H, W)``, its borders mirrored."""
    reach = min(math.ceil(3 * sigma), *(length - 1 for length in images.shape[-2:]))
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    count, channels, height, width = images.shape
    flat = F.pad(images.reshape(count * channels, 1, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.view(count, channels, height, width)
