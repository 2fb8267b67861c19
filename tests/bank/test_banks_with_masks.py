"""Banks with masks: whatever becomes of an image becomes of its mask, in memory, on disk and in every export.

An image's pixels are its mask's, times 50: so a mask tells whose it is.
"""

import csv
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genmix_transforms.bank import BankWriter, SyntheticBank, bank_card, manifest, merge_banks
from genmix_transforms.bank import shard as shard_files
from genmix_transforms.bank.exporting import export_parquet, export_png, export_webdataset
from genmix_transforms.bank.opening import verify_bank
from genmix_transforms.errors import CorruptFileError, InputError

CLASSES = ("cyst", "hemangioma", "metastasis")
NAMES = ("background", "liver", "lesion")


def masked_bank(count=11, *, seed=0, spatial=(4, 4), mask_classes=NAMES, **options):
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(3, (count, *spatial), generator=random, dtype=torch.uint8)
    labels = torch.randint(3, (count,), generator=random)
    return SyntheticBank(
        masks.unsqueeze(1) * 50, labels, classes=CLASSES, masks=masks, mask_classes=mask_classes, **options
    )


def check_belong(bank):
    """Every mask is its image's."""
    assert bank.masks.dtype == torch.uint8
    assert torch.equal(bank.masks.unsqueeze(1) * 50, bank.images)
    numbers = torch.arange(len(bank)).flip(0)
    assert torch.equal(bank.mask_rows(numbers).unsqueeze(1) * 50, bank.rows(numbers))


@pytest.fixture
def small_shards(monkeypatch):
    """Three images a shard."""
    monkeypatch.setattr(shard_files, "SHARD_BYTES", 48)


@pytest.fixture
def folder(tmp_path, small_shards):
    masked_bank().save(tmp_path / "bank")
    assert len(list((tmp_path / "bank").glob("*.safetensors"))) == 4
    return tmp_path / "bank"


def refused_by_older_releases(folder):
    """What a release that knows no masks compares with its one version, the whole number 2."""
    version = json.loads((folder / manifest.INDEX).read_text())["format_version"]
    return type(version) is not int or version != 2


# In memory


@pytest.mark.parametrize("spatial", [(4, 4), (5,), (2, 3, 4)])
def test_masks_are_sorted_with_their_images(spatial):
    bank = masked_bank(spatial=spatial)
    check_belong(bank)
    assert bank.mask_classes == NAMES
    assert "masks (background, liver, lesion)" in repr(bank)


def test_without_names_the_classes_are_numbers():
    assert masked_bank(mask_classes=None).mask_classes == ("0", "1", "2")
    empty = torch.zeros(2, 4, 4, dtype=torch.uint8)
    bank = SyntheticBank(empty.unsqueeze(1), torch.tensor([0, 1]), classes=("a", "b"), masks=empty)
    assert bank.mask_classes == ("0", "1")


def test_a_bank_without_masks_has_none():
    bank = masked_bank().replace(masks=None)
    assert (bank.masks, bank.mask_classes) == (None, None)
    assert "masks" not in repr(bank)
    with pytest.raises(InputError, match="mask_rows: the bank has no masks; make one with SyntheticBank"):
        bank.mask_rows(torch.tensor([0]))


