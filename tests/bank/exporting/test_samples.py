"""What all three exports have in common: the rows, their order, and which images they refuse."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import samples
from genmix_transforms.errors import InputError
from tests.bank.exporting.other_readers import EXPORTS, contents


@pytest.mark.parametrize("export", EXPORTS)
def test_equal_banks_give_equal_bytes(full_bank, tmp_path, export, monkeypatch):
    export(full_bank(), tmp_path / "one")
    monkeypatch.setattr(samples, "_PIECE_BYTES", 41)  # two images a piece
    export(full_bank(), tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize("export", EXPORTS[1:])
def test_another_seed_is_another_order_of_the_same(full_bank, tmp_path, export):
    export(full_bank(), tmp_path / "one")
    export(full_bank(), tmp_path / "other", seed=1)
    assert contents(tmp_path / "one") != contents(tmp_path / "other")
    with pytest.raises(InputError, match="seed must be a whole number"):
        export(full_bank(), tmp_path / "third", seed=-1)


@pytest.mark.parametrize("export", EXPORTS)
def test_a_bank_on_disk_is_not_brought_into_memory(full_bank, tmp_path, export):
    bank = full_bank()
    bank.save(tmp_path / "bank")
    on_disk = SyntheticBank.load(tmp_path / "bank", resident=False)
    export(on_disk, tmp_path / "from-disk")
    assert not on_disk.resident
    export(bank, tmp_path / "from-memory")
    assert contents(tmp_path / "from-disk") == contents(tmp_path / "from-memory")


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 2, 4, 4), torch.uint8, r"images of shape \(1, 2, 4, 4\) are no pictures, .*volumes are not exported"),
        ((1, 4), torch.uint8, "are no pictures"),
        ((2, 4, 4), torch.uint8, r"1 \(gray\) or 3 \(color\) channels, the bank has 2"),
        ((3, 4, 4), torch.uint16, "color images of 16 bits"),
    ],
)
def test_images_that_png_files_do_not_hold(make_bank, tmp_path, export, shape, dtype, message):
    bank = make_bank(shape=shape, dtype=dtype)
    with pytest.raises(InputError, match=message):
        export(bank, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("export", EXPORTS)
def test_an_empty_bank_is_not_exported(make_bank, tmp_path, export):
    bank = make_bank(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match="no images; fill it first"):
        export(bank, tmp_path / "out")
