"""Banks that an earlier release wrote: they open, they can be added to, and today's files are the same to the bit.

The folders of ``written_before/`` were written by the first release with this format; each holds six images of noise.
"""

import shutil
from pathlib import Path

import pytest
import torch

from genmix_transforms.bank import BankWriter, SyntheticBank
from genmix_transforms.bank.merging import merge_banks
from genmix_transforms.bank.opening import verify_bank

FOLDER = Path(__file__).parent / "written_before"
CLASSES = ("cyst", "hemangioma", "metastasis")
SOURCES = ({"generator": {"kind": "dcgan", "weights": "0" * 64, "config": {"a": 1}}, "seed": 3}, {"source": "npz"})
LABELS = torch.tensor([1, 0, 1, 2, 0, 1])
KINDS = {
    "uint8": {"image_shape": (1, 4, 4), "shard_bytes": 64},
    "uint16": {
        "image_shape": (1, 4, 4),
        "pixel_dtype": torch.uint16,
        "labels": "probabilities",
        "window": (-100.0, 200.0),
        "shard_bytes": 96,
    },
}


def content(kind):
    """What the banks were made of."""
    high, dtype, seed = (256, torch.uint8, 0) if kind == "uint8" else (65536, torch.uint16, 1)
    noise = torch.Generator().manual_seed(seed)
    images = torch.randint(0, high, (6, 1, 4, 4), generator=noise, dtype=torch.int32).to(dtype)
    labels = LABELS if kind == "uint8" else torch.softmax(torch.arange(18.0).reshape(6, 3) % 7, 1)
    columns = {
        "seeds": torch.arange(6) + 2**32,
        "distance": torch.tensor([0.5, 0.25, torch.nan, 1.0, 2.0, 3.0]),
        "flags": torch.tensor([0, 1, 2, 4, 0, 128], dtype=torch.uint8),
        "source": torch.tensor([0, 1, 0, 1, 0, 1], dtype=torch.int32),
    }
    return images, labels, columns


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("resident", [True, False])
def test_it_opens(kind, resident):
    images, labels, columns = content(kind)
    assert verify_bank(FOLDER / kind).count == 6
    bank = SyntheticBank.load(FOLDER / kind, verify=True, resident=resident)
    order = torch.argsort(labels if labels.ndim == 1 else labels.argmax(1), stable=True)
    assert torch.equal(bank.images, images.view(torch.uint8)[order].view(images.dtype))
    assert torch.equal(bank.labels, labels[order])
    for name, column in columns.items():
        torch.testing.assert_close(getattr(bank, name), column[order], rtol=0, atol=0, equal_nan=True)
    assert (bank.classes, bank.sources, bank.window) == (CLASSES, SOURCES, KINDS[kind].get("window"))


def test_the_same_images_give_the_same_files(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1780000000")
    images, labels, columns = content(kind)
    with BankWriter(tmp_path / "bank", classes=CLASSES, provenance=SOURCES, **KINDS[kind]) as writer:
        writer.add(images, labels, **columns)
    for path in (FOLDER / kind).iterdir():
        assert (tmp_path / "bank" / path.name).read_bytes() == path.read_bytes(), path.name


def test_it_can_be_added_to_and_merged(kind, tmp_path):
    images, labels, _ = content(kind)
    shutil.copytree(FOLDER / kind, tmp_path / "bank")
    with BankWriter(tmp_path / "bank", classes=CLASSES, append=True, **KINDS[kind]) as writer:
        writer.add(images, labels)
    assert verify_bank(tmp_path / "bank").count == 12
    other = SyntheticBank(images, labels, classes=CLASSES, window=KINDS[kind].get("window"))
    other.save(tmp_path / "other")
    assert len(merge_banks([FOLDER / kind, tmp_path / "other"], out=tmp_path / "both", progress=False)) == 12
