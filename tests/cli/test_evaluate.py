"""``genmix evaluate``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms import SyntheticBank

Genmix = Callable[..., Any]
SHORT = "--seeds 2 --steps 3 --batch-size 8 --device cpu".split()


def save_bank(folder: Path, *, classes: tuple[str, ...] = ("bright", "dark"), size: int = 20) -> Path:
    images = torch.randint(0, 256, (10, 1, size, size), dtype=torch.uint8)
    SyntheticBank(images, torch.arange(10) % len(classes), classes=classes).save(folder)
    return folder


def test_the_table_and_the_files(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank")
    outcome = genmix("-q", "evaluate", "--data", discs, "--bank", bank, "--out", tmp_path / "results", *SHORT)
    assert outcome.code == 0, outcome.err
    for word in ("arm", "Acc", "F1", "bright sens/spec", "dark sens/spec"):
        assert word in outcome.out
    rows = [line.split()[0] for line in outcome.out.splitlines() if line.split()]
    assert [row for row in rows if row in ("baseline", "mixup", "blend", "genmix")] == [
        "baseline",
        "mixup",
        "blend",
        "genmix",
    ]
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["protocol"]["steps"] == 3
    assert len((tmp_path / "results/results.csv").read_text().splitlines()) == 1 + 4 * 2


def test_options_become_the_protocols(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank")
    options = {
        "alpha": 0.5,
        "pairing": "same",
        "real_partner": 0.25,
        "blend_share": 0.3,
        "mixup_alpha": 0.4,
        "learning_rate": 0.01,
        "batch_size": 6,
        "steps": 2,
        "classifier": "small",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--bank", bank, "--out", tmp_path / "results", "--arms", "genmix"],
        *[*arguments, "--flips", "--seeds", 1, "--device", "cpu"],
    )
    assert outcome.code == 0, outcome.err
    protocol = json.loads((tmp_path / "results/results.json").read_text())["protocol"]
    assert {name: protocol[name] for name in options} == options
    assert protocol["flips"] is True


@pytest.mark.parametrize(
    ("bank", "options", "message"),
    [
        ({"classes": ("bright", "grey")}, [], "grey"),
        ({"size": 16}, [], "16"),
        (None, [], "needs a bank"),
        ({}, ["--alpha", "0"], "alpha must be positive"),
        ({}, ["--alpha", "-1"], "alpha must be positive"),
        ({}, ["--arms", "baseline,genmax"], "genmax"),
        ({}, ["--seeds", "0"], "seeds must be a whole number, at least 1"),
        ({}, ["--pairing", "random"], "pairing must be one of any, balanced, same, other, inverse"),
        ({}, ["--classifier", "resnet19"], "resnet19"),
    ],
)
def test_bad_input_before_any_work(
    bank: dict[str, Any] | None, options: list[str], message: str, genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    with_bank = [] if bank is None else ["--bank", save_bank(tmp_path / "bank", **bank)]
    outcome = genmix(
        "-q", "evaluate", "--data", discs, *with_bank, "--out", tmp_path / "results", "--device", "cpu", *options
    )
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert not (tmp_path / "results/runs").exists()
