"""Small real parts that the tests of this room share."""

from collections.abc import Callable

import pytest
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import DCGAN, StyleGAN

CLASSES = ("cyst", "metastasis")


def make_patches(
    count: int = 24, *, size: int = 16, channels: int = 1, classes: tuple[str, ...] = CLASSES
) -> PatchDataset:
    """Bright discs on dark ground (class 0), dark on bright (class 1): something that a small GAN can learn."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % len(classes)
    grid = torch.arange(size, dtype=torch.float32)
    centre = torch.randint(size // 3, size - size // 3, (count, 2), generator=random)
    distance = (grid[None, :, None] - centre[:, :1, None]) ** 2 + (grid[None, None, :] - centre[:, 1:, None]) ** 2
    disc = (distance < (size / 5) ** 2).float()
    value = torch.where(labels.view(-1, 1, 1) == 0, disc, 1 - disc)
    noise = torch.rand(count, size, size, generator=random) * 40
    images = (value * 180 + noise).to(torch.uint8)[:, None].expand(-1, channels, -1, -1).contiguous()
    return PatchDataset(images=images, labels=labels, classes=classes, name="discs")


def make_dcgan(**options: object) -> DCGAN:
    """A DCGAN that trains a step in milliseconds."""
    return DCGAN(**{"classes": CLASSES, "resolution": 16, "base_width": 4, "latent_size": 8, **options})  # type: ignore[arg-type]


def make_stylegan(**options: object) -> StyleGAN:
    """A StyleGAN that trains a step in some hundredths of a second."""
    tiny = {"classes": CLASSES, "resolution": 16, "fmap_base": 64, "fmap_max": 8, "latent_size": 8, "mapping_layers": 2}
    return StyleGAN(**{**tiny, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny_patches() -> Callable[..., PatchDataset]:
    return make_patches


@pytest.fixture(scope="session")
def tiny_dcgan() -> Callable[..., DCGAN]:
    return make_dcgan


@pytest.fixture(scope="session")
def tiny_stylegan() -> Callable[..., StyleGAN]:
    return make_stylegan
