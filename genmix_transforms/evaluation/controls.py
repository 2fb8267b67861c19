"""The classical augmentation of the real images alone, that the mixing arms are measured against."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.errors import InputError

_MOST_DEGREES = 30.0
_LEAST_AREA = 0.5


class Classical:
    """Flips, rotations and crops, another for each image, in one resampling on the images' device.

    Args:
        strength: above 0 and at most 1. At 1: left and right swapped half of the time, rotations of up to 30 degrees
            either way, and crops of half to all of the area, with sides of 3 to 4 up to 4 to 3, brought back to the
            full size. Below, the angle and the loss of area shrink in proportion. Beyond the border the image is
            mirrored.
        least_area: of a crop at strength 1, as a share of the image.
    """

    def __init__(self, *, strength: float, least_area: float = _LEAST_AREA) -> None:
        if not 0 < strength <= 1:
            raise InputError(f"Classical: strength must be above 0 and at most 1, got {strength}")
        self.strength = strength
        self.least_area = least_area

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to as many."""
        flip, turn, area, aspect, x, y = torch.rand(6, len(images), device=images.device)
        angle = (2 * turn - 1) * math.radians(_MOST_DEGREES) * self.strength
        root = (1 - area * (1 - self.least_area) * self.strength).sqrt()
        stretch = ((2 * aspect - 1) * 0.5 * math.log(4 / 3)).mul(self.strength).exp()
        width, height = (root * stretch).clamp(max=1), (root / stretch).clamp(max=1)
        mirror = torch.where(flip < 0.5, -1.0, 1.0)
        # From a place in the result to one in the image, both from -1 to 1: scale, turn, then shift.
        ratio = images.shape[-1] / images.shape[-2]
        across = (mirror * width * angle.cos(), -height * angle.sin() / ratio, (2 * x - 1) * (1 - width))
        down = (mirror * width * angle.sin() * ratio, height * angle.cos(), (2 * y - 1) * (1 - height))
        matrix = torch.stack([torch.stack(across, dim=1), torch.stack(down, dim=1)], dim=1)
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
