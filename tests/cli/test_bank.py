"""``genmix bank``."""

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from genmix_transforms import SyntheticBank
from genmix_transforms.bank import Flag
from genmix_transforms.bank.decisions import Decisions
from genmix_transforms.bank.manifest import read_manifest
from genmix_transforms.data import LesionPhantom, open_dataset

Genmix = Callable[..., Any]


@pytest.fixture
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    """``phantom`` has 63 lesions: the 1,290 that it is made of otherwise take many seconds to draw."""
    small = partial(LesionPhantom, train=(20, 10, 15), val=(3, 3, 3), test=(3, 3, 3))
    monkeypatch.setattr("genmix_transforms.data.phantom.LesionPhantom", small)


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


def test_info_fails_where_a_shard_is_missing(genmix: Genmix, bank: Path) -> None:
    (bank / "bank-00000.safetensors").unlink()
    outcome = genmix("bank", "info", bank)
    assert outcome.code == 1
    assert "5 images" in outcome.out
    assert outcome.err == (
        f"genmix: {bank}: bank-00000.safetensors: no such file; fill the bank again, or take it from its copy\n"
    )
    outcome = genmix("bank", "info", bank, "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["shards_missing"] == ["bank-00000.safetensors"]


def test_info_for_programs(genmix: Genmix, bank: Path) -> None:
    found = json.loads(genmix("bank", "info", bank, "--json").out)
    assert found["class_counts"] == {"cyst": 3, "metastasis": 2}
    assert found["labels"] == "index"
    assert (found["images"], found["shape"], found["dtype"]) == (5, [1, 16, 16], "uint8")
    assert (found["shards"], found["shards_missing"], found["shards_to_come"]) == (1, [], 0)
    assert found["sources"][0]["generator"]["kind"] == "dcgan"


def test_info_counts_what_is_flagged_and_reviewed(genmix: Genmix, bank: Path) -> None:
    assert not {"marked", "reviewed"} & set(genmix("bank", "info", bank).out.replace(":", "").split())
    decisions = Decisions(bank, read_manifest(bank))
    decisions.decide("bank-00000.safetensors", 0, "rejected")
    decisions.decide("bank-00000.safetensors", 4, "accepted")
    out = genmix("bank", "info", bank).out
    assert "  marked: rejected 1\n  reviewed: accepted 1, rejected 1, open 3\n" in out
    found = json.loads(genmix("bank", "info", bank, "--json").out)
    assert found["flags"] == {"rejected": 1}
    assert found["decisions"] == {"accepted": 1, "rejected": 1, "open": 3}


def test_info_says_what_it_can_of_a_bank_that_is_damaged(genmix: Genmix, bank: Path) -> None:
    (bank / "bank-00000.safetensors").write_bytes(b"x")
    outcome = genmix("bank", "info", bank)
    assert outcome.code == 1
    assert "5 images" in outcome.out
    assert "bank-00000.safetensors: 1 bytes, the manifest says" in outcome.err


def test_verify_for_programs(genmix: Genmix, bank: Path) -> None:
    found = json.loads(genmix("-q", "bank", "verify", bank, "--json").out)
    assert found == {"whole": True, "images": 5, "shards": 1, "generation": 1}


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


# Banks made of others


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Of another list of classes, with distances and flags."""
    images = torch.full((4, 1, 16, 16), 7, dtype=torch.uint8)
    SyntheticBank(
        images,
        torch.tensor([0, 0, 1, 1]),
        classes=["metastasis", "normal"],
        distance=torch.tensor([0.01, 0.2, 0.3, 0.4]),
        flags=torch.tensor([0, 1, 4, 16], dtype=torch.uint8),
        provenance={"by": "hand"},
    ).save(tmp_path / "other")
    return tmp_path / "other"


def test_merge(genmix: Genmix, bank: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    done = genmix("bank", "merge", bank, other, "--out", out)
    assert done.code == 0
    assert f"{out}: 9 images, 1 x 16 x 16, torch.uint8, cpu; cyst 3, metastasis 4, normal 2" in done.out
    assert f"look at it: genmix bank sheet {out} --out both.png" in done.out
    assert "9/9" in done.err
    again = genmix("-q", "bank", "merge", bank, other, "--out", out)
    assert (again.code, again.out, again.err) == (0, done.out, "")
    merged = SyntheticBank.load(out)
    assert merged.sources[1] == {"by": "hand"}
    assert genmix("bank", "verify", out).code == 0


def test_merge_with_the_classes_in_an_order(genmix: Genmix, bank: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    assert genmix("bank", "merge", bank, other, "--out", out, "--classes", "normal, metastasis,cyst").code == 0
    assert SyntheticBank.load(out).class_counts == {"normal": 2, "metastasis": 4, "cyst": 3}
    refused = genmix("bank", "merge", bank, other, "--out", out)
    assert refused.code == 2
    assert refused.err.startswith(f"genmix: {out}: holds a bank that was not merged from these, as they are now; give")
    assert genmix("bank", "merge", bank, other, "--out", out, "--overwrite").code == 0
    assert SyntheticBank.load(out).classes == ("cyst", "metastasis", "normal")


def test_a_share_of_a_merger(
    genmix: Genmix, bank: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, said in ((1, "1 of 2 shards are still to come from others"), (0, "9 images")):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = genmix("bank", "merge", bank, other, "--out", tmp_path / "both")
        assert done.code == 0
        assert said in done.out
    alone = genmix("bank", "merge", bank, other, "--out", tmp_path / "alone", "--share", "0/1")
    assert "9 images" in alone.out


def test_what_is_not_merged(genmix: Genmix, bank: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    for arguments, code, message in (
        ((bank, bank), 2, "is given twice"),
        ((bank, tmp_path / "nowhere"), 2, "nowhere: no such bank"),
        ((bank, other, "--classes", "cyst"), 2, "which is not among the classes given"),
    ):
        refused = genmix("bank", "merge", *arguments, "--out", out)
        assert refused.code == code
        assert message in refused.err
    shard = other / "bank-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-20] ^= 4
    shard.write_bytes(content)
    for command in (("merge", bank, other), ("select", other, "--classes", "normal")):
        corrupt = genmix("-q", "bank", *command, "--out", out)
        assert corrupt.code == 1
        assert "bank-00000.safetensors: not the bytes that were written" in corrupt.err


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--classes", "normal"], [0.3, 0.4]),
        (["--min-distance", 0.1], [0.2, 0.3, 0.4]),
        (["--min-distance", 0.1, "--max-distance", 0.35], [0.2, 0.3]),
        (["--flags", "near_copy,rejected"], [0.2, 0.3]),
        (["--without-flags", "rejected, user_1"], [0.01, 0.2]),
        (["--without-flags", "NEAR_COPY", "--classes", "metastasis"], [0.01]),
    ],
    ids=str,
)
def test_select(genmix: Genmix, other: Path, tmp_path: Path, options: list[Any], kept: list[float]) -> None:
    done = genmix("bank", "select", other, *options, "--out", tmp_path / "chosen")
    assert done.code == 0
    assert f"{tmp_path / 'chosen'}: {len(kept)} images" in done.out
    chosen = SyntheticBank.load(tmp_path / "chosen")
    assert chosen.distance.tolist() == pytest.approx(kept)
    assert chosen.classes == ("metastasis", "normal")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "select: say which images: give at least one of"),
        (
            ["--flags", "bad"],
            "--flags: there are the flags near_copy, duplicate, rejected, outlier, user_1, .*; not bad",
        ),
        (["--classes", "liver"], "the bank's classes are metastasis, normal; not liver"),
        (["--min-distance", 9], "no image meets all of these conditions"),
        (["--max-distance", -1], "max_distance must be a number, at least 0, got -1"),
    ],
    ids=str,
)
def test_what_is_not_selected(genmix: Genmix, other: Path, tmp_path: Path, options: list[Any], message: str) -> None:
    refused = genmix("bank", "select", other, *options, "--out", tmp_path / "chosen")
    assert refused.code == 2
    assert re.search(message, refused.err)
    assert not (tmp_path / "chosen").exists()


def test_select_by_confidence(genmix: Genmix, other: Path, tmp_path: Path) -> None:
    from genmix_transforms.evaluation.audit.labels import bank_key

    images = len(SyntheticBank.load(other))
    sure = [number / images for number in range(images)]
    content = {"bank": bank_key(SyntheticBank.load(other)), "confidence": sure}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    options = ["--min-confidence", 0.5, "--confidence", tmp_path / "labels.json", "--out", tmp_path / "chosen"]
    assert genmix("bank", "select", other, *options).code == 0
    assert len(SyntheticBank.load(tmp_path / "chosen")) == sum(value >= 0.5 for value in sure)
    alone = genmix("bank", "select", other, "--min-confidence", 0.5, "--out", tmp_path / "none")
    assert alone.code == 2
    assert "give --min-confidence and --confidence FILE together" in alone.err


def test_what_is_there_is_not_replaced_unasked(genmix: Genmix, bank: Path, other: Path) -> None:
    refused = genmix("bank", "select", other, "--classes", "normal", "--out", bank)
    assert refused.code == 2
    assert "holds a bank already" in refused.err
    assert genmix("bank", "select", other, "--classes", "normal", "--out", bank, "--overwrite").code == 0
    assert len(SyntheticBank.load(bank)) == 2


# Out


def test_export_to_png_and_back(genmix: Genmix, bank: Path, tmp_path: Path) -> None:
    assert genmix("bank", "export", bank, "--out", tmp_path / "png").code == 0
    before, after = SyntheticBank.load(bank), SyntheticBank.from_folder(tmp_path / "png")
    assert torch.equal(after.images, before.images)
    refused = genmix("bank", "export", bank, "--out", tmp_path / "png")
    assert refused.code == 2


@pytest.mark.usefixtures("small_phantom")
def test_check_finds_copies_and_marks_them(genmix: Genmix, tmp_path: Path) -> None:
    train = open_dataset("phantom", size=32).split()[0]
    others = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copies = torch.cat([train.images[:2].roll(2, -1), others])
    SyntheticBank(copies, torch.tensor([0, 0, 1, 1]), classes=train.classes).save(tmp_path / "bank")
    assert "marked" not in genmix("bank", "info", tmp_path / "bank").out
    arguments = ("bank", "check", tmp_path / "bank", "--data", "phantom")
    outcome = genmix(*arguments, "--out", tmp_path / "marked")
    assert outcome.code == 0
    assert "2 of 4 images are nearer to a training image" in outcome.out
    marked = SyntheticBank.load(tmp_path / "marked")
    assert marked.flags.tolist() == [int(Flag.NEAR_COPY)] * 2 + [0, 0]
    assert bool((marked.distance[2:] > marked.distance[:2].max()).all())
    assert "marked: near_copy 2\n" in genmix("bank", "info", tmp_path / "marked").out
    assert json.loads(genmix("bank", "info", tmp_path / "marked", "--json").out)["flags"]["near_copy"] == 2
    assert len(SyntheticBank.load(tmp_path / "marked", exclude="copies")) == 2
    assert genmix(*arguments, "--out", tmp_path / "marked").code == 2  # holds a bank already
    outcome = genmix(*arguments, "--share", 2)
    assert outcome.code == 2
    assert "share must be at least 0 and below 1" in outcome.err


@pytest.mark.usefixtures("small_phantom")
def test_check_for_programs(genmix: Genmix, tmp_path: Path) -> None:
    train = open_dataset("phantom", size=16).split()[0]
    SyntheticBank(train.images[:2], train.labels[:2], classes=train.classes).save(tmp_path / "bank")
    outcome = genmix("bank", "check", tmp_path / "bank", "--data", "phantom", "--json")
    found = json.loads(outcome.out)
    assert (found["images"], found["near_copies"]) == (2, 2)
    assert "as the source is split" in outcome.err


@pytest.mark.usefixtures("small_phantom")
def test_label_gives_a_bank_the_classes_of_labeled_images(genmix: Genmix, tmp_path: Path) -> None:
    train = open_dataset("phantom", size=16).split()[0]
    raw = SyntheticBank(train.images[:6], torch.zeros(6, dtype=torch.int64), classes=["unlabelled"])
    raw.save(tmp_path / "raw")
    arguments = ("bank", "label", tmp_path / "raw", "--data", "phantom", "--soft", "--out", tmp_path / "labeled")
    assert genmix(*arguments).code == 0
    labeled = SyntheticBank.load(tmp_path / "labeled")
    assert labeled.classes == train.classes
    assert labeled.label_kind == "probabilities"
    assert sorted(map(bytes, labeled.images.numpy())) == sorted(map(bytes, raw.images.numpy()))
    assert genmix(*arguments).code == 2  # holds a bank already
    outcome = genmix(*arguments[:-1], tmp_path / "other", "--per-class", 7)
    assert outcome.code == 2
    assert "label_bank: 7 images of each class were asked for" in outcome.err
    assert not (tmp_path / "other").exists()
