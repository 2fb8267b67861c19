"""A problem that a small network learns in a second: three classes of noisy 16-pixel patches, and a bank of such."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.evaluation import Protocol, pretrain_classifier

CLASSES = ("cyst", "hemangioma", "metastasis")


def make_patches(count, *, seed=0, size=16, classes=CLASSES, name="shapes"):
    """Dark discs, bright discs, and stripes, in noise; the classes come in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(classes)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = torch.randint(size // 3, 2 * size // 3, (count, 2, 1, 1), generator=generator)
    disc = ((row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2 < (size // 4) ** 2).float()
    stripes = ((row + column) % 4 < 2).float().expand(count, size, size)
    shape = torch.stack([-disc, disc, stripes], 1)[torch.arange(count), labels % 3]
    values = 120 + 60 * shape + 20 * torch.randn(count, size, size, generator=generator)
    return PatchDataset(
        images=values.clamp(0, 255).to(torch.uint8).unsqueeze(1), labels=labels, classes=classes, name=name
    )


def make_bank(count=60, *, seed=100, size=16, classes=CLASSES, **options):
    patches = make_patches(count, seed=seed, size=size, classes=classes)
    return SyntheticBank(patches.images, patches.labels, classes=classes, **options)


@pytest.fixture
def splits():
    return tuple(make_patches(count, seed=seed) for count, seed in ((90, 0), (45, 1), (60, 2)))


@pytest.fixture
def bank():
    return make_bank()


@pytest.fixture
def quick():
    """A protocol of a fraction of a second."""
    return Protocol(steps=8, batch_size=8, validate_every=4)


@pytest.fixture(scope="session")
def pool_weights(tmp_path_factory):
    """A file of weights of a classifier that has hardly seen a pool."""
    file = tmp_path_factory.mktemp("pool") / "small.safetensors"
    pool = make_patches(20, seed=300).without_labels()
    pretrain_classifier(pool, out=file, steps=1, batch_size=8, progress=False)
    return str(file)


@pytest.fixture
def shapes():
    """The makers themselves, for tests that need other sizes."""

    class Makers:
        patches = staticmethod(make_patches)
        bank = staticmethod(make_bank)

    return Makers
