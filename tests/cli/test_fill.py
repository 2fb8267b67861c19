"""``genmix fill``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from genmix_transforms import SyntheticBank
from genmix_transforms.generators import ADM

Genmix = Callable[..., Any]


@pytest.fixture
def run(genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path) -> Path:
    out = tmp_path / "run"
    assert genmix("-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", out, *tiny_options).code == 0
    return out


def test_as_many_as_it_was_trained_on(genmix: Genmix, run: Path, tmp_path: Path) -> None:
    outcome = genmix("-q", "fill", run, "--out", tmp_path / "bank", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert SyntheticBank.load(tmp_path / "bank").class_counts == {"bright": 12, "dark": 12}
    assert f"genmix bank sheet {tmp_path / 'bank'}" in outcome.out


def test_counts_match_and_balance(genmix: Genmix, run: Path, discs: Path, tmp_path: Path) -> None:
    for name, options, expected in (
        ("counts", ["--counts", "bright=3, dark=5"], {"bright": 3, "dark": 5}),
        ("balance", ["--counts", "bright=3,dark=5", "--balance"], {"bright": 2, "dark": 0}),
        ("match", ["--match", discs, "--split-seed", 2], {"bright": 12, "dark": 12}),
    ):
        outcome = genmix("-q", "fill", run, "--out", tmp_path / name, "--device", "cpu", *options)
        assert outcome.code == 0, outcome.err
        assert SyntheticBank.load(tmp_path / name).class_counts == expected


def test_soft_labels(genmix: Genmix, run: Path, tmp_path: Path) -> None:
    command = ["fill", run, "--out", tmp_path / "bank", "--counts", "bright=3,dark=5", "--soft", 2, "--device", "cpu"]
    plan = genmix("-q", *command, "--dry-run")
    assert "8 images (bright 3, dark 5) with soft labels in 1 shard" in plan.out
    outcome = genmix("-q", *command)
    assert outcome.code == 0, outcome.err
    assert "torch.uint8, soft labels, cpu; bright 3, dark 5" in outcome.out
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.class_counts == {"bright": 3, "dark": 5}
    assert bank.label_kind == "probabilities"
    info = genmix("bank", "info", tmp_path / "bank").out
    assert "soft labels: weights of the classes; an image counts for the class with the largest" in info


def test_again_seed_and_overwrite(genmix: Genmix, run: Path, tmp_path: Path) -> None:
    command = ["-q", "fill", run, "--out", tmp_path / "bank", "--device", "cpu"]
    assert genmix(*command).code == 0
    assert genmix(*command).code == 0
    refused = genmix(*command, "--seed", 1)
    assert refused.code == 2
    assert "another seed; give another folder, append, or overwrite" in refused.err
    assert genmix(*command, "--seed", 1, "--overwrite").code == 0
    assert int(SyntheticBank.load(tmp_path / "bank").seeds[0]) == 2**32


def test_a_share_of_the_work_is_done_and_said(
    genmix: Genmix, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["-q", "fill", run, "--out", tmp_path / "bank", "--counts", "bright=100,dark=100", "--device", "cpu"]
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    first = genmix(*command)
    assert first.code == 0
    assert "2 of 4 shards are still to come from others" in first.out
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert genmix(*command).code == 0
    assert len(SyntheticBank.load(tmp_path / "bank")) == 200
    command[command.index(tmp_path / "bank")] = tmp_path / "alone"
    assert genmix(*command, "--share", "0/1").code == 0
    assert len(SyntheticBank.load(tmp_path / "alone")) == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--counts", "bright"], "expected name=number, separated by commas, got 'bright'"),
        (["--counts", "bright=-3"], "expected name=number"),
        (["--counts", "cyst=3"], "it cannot draw cyst"),
        (["--counts", "bright=3", "--match", "phantom"], "give --match or --counts, not both"),
        (["--set", "steps"], "--set: expected NAME=VALUE, such as steps=50, got 'steps'"),
        (["--set", "=2"], "expected NAME=VALUE"),
        (["--set", "steps=2"], "a dcgan draws in one pass and has no sampler"),
        (["--licence", "ask me"], "licence must be a short identifier, such as 'cc-by-4.0', got 'ask me'"),
        (["--append", "--overwrite"], "append and overwrite exclude each other"),
        (["--match", "phantom", "--split", "gone.csv"], "--split gone.csv: no such file; genmix split DATA --out"),
        (["--share", "1"], "--share: expected RANK/COUNT, such as 0/1 for all shards, got '1'"),
        (["--share", "2/2"], "share: rank must be a whole number, from 0 to 1, got 2"),
        (["--seed", "-4"], "seed must be a whole number, from 0 to"),
        (["--soft", "0.5"], "soft must be a number from 1 to 1,000,000, got 0.5"),
    ],
)
def test_bad_input(options: list[str], message: str, genmix: Genmix, run: Path, tmp_path: Path) -> None:
    outcome = genmix("-q", "fill", run, "--out", tmp_path / "bank", "--device", "cpu", *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--share", "1"],
        ["--seed", "-4"],
        ["--soft", "nan"],
        ["--licence", "ask me"],
        ["--append", "--overwrite"],
        ["--set", "steps"],
        ["--set", "steps=2"],
        ["--device", "nowhere"],
        ["--split", "gone.csv"],
    ],
)
def test_options_are_checked_before_data_is_read(
    options: list[str], genmix: Genmix, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genmix_transforms.data.open_dataset", lambda *_, **__: pytest.fail("the data was read"))
    assert genmix("-q", "fill", run, "--out", tmp_path / "bank", "--match", "phantom", *options).code == 2


def test_a_dry_run_can_be_fed_back(genmix: Genmix, tmp_path: Path) -> None:
    save_adm(tmp_path / "adm")
    command = ["-q", "fill", tmp_path / "adm", "--out", tmp_path / "bank", "--device", "cpu"]
    plan = genmix(*command, "--counts", "bright=70,dark=30", "--set", "steps=2", "--seed", 3, "--dry-run")
    assert plan.code == 0, plan.err
    assert not (tmp_path / "bank").exists()
    assert "# 100 images (bright 70, dark 30) in 2 shards, " in plan.out
    assert "in one process on cpu, from one batch" in plan.out
    (tmp_path / "fill.yaml").write_text(plan.out)
    again = genmix("-q", "fill", "--config", tmp_path / "fill.yaml", "--dry-run")
    assert yaml.safe_load(again.out) == yaml.safe_load(plan.out)
    assert genmix("-q", "fill", "--config", tmp_path / "fill.yaml").code == 0
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.class_counts == {"bright": 70, "dark": 30}
    assert int(bank.seeds.min()) == 3 * 2**32
    assert bank.provenance["generator"]["config"]["sampler"]["steps"] == 2


def test_a_dry_run_finds_what_cannot_be(genmix: Genmix, run: Path, tmp_path: Path) -> None:
    command = ["-q", "fill", run, "--out", tmp_path / "bank", "--device", "cpu", "--dry-run"]
    assert "it cannot draw cyst" in genmix(*command, "--counts", "cyst=3").err
    assert "1,000,000,000,000,000 images would be" in genmix(*command, "--counts", f"bright={10**15}").err
    assert "the bank needs" in genmix(*command, "--counts", f"bright={4 * 10**11}").err


def test_counts_of_a_split_file(genmix: Genmix, run: Path, discs: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    assert genmix("split", discs, "--out", split, "--seed", 4).code == 0
    command = ["-q", "fill", run, "--out", tmp_path / "bank", "--device", "cpu"]
    filled = genmix(*command, "--match", discs, "--split", split)
    assert filled.code == 0, filled.err
    assert f"split as {split} says" in filled.out
    assert len(SyntheticBank.load(tmp_path / "bank")) == 24


def save_adm(folder: Path) -> None:
    flags = {"image_size": 16, "num_channels": 32, "channel_mult": [1], "num_res_blocks": 1, "num_head_channels": 32}
    adm = ADM(
        classes=["bright", "dark"],
        configuration={**flags, "attention_resolutions": [], "class_cond": True, "learn_sigma": True, "channels": 1},
        sampler={"steps": 3},
    )
    adm.save_pretrained(folder)


def test_the_sampler_of_an_adm(genmix: Genmix, tmp_path: Path) -> None:
    save_adm(tmp_path / "adm")
    command = ["-q", "fill", tmp_path / "adm", "--counts", "bright=2,dark=1", "--device", "cpu"]
    assert genmix(*command, "--out", tmp_path / "plain").code == 0
    asked = ["--set", "eta=0.5", "--sampler", "steps = 2", "--set", "precision=bfloat16"]  # --sampler: its older name
    assert genmix(*command, *asked, "--out", tmp_path / "other").code == 0
    plain, other = (SyntheticBank.load(tmp_path / name) for name in ("plain", "other"))
    assert plain.provenance["generator"]["config"]["sampler"]["steps"] == 3
    settings = other.provenance["generator"]["config"]["sampler"]
    assert (settings["eta"], settings["steps"], settings["precision"]) == (0.5, 2, "bfloat16")
    assert not torch.equal(plain.images, other.images)
    refused = genmix(*command, "--set", "eta=2", "--out", tmp_path / "none")
    assert refused.code == 2
    assert "eta must be from 0 to 1, got 2" in refused.err
    # A bank that was drawn otherwise is another bank.
    assert genmix(*command, *asked, "--out", tmp_path / "plain").code == 2


def test_no_generator_there(genmix: Genmix, tmp_path: Path) -> None:
    outcome = genmix("fill", tmp_path / "nowhere", "--out", tmp_path / "bank")
    assert outcome.code == 2
    assert "no such folder, and not a hub id" in outcome.err
