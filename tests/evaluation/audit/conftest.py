"""Small patches of two easily told classes, three a patient, and banks of known faults."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset

CLASSES = ("disc", "stripes")


def make_patches(count, *, seed, size=32, groups=True):
    """Bright discs and stripes of random place and width in smooth noise; the classes come in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    center = torch.randint(size // 3, 2 * size // 3, (count, 2, 1, 1), generator=generator)
    radius = torch.randint(size // 8, size // 4, (count, 1, 1), generator=generator)
    disc = ((row - center[:, 0]) ** 2 + (column - center[:, 1]) ** 2 < radius**2).float()
    period = torch.randint(8, 14, (count, 1, 1), generator=generator)
    phase = torch.randint(0, 8, (count, 1, 1), generator=generator)
    stripes = ((row + phase) % period < period // 2).float()
    noise = torch.randn(count, 1, size // 4, size // 4, generator=generator)
    noise = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")[:, 0]
    values = 90 + 70 * torch.where(labels[:, None, None] == 0, disc, stripes) + 10 * noise
    values += 4 * torch.randn(count, size, size, generator=generator)
    return PatchDataset(
        images=values.clamp(0, 255).to(torch.uint8)[:, None],
        labels=labels,
        classes=CLASSES,
        groups=1000 * seed + torch.arange(count) // 6 * 2 + labels if groups else None,
        name="shapes",
    )


def as_bank(patches, **options):
    return SyntheticBank(patches.images, patches.labels, classes=patches.classes, **options)


@pytest.fixture(scope="session")
def splits():
    return tuple(make_patches(count, seed=seed) for count, seed in ((60, 1), (48, 2), (72, 3)))


@pytest.fixture(scope="session")
def banks():
    """A good bank, and one of each fault."""
    good = as_bank(make_patches(80, seed=9))
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([good.images[good.labels == number][0] for number in (0, 1)])
    jitter = torch.randint(-2, 3, good.images.shape, generator=generator)
    collapsed = (first[good.labels].int() + jitter).clamp(0, 255).to(torch.uint8)
    noise = torch.randint(0, 256, good.images.shape, generator=generator, dtype=torch.uint8)
    return {
        "good": good,
        "collapsed": good.replace(images=collapsed),
        "wrong classes": SyntheticBank(good.images, 1 - good.labels, classes=CLASSES),
        "noise": good.replace(images=noise),
    }


@pytest.fixture(scope="session")
def make():
    class Makers:
        patches = staticmethod(make_patches)
        bank = staticmethod(as_bank)

    return Makers
