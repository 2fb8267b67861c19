"""Banks whose every image is known: the pixels count up from the image's own number."""

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank

CLASSES = ("cyst", "hemangioma", "metastasis")


def pixels_of(count, shape=(1, 4, 4), dtype=torch.uint8, *, seed=0):
    highest = 255 if dtype == torch.uint8 else 65535
    numbers = np.random.default_rng(seed).integers(0, highest + 1, (count, *shape))
    return torch.from_numpy(numbers.astype(np.uint8 if dtype == torch.uint8 else np.uint16))


@pytest.fixture
def pixels():
    """The maker of random images: ``pixels(count, shape, dtype, seed=)``."""
    return pixels_of


@pytest.fixture
def make_bank():
    """The maker of banks: seven images of three classes, not in order, each with a seed of its own."""

    def make(labels=(2, 0, 1, 0, 2, 2, 1), *, shape=(1, 4, 4), dtype=torch.uint8, classes=CLASSES, seed=0, **options):
        labels = torch.as_tensor(labels)
        options.setdefault("seeds", 1000 + torch.arange(len(labels)))
        return SyntheticBank(pixels_of(len(labels), shape, dtype, seed=seed), labels, classes=classes, **options)

    return make


@pytest.fixture
def same():
    """The check that two banks are one and the same, bit for bit."""

    def check(one, other):
        for name in ("images", "labels", "seeds", "class_start", "class_count"):
            left, right = getattr(one, name), getattr(other, name)
            assert left.dtype == right.dtype, name
            assert torch.equal(left, right), name
        assert (one.classes, one.window, one.provenance) == (other.classes, other.window, other.provenance)

    return check
