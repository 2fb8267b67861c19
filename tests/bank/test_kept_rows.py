"""Rows kept beside the shards: taken up again by whoever goes on, never by another fill, never when damaged."""

import logging
from pathlib import Path

import pytest
import torch

from genmix_transforms.bank import SyntheticBank, kept_rows
from genmix_transforms.bank.kept_rows import KeptRows
from genmix_transforms.bank.manifest import INDEX, is_bank_file, is_kept_name, kept_name
from genmix_transforms.bank.rows import Rows
from genmix_transforms.errors import InputError, OverwriteError


def rows(*seeds: int) -> Rows:
    images = torch.tensor(seeds, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Rows.complete(images, torch.zeros(len(seeds), dtype=torch.int64), seeds=torch.tensor(seeds))


def kept(folder: Path, *, identity: str = "first", share: tuple[int, int] = (0, 1)) -> KeptRows:
    return KeptRows(folder, identity=identity, classes=["cyst"], share=share)


def seeds(kept: KeptRows) -> list[int]:
    return sorted(seed for rows in kept.load() for seed in rows.seeds.tolist())


def test_what_is_kept_is_found_by_any_share_of_the_same_fill(tmp_path: Path) -> None:
    kept(tmp_path, share=(0, 2)).save(rows(1, 2))
    kept(tmp_path, share=(1, 2)).save(rows(7))
    kept(tmp_path, share=(1, 2)).save(rows(8, 9))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bank.0of2.kept", "bank.1of2.kept"]
    assert seeds(kept(tmp_path)) == [1, 2, 8, 9]
    (loaded, *_) = kept(tmp_path).load()
    assert loaded.masks is None
    for column, given in zip(loaded[:-1], rows(1, 2)[:-1], strict=True):
        assert column.dtype == given.dtype
        assert torch.equal(column.nan_to_num(), given.nan_to_num())
    assert seeds(kept(tmp_path, identity="second")) == []


def test_removed(tmp_path: Path) -> None:
    for rank in range(2):
        kept(tmp_path, share=(rank, 2)).save(rows(rank))
    kept(tmp_path, identity="second").save(rows(5))
    kept(tmp_path, share=(1, 2)).remove(everyones=False)
    kept(tmp_path, share=(1, 2)).remove(everyones=False)
    assert seeds(kept(tmp_path)) == [0]
    kept(tmp_path, share=(1, 2)).remove(everyones=True)
    assert seeds(kept(tmp_path)) == []
    assert seeds(kept(tmp_path, identity="second")) == [5]


def test_kept_again_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(kept_rows.time, "monotonic", lambda: now[0])
    keeper = kept(tmp_path)
    for moment, expected in ((59, []), (61, [61]), (120, [61]), (122, [122])):
        now[0] = moment
        keeper.save_now_and_then(lambda moment=moment: rows(moment))  # type: ignore[misc]
        assert seeds(keeper) == expected


def test_a_damaged_one_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept(tmp_path).save(rows(1))
    kept(tmp_path, share=(0, 2)).save(rows(2))
    content = bytearray((tmp_path / kept_name(0, 1)).read_bytes())
    content[-1] ^= 1
    (tmp_path / kept_name(0, 1)).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert seeds(kept(tmp_path)) == [2]
    assert "bank.0of1.kept: damaged" in caplog.text
    assert "its images are drawn again" in caplog.text


def test_names() -> None:
    assert kept_name(3, 12) == "bank.3of12.kept"
    assert is_kept_name("bank.3of12.kept")
    assert is_bank_file("bank.3of12.kept")
    assert is_bank_file(".bank.3of12.kept.tmp")
    for name in ("bank.3of.kept", "mybank.3of12.kept", "bank.3of12.kept2", "bank.-1of2.kept"):
        assert not is_kept_name(name)


def test_a_bank_is_not_saved_over_it_unasked(tmp_path: Path) -> None:
    kept(tmp_path).save(rows(1))
    bank = SyntheticBank(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), classes=["cyst"])
    with pytest.raises(OverwriteError, match="holds bank.0of1.kept and no bank.index.json: .* a fill that has not"):
        bank.save(tmp_path)
    with pytest.raises(InputError, match="a bank whose first shard is not finished; run the same command again"):
        SyntheticBank.load(tmp_path)
    bank.save(tmp_path, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".lock") == [
        "bank-00000.safetensors",
        INDEX,
    ]