def test_masks_can_be_given_later():
    bank = masked_bank().replace(masks=None)
    again = bank.replace(masks=(bank.images[:, 0] // 50), mask_classes=NAMES)
    check_belong(again)


CHOICES = {
    "select": lambda bank: bank.select(classes=["cyst", "metastasis"]),
    "drop": lambda bank: bank.drop(index=[0, 4]),
    "subsample": lambda bank: bank.subsample(5, seed=1),
    "balance": lambda bank: bank.balance(1, seed=1),
    "take": lambda bank: bank.take(torch.tensor([3, 3, 0])),
    "with_classes": lambda bank: bank.with_classes(("metastasis", "normal", "cyst", "hemangioma")),
    "select, with_classes": lambda bank: bank.drop(index=[1]).with_classes(("metastasis", "cyst", "hemangioma")),
}


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("name", CHOICES)
def test_chosen_images_keep_their_masks(folder, name, resident):
    expected = CHOICES[name](masked_bank())
    chosen = CHOICES[name](SyntheticBank.load(folder, resident=resident))
    check_belong(chosen)
    assert (len(chosen), chosen.resident, chosen.mask_classes) == (len(expected), resident, NAMES)
    assert torch.equal(chosen.masks, expected.masks)


# On disk


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("options", [{}, {"limit": 5}, {"shard": (1, 2)}, {"classes": CLASSES[::-1]}], ids=str)
def test_masks_come_back(folder, options, resident):
    bank = SyntheticBank.load(folder, resident=resident, verify=True, **options)
    check_belong(bank)
    assert bank.mask_classes == NAMES
    assert verify_bank(folder).mask_classes == NAMES


def test_an_empty_bank_with_masks(tmp_path):
    masked_bank(0).save(tmp_path / "bank")
    for resident in (True, False):
        bank = SyntheticBank.load(tmp_path / "bank", resident=resident)
        assert (tuple(bank.masks.shape), bank.mask_classes) == ((0, 4, 4), NAMES)
        assert tuple(bank.mask_rows(torch.zeros(0, dtype=torch.int64)).shape) == (0, 4, 4)


def test_older_releases_refuse_masks_and_read_all_other_banks(folder, tmp_path):
    assert refused_by_older_releases(folder)
    SyntheticBank.load(folder).replace(masks=None).save(tmp_path / "plain")
    content = json.loads((tmp_path / "plain" / manifest.INDEX).read_text())
    assert not refused_by_older_releases(tmp_path / "plain")
    assert "mask_classes" not in content
    tensors = load_file(tmp_path / "plain" / content["shards"][0]["file"])
    assert sorted(tensors) == ["distance", "flags", "images", "labels", "seeds", "source"]


def test_shards_are_what_the_format_says(folder):
    content = json.loads((folder / manifest.INDEX).read_text())
    assert (content["format_version"], content["mask_classes"]) == ("2.1", list(NAMES))
    tensors = load_file(folder / content["shards"][0]["file"])
    assert (tensors["masks"].dtype, tuple(tensors["masks"].shape)) == (torch.uint8, (3, 4, 4))


def test_appended_images_bring_masks(folder):
    more = masked_bank(4, seed=1)
    options = {"classes": CLASSES, "image_shape": (1, 4, 4), "append": True}
    with BankWriter(folder, mask_classes=NAMES, **options) as writer:
        writer.add(more.images, more.labels, masks=more.masks)
    bank = SyntheticBank.load(folder)
    assert len(bank) == 15
    check_belong(bank)
    with pytest.raises(InputError, match=r"the bank's mask_classes are \('background', .*to be added has None"):
        BankWriter(folder, **options).__enter__()


def test_a_live_bank_finds_new_masks(folder):
    bank, more = SyntheticBank.load(folder, resident=False), masked_bank(4, seed=1)
    with BankWriter(folder, classes=CLASSES, image_shape=(1, 4, 4), mask_classes=NAMES, append=True) as writer:
        writer.add(more.images, more.labels, masks=more.masks)
    assert bank.refresh() == 4
    check_belong(bank)


def test_another_bank_in_its_place_is_no_news(folder):
    bank = SyntheticBank.load(folder)
    SyntheticBank.load(folder).replace(masks=None).save(folder, overwrite=True)
    with pytest.raises(InputError, match="refresh: .*holds another bank now: images, labels, classes and masks"):
        bank.refresh()


@pytest.mark.parametrize("given", [{"masks": None}, {"mask_classes": None}])
def test_every_image_has_a_mask_or_none_has(tmp_path, given):
    bank = masked_bank()
    options = {"masks": bank.masks, "mask_classes": NAMES, **given}
    names = options.pop("mask_classes")
    writer = BankWriter(tmp_path / "bank", classes=CLASSES, image_shape=(1, 4, 4), mask_classes=names)
    with writer, pytest.raises(InputError, match="every image of a bank has a mask, or none has"):
        writer.add(bank.images, bank.labels, **options)


def test_masks_of_a_class_that_the_manifest_does_not_have_are_found(folder):
    path = folder / manifest.INDEX
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "mask_classes": ["background", "lesion"]}))
    with pytest.raises(CorruptFileError, match="with masks of a class that the manifest does not have"):
        verify_bank(folder)


