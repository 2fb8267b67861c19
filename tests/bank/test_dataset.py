"""A bank as a torch dataset: its own images and labels, read one by one or together, and no others."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.dataset import BankDataset
from genmix_transforms.bank.shares import ExactShares
from genmix_transforms.errors import InputError

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])


class Watched:
    """A bank that notes which images are read."""

    def __init__(self, bank):
        self.bank, self.read = bank, []

    def __len__(self):
        return len(self.bank)

    def __getattr__(self, name):
        assert name != "images", "all images would be read"
        return getattr(self.bank, name)

    def rows(self, index):
        assert index.dtype == torch.int64
        self.read.append(index.tolist())
        return self.bank.rows(index)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 5), (1, 3, 4, 5)])
def test_items_are_the_banks_images_and_labels(make_bank, shape, dtype):
    bank = make_bank(shape=shape, dtype=dtype)
    dataset = BankDataset(bank)
    assert len(dataset) == 7
    for number in range(7):
        image, label = dataset[number]
        assert image.dtype == dtype
        assert image.shape == shape
        assert torch.equal(image, bank.images[number])
        assert type(label) is int
    assert [label for _, label in dataset] == [0, 0, 1, 1, 2, 2, 2]  # a plain loop ends


def test_classes_and_targets(make_bank):
    bank = make_bank()
    dataset = BankDataset(bank)
    assert dataset.classes == ("cyst", "hemangioma", "metastasis")
    assert dataset.targets.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert repr(dataset) == "BankDataset of 7 images (cyst 2, hemangioma 2, metastasis 3)"


def test_probabilities_are_float_rows(pixels):
    bank = SyntheticBank(pixels(3), PROBABILITIES, classes=["a", "b", "c"])
    dataset = BankDataset(bank)
    for number, (_, label) in enumerate(dataset):
        assert label.dtype == torch.float32
        assert torch.equal(label, bank.labels[number])
    assert torch.equal(dataset.targets, PROBABILITIES[[0, 2, 1]])  # by the most probable class
    _, labels = next(iter(DataLoader(dataset, batch_size=3)))
    assert torch.equal(labels, dataset.targets)


def test_the_transform_is_of_one_image_and_leaves_the_label(make_bank):
    bank = make_bank(dtype=torch.uint8, shape=(3, 4, 4))
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.5,) * 3)])
    image, label = BankDataset(bank, transform)[4]
    torch.testing.assert_close(image, bank.images[4] / 127.5 - 1)
    assert label == 2


def test_a_transform_in_place_leaves_the_bank_alone(make_bank):
    bank = make_bank()
    before = bank.images.clone()
    assert all(bool((image == 0).all()) for image, _ in BankDataset(bank, torch.Tensor.zero_))
    assert torch.equal(bank.images, before)


@given(st.lists(st.integers(-7, 6), max_size=12))
def test_together_as_one_by_one(indices):
    bank = SyntheticBank(torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1), torch.arange(7) % 3, classes=list("abc"))
    dataset = BankDataset(bank, transform=lambda image: int(image))
    together = dataset.__getitems__(indices)
    assert together == [dataset[index] for index in indices]
    assert together == [(int(bank.images[index]), int(bank.labels[index])) for index in indices]


def test_indices_of_any_whole_kind(make_bank):
    dataset = BankDataset(make_bank())
    for index in (np.int64(5), torch.tensor(5), -2):
        assert torch.equal(dataset[index][0], dataset[5][0])


def test_only_the_images_asked_for_are_read_in_one_go(make_bank):
    bank = Watched(make_bank())
    dataset = BankDataset(bank)
    dataset[3]
    assert bank.read == [[3]]
    bank.read.clear()
    images, _ = next(iter(DataLoader(Subset(dataset, [6, 0, 2, 4]), batch_size=4)))
    assert bank.read == [[6, 0, 2, 4]]
    assert torch.equal(images, bank.bank.images[[6, 0, 2, 4]])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bank_from_disk_with_workers(make_bank, tmp_path, workers):
    bank = make_bank()
    bank.save(tmp_path / "bank")
    dataset = BankDataset(SyntheticBank.load(tmp_path / "bank", resident=False))
    batches = list(DataLoader(dataset, batch_size=3, num_workers=workers))
    assert not dataset.bank.resident
    assert torch.equal(torch.cat([images for images, _ in batches]), bank.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), bank.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_blended_with_real_images_by_exact_shares(make_bank, workers):
    bank = make_bank(torch.arange(40) % 3)
    real = [(torch.full((1, 4, 4), 200, dtype=torch.uint8), 7) for _ in range(23)]  # a list is a dataset too
    blended = ConcatDataset([real, BankDataset(bank)])
    sampler = ExactShares([len(real), len(bank)], [5, 3], seed=1)
    synthetic = []
    for epoch in range(10):  # 4 batches of 3 an epoch: 120 synthetic images, the bank three times
        sampler.set_epoch(epoch)
        for images, labels in DataLoader(blended, batch_sampler=sampler, num_workers=workers):
            assert labels[:5].tolist() == [7] * 5
            assert bool((images[:5] == 200).all())
            synthetic.append(images[5:])
        if workers and epoch == 1:
            return
    pixels = sorted(map(bytes, torch.cat(synthetic).numpy()))
    assert pixels == sorted(3 * list(map(bytes, bank.images.numpy())))


def test_an_empty_bank(pixels):
    dataset = BankDataset(SyntheticBank(pixels(0), torch.tensor([]).long(), classes=["a"]))
    assert len(dataset) == 0
    assert list(dataset) == []


# Bad input


@pytest.mark.parametrize("bank", ["banks/mine", None, torch.zeros(3, 1, 4, 4), TensorDataset(torch.zeros(1))])
def test_no_bank(bank):
    with pytest.raises(InputError, match=r"bank must be a SyntheticBank, got \w+; open a saved one"):
        BankDataset(bank)


def test_a_bank_on_an_accelerator(make_bank):
    with pytest.raises(InputError, match="the bank is on meta, where a DataLoader's workers cannot read it"):
        BankDataset(make_bank().to("meta"))  # no CPU, as a GPU is not


def test_a_transform_that_is_none(make_bank):
    with pytest.raises(InputError, match="transform must be a function of one image, or None, got str"):
        BankDataset(make_bank(), transform="flip")


@pytest.mark.parametrize("index", [7, -8, 2**40])
def test_no_such_image(make_bank, index):
    with pytest.raises(IndexError, match=f"BankDataset: image {index} of 7"):
        BankDataset(make_bank())[index]


def test_an_index_that_is_no_whole_number(make_bank):
    with pytest.raises(TypeError, match="integer"):
        BankDataset(make_bank())[1.5]
