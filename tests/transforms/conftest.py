"""Banks and batches in which every image is evenly of one level, its own, so that a mix shows what it was made of."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank

SHAPE = (1, 2, 2)


def make_levels(levels, shape=SHAPE):
    """Images ``(N, *shape)``, each filled with its level."""
    levels = torch.as_tensor(levels)
    return levels.view(-1, *[1] * len(shape)).expand(-1, *shape).clone()


def make_random_bank(count=12, *, classes=3, shape=SHAPE, dtype=torch.uint8, soft=False, seed=0, **options):
    """Random images; the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    highest = 255 if dtype == torch.uint8 else 65535
    images = torch.randint(0, highest + 1, (count, *shape), generator=generator).to(dtype)
    labels = torch.arange(count) % classes
    if soft:
        labels = torch.softmax(3 * torch.eye(classes)[labels] + torch.rand(count, classes, generator=generator), 1)
    return SyntheticBank(images, labels, classes=[f"c{number}" for number in range(classes)], **options)


def make_counted_bank(counts, **options):
    """As many images of each class as ``counts`` says; the image in row n of the bank is of level n mod 256."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = make_levels(torch.arange(len(labels)) % 256).to(torch.uint8)
    return SyntheticBank(images, labels, classes=[f"c{number}" for number in range(len(counts))], **options)


def make_batch(count=4, *, classes=3, shape=SHAPE, dtype=torch.float32, seed=1):
    """Random images in [0, 1) and class indices."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=generator).to(dtype), torch.randint(
        0, classes, (count,), generator=generator
    )


@pytest.fixture
def levels():
    return make_levels


@pytest.fixture
def random_bank():
    return make_random_bank


@pytest.fixture
def counted_bank():
    return make_counted_bank


@pytest.fixture
def batch():
    return make_batch