# Merging


def test_merged_in_memory_and_on_disk(folder, tmp_path):
    other = masked_bank(6, seed=5)
    other.save(tmp_path / "other")
    both = SyntheticBank.load(folder).merge(other)
    check_belong(both)
    on_disk = merge_banks([folder, tmp_path / "other"], out=tmp_path / "both", progress=False)
    check_belong(on_disk)
    assert (len(both), both.mask_classes, on_disk.mask_classes) == (17, NAMES, NAMES)
    assert torch.equal(on_disk.masks, both.masks)


@pytest.mark.parametrize("names", [None, ("background", "vessel", "lesion")])
def test_other_mask_classes_are_not_merged(folder, tmp_path, names):
    other = masked_bank(6, seed=5)
    other = other.replace(masks=None) if names is None else other.replace(mask_classes=names)
    other.save(tmp_path / "other")
    with pytest.raises(InputError, match=r"cannot be merged.*mask classes \('background', 'liver', 'lesion'\) and"):
        SyntheticBank.load(folder).merge(other)
    with pytest.raises(InputError, match="cannot be merged.*mask classes"):
        merge_banks([folder, tmp_path / "other"], out=tmp_path / "both", progress=False)
    assert not (tmp_path / "both").exists()


# Exports


def gray(file):
    """The gray levels of a picture."""
    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture))


def test_png_files(tmp_path):
    bank = masked_bank(spatial=(5, 4))
    for _ in range(2):
        export_png(bank, tmp_path / "png", overwrite=True)
    again = SyntheticBank.from_folder(tmp_path / "png/images")
    assert torch.equal(again.images, bank.images)
    with open(tmp_path / "png/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["file_name", "mask", "label"]
    for number, row in enumerate(rows):
        assert torch.equal(gray(tmp_path / "png" / row["mask"]), bank.masks[number])
        assert torch.equal(gray(tmp_path / "png" / row["file_name"]), bank.images[number, 0])
    assert json.loads((tmp_path / "png/dataset_info.json").read_text())["mask_classes"] == list(NAMES)


def test_tar_shards(tmp_path):
    bank = masked_bank(spatial=(5, 4))
    export_webdataset(bank, tmp_path / "tar", images_per_shard=4)
    found = {}
    for path in (tmp_path / "tar").glob("*.tar"):
        with tarfile.open(path) as shard:
            for name in shard.getnames():
                if name.endswith(".mask.png"):
                    found[int(name.split(".")[0])] = gray(shard.extractfile(name))
    assert torch.equal(torch.stack([found[number] for number in range(len(bank))]), bank.masks)


def test_parquet_files(tmp_path):
    datasets = pytest.importorskip("datasets")
    bank = masked_bank(spatial=(5, 4))
    export_parquet(bank, tmp_path / "parquet", seed=None)
    data = datasets.load_dataset("parquet", data_dir=str(tmp_path / "parquet"), cache_dir=str(tmp_path / "cache"))[
        "train"
    ]
    assert isinstance(data.features["mask"], datasets.Image)
    masks = [torch.from_numpy(np.array(record["mask"])) for record in data]
    assert torch.equal(torch.stack(masks), bank.masks)


def test_the_card_names_the_mask_classes():
    assert "- Masks: one an image, of the classes background, liver, lesion" in bank_card(masked_bank())


@pytest.mark.parametrize("spatial", [(4, 4), (5, 3)])
def test_an_export_of_png_files_is_read_again(tmp_path, spatial):
    bank = masked_bank(spatial=spatial)
    export_png(bank, tmp_path / "png")
    again = SyntheticBank.from_folder(tmp_path / "png", masks=True)
    check_belong(again)
    assert torch.equal(again.images, bank.images)
    assert (again.classes, again.mask_classes) == (bank.classes, NAMES)
    assert SyntheticBank.from_folder(tmp_path / "png").replace(masks=bank.masks, mask_classes=NAMES).classes == CLASSES
