"""A small bank, and patches of its kind."""

from pathlib import Path

import pytest
import torch

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data import PatchDataset

CLASSES = ("cyst", "metastasis")


def images_of(count: int, *, base: int = 0, size: int = 8) -> torch.Tensor:
    """Images each of one gray value of its own: ``base + number``."""
    gray = torch.arange(base, base + count, dtype=torch.uint8)
    return gray[:, None, None, None].expand(count, 1, size, size).contiguous()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 images, gray 0 to 11: 5 cysts, 7 metastases; number 3 is marked as a near copy."""
    flags = torch.zeros(12, dtype=torch.uint8)
    flags[3] = Flag.NEAR_COPY
    labels = torch.tensor([0] * 5 + [1] * 7)
    SyntheticBank(images_of(12), labels, classes=CLASSES, flags=flags).save(tmp_path / "bank")
    return tmp_path / "bank"


@pytest.fixture
def patches() -> PatchDataset:
    """10 real images, gray 100 to 109: their classes in the other order."""
    return PatchDataset(
        images=images_of(10, base=100), labels=torch.tensor([0, 1] * 5), classes=CLASSES[::-1], name="real"
    )
