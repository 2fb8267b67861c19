"""Small real parts that the tests of this room share."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import DCGAN, StyleGAN
from tests.ranks import run_ranks

CLASSES = ("cyst", "metastasis")


def make_patches(
    count: int = 24, *, size: int = 16, channels: int = 1, classes: tuple[str, ...] = CLASSES, dimensions: int = 2
) -> PatchDataset:
    """Bright discs on dark ground (class 0), dark on bright (class 1): something that a small GAN can learn.

    Of three dimensions a disc fades toward the first and the last slice.
    """
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % len(classes)
    grid = torch.arange(size, dtype=torch.float32)
    centre = torch.randint(size // 3, size - size // 3, (count, 2), generator=random)
    distance = (grid[None, :, None] - centre[:, :1, None]) ** 2 + (grid[None, None, :] - centre[:, 1:, None]) ** 2
    disc = (distance < (size / 5) ** 2).float()
    value = torch.where(labels.view(-1, 1, 1) == 0, disc, 1 - disc)
    noise = torch.rand(count, size, size, generator=random) * 40
    if dimensions == 3:
        fading = 1 - (grid - size / 2).abs() / size
        value, noise = value[:, None] * fading[:, None, None], noise[:, None]
    images = (value * 180 + noise).to(torch.uint8)[:, None]
    images = images.expand(-1, channels, *[-1] * dimensions).contiguous()
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


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    """What the two processes of ``two_processes.py`` say of a scenario, by rank: started once for all tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "two_processes"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            folder.mkdir()
            _start_two_processes(folder)

    def found(scenario: str) -> list[dict[str, Any]]:
        files = [folder / f"{scenario}.{rank}.json" for rank in range(2)]
        said = "\n".join((folder / f"{rank}.err").read_text()[-2000:] for rank in range(2))
        assert all(file.exists() for file in files), said
        return [json.loads(file.read_text()) for file in files]

    return found


def _start_two_processes(folder: Path) -> None:
    from tests.generators.two_processes import main  # imports all kinds of generators

    run_ranks(main, folder, said=folder)
