"""torchvision's own tests of MixUp and CutMix (``TestCutMixMixUp``), rewritten for a transform that mixes with a bank.

The trick is theirs: every image of the data set has a label of its own, and here every image of the bank has one too,
so that the two entries of a mixed label say who was mixed with whom.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError

REAL, SYNTHETIC = 32, 68
SHAPE = (3, 20, 20)


class EveryLabelOnce(Dataset):
    """Image n is evenly n / 100, and of class n."""

    def __init__(self, *, one_hot=False):
        self.one_hot = one_hot

    def __getitem__(self, number):
        label = torch.tensor(number)
        return torch.full(SHAPE, number / 100), F.one_hot(label, REAL + SYNTHETIC) if self.one_hot else label

    def __len__(self):
        return REAL


@pytest.fixture
def bank():
    """Image n is evenly n + 1, and of class 32 + n."""
    levels = torch.arange(1, SYNTHETIC + 1, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return SyntheticBank(
        levels, torch.arange(SYNTHETIC) + REAL, classes=[str(number) for number in range(REAL + SYNTHETIC)]
    )


def check(images, labels):
    """Two entries a row that sum to 1, and an image that is the mix of just those two."""
    assert images.shape == (REAL, *SHAPE)
    assert (labels.shape, labels.dtype) == ((REAL, REAL + SYNTHETIC), torch.float32)
    torch.testing.assert_close(labels.sum(dim=-1), torch.ones(REAL))
    assert bool(((labels != 0).sum(dim=-1) == 2).all())
    assert torch.equal(labels[:, :REAL].argmax(dim=1), torch.arange(REAL))
    lam, partner = labels[:, REAL:].max(dim=1)
    expected = lam * (partner + 1) / 255 + (1 - lam) * torch.arange(REAL) / 100
    torch.testing.assert_close(images, expected.view(-1, 1, 1, 1).expand_as(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("one_hot", [False, True])
def test_supported_input_structure(bank, one_hot):
    dataset, genmix = EveryLabelOnce(one_hot=one_hot), GenMix(bank)
    loader = DataLoader(dataset, batch_size=REAL)

    # After the DataLoader, unpacked and packed
    images, labels = next(iter(loader))
    check(*genmix(images, labels))
    packed = next(iter(loader))
    assert isinstance(packed, list)
    mixed = genmix(packed)
    assert isinstance(mixed, list)
    check(*mixed)

    # As a collate_fn
    for collate in (
        lambda samples: genmix(default_collate(samples)),
        lambda samples: genmix(*default_collate(samples)),
    ):
        check(*next(iter(DataLoader(dataset, batch_size=REAL, collate_fn=collate))))


def test_in_a_row_and_beside_theirs(bank):
    """Theirs took no soft labels once; two in a row must work, and any order."""
    images, labels = next(iter(DataLoader(EveryLabelOnce(), batch_size=REAL)))
    genmix, classes = GenMix(bank), REAL + SYNTHETIC
    for steps in (
        [genmix, genmix],
        [genmix, v2.MixUp(num_classes=classes)],
        [v2.CutMix(num_classes=classes), genmix],
        [v2.RandomChoice([genmix, v2.MixUp(num_classes=classes), v2.CutMix(num_classes=classes)])],
    ):
        mixed, soft = v2.Compose(steps)(images, labels)
        assert mixed.shape == images.shape
        assert (soft.shape, soft.dtype) == ((REAL, classes), torch.float32)
        torch.testing.assert_close(soft.sum(dim=-1), torch.ones(REAL))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_cpu_vs_gpu(bank, dtype):
    """One draw, replayed on both."""
    images, labels = (torch.rand(9, *SHAPE) * (255 if dtype == torch.uint8 else 1)).to(dtype), torch.arange(9)
    here, there = GenMix(bank, real_partner=0.3), GenMix(bank.to("cuda"), real_partner=0.3)
    mixed, soft = there(images.cuda(), labels.cuda())
    expected = here(images, labels, params=there.params)
    torch.testing.assert_close(mixed.cpu(), expected[0])
    torch.testing.assert_close(soft.cpu(), expected[1])


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        # One image is no batch, whatever it is wrapped in.
        ((tv_tensors.Image(torch.rand(*SHAPE)), torch.tensor([1])), r"batch has shape \(3, 20, 20\); expected \(N, 3,"),
        ((tv_tensors.Video(torch.rand(4, *SHAPE)[None]), torch.tensor([1])), r"batch has shape \(1, 4, 3, 20, 20\)"),
        ((torch.rand(1, 1, 9, *SHAPE), torch.arange(9)), r"batch has shape \(1, 1, 9, 3, 20, 20\); expected"),
        (tv_tensors.Image(torch.rand(*SHAPE)), "expected a sample of images and labels, got one tensor"),
        ((torch.rand(9, *SHAPE), tv_tensors.Mask(torch.zeros(9, 20, 20))), "got a Mask: masks, boxes, keypoints"),
        ({"img": torch.rand(9, *SHAPE), "nothing_else": 3}, "could not tell where the labels are"),
        ((torch.rand(9, *SHAPE), "not_a_tensor"), "could not tell where the labels are in the sample"),
        ((torch.rand(9, *SHAPE), torch.randint(0, 2, (9, 3))), r"must have a column a class, got \(9, 3\) for 100"),
        ((torch.rand(9, *SHAPE), torch.arange(10)), "one label for each image, got 9 images and 10 labels"),
    ],
)  # fmt: skip
def test_error(bank, sample, text):
    with pytest.raises(InputError, match=f"GenMix: .*{text}"):
        GenMix(bank)(*sample) if isinstance(sample, tuple) else GenMix(bank)(sample)
