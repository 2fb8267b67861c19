"""``genmix bank``."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from genmix_transforms import SyntheticBank

Genmix = Callable[..., Any]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 16, 16).contiguous() * 50
    provenance = {
        "generator": {"kind": "dcgan", "weights": "sha256:" + "ab" * 32},
        "training_set": {"class_counts": {"cyst": 30, "metastasis": 20}},
    }
    labels = torch.tensor([0, 0, 0, 1, 1])
    SyntheticBank(images, labels, classes=["cyst", "metastasis"], provenance=provenance).save(tmp_path / "bank")
    return tmp_path / "bank"


def test_info(genmix: Genmix, bank: Path) -> None:
    out = genmix("bank", "info", bank).out
    assert f"{bank}: 5 images, 1 x 16 x 16, uint8" in out
    for line in ("cyst 3", "metastasis 2", "1 shard, generation 1", "drawn by a dcgan generator"):
        assert line in " ".join(out.split())
    assert "trained on cyst 30, metastasis 20" in out


def test_sheet(genmix: Genmix, bank: Path, tmp_path: Path) -> None:
    outcome = genmix("bank", "sheet", bank, "--out", tmp_path / "deep/sheet.png", "--columns", 2)
    assert outcome.code == 0
    picture = Image.open(tmp_path / "deep/sheet.png").convert("L")
    colours = {value for _, value in picture.getcolors() or []}
    assert {150, 200} <= colours  # both metastases are on it
    assert genmix("bank", "sheet", bank, "--out", tmp_path / "s.png", "--columns", 0).code == 2
    for out, message in (("s.jpg", "a picture is a .png file"), ("deep/sheet.png/s.png", "cannot be a folder")):
        outcome = genmix("bank", "sheet", bank, "--out", tmp_path / out)
        assert outcome.code == 2
        assert message in outcome.err


def test_verify_names_the_corrupt_shard(genmix: Genmix, bank: Path) -> None:
    assert genmix("bank", "verify", bank).code == 0
    shard = bank / "bank-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-20] ^= 4
    shard.write_bytes(content)
    outcome = genmix("bank", "verify", bank)
    assert outcome.code == 1
    assert "bank-00000.safetensors (not the bytes that were written)" in outcome.err


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_bank_there(command: str, genmix: Genmix, tmp_path: Path) -> None:
    outcome = genmix("bank", command, tmp_path)
    assert outcome.code == 2
    assert "no bank.index.json: not a bank" in outcome.err


def test_seal_writes_sha256(genmix: Genmix, bank: Path) -> None:
    assert genmix("bank", "seal", bank).code == 0
    manifest = json.loads((bank / "bank.index.json").read_text())
    content = (bank / "bank-00000.safetensors").read_bytes()
    assert manifest["shards"][0]["sha256"] == hashlib.sha256(content).hexdigest()


def test_export_to_png_and_back(genmix: Genmix, bank: Path, tmp_path: Path) -> None:
    assert genmix("bank", "export", bank, "--out", tmp_path / "png").code == 0
    before, after = SyntheticBank.load(bank), SyntheticBank.from_folder(tmp_path / "png")
    assert torch.equal(after.images, before.images)
    refused = genmix("bank", "export", bank, "--out", tmp_path / "png")
    assert refused.code == 2
