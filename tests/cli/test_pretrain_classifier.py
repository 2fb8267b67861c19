"""``genmix pretrain-classifier``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genmix_transforms.evaluation.small_weights import SmallWeights

Genmix = Callable[..., Any]
SHORT = "--steps 1 --batch-size 4 --device cpu".split()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Patches of two classes, without a split of their own."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "patches.npz", images=images, labels=np.arange(24) % 2, label_names=["a", "b"])
    return tmp_path / "patches.npz"


def test_weights_for_a_comparison(genmix: Genmix, data: Path, tmp_path: Path) -> None:
    split, weights = tmp_path / "split.csv", tmp_path / "small.safetensors"
    assert genmix("-q", "split", data, "--out", split).code == 0
    outcome = genmix("-q", "pretrain-classifier", data, "--split", split, "--out", weights, *SHORT)
    assert outcome.code == 0, outcome.err
    assert "12 images of patches.npz" in outcome.out
    assert "--weights" in outcome.out
    assert SmallWeights.load(weights).made["steps"] == 1
    compare = ["-q", "evaluate", "--data", data, "--split", split, "--arms", "baseline", "--seeds", 1, *SHORT]
    outcome = genmix(*compare, "--weights", weights, "--out", tmp_path / "results")
    assert outcome.code == 0, outcome.err
    # All images, those that will be tested among them: no comparison takes these.
    assert genmix("-q", "pretrain-classifier", data, "--out", weights, "--overwrite", *SHORT).code == 0
    outcome = genmix(*compare, "--weights", weights, "--out", tmp_path / "others")
    assert outcome.code == 2
    assert "pre-trained on 6 of the 6 test images" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "w.pth"], "weights are saved as .safetensors"),
        (["--out", "w.safetensors", "--steps", "0"], "steps must be a whole number"),
        (["--out", "w.safetensors", "--split", "none.csv"], "no such file"),
        (["--out", "w.safetensors", "--seed", "-1"], "seed"),
    ],
)
def test_what_cannot_be(genmix: Genmix, data: Path, tmp_path: Path, options: list[str], message: str) -> None:
    outcome = genmix("-q", "pretrain-classifier", data, *options)
    assert outcome.code in (1, 2)
    assert message in " ".join(outcome.err.split())
    assert not Path("w.safetensors").exists()


def test_a_dry_run_writes_nothing(genmix: Genmix, data: Path, tmp_path: Path) -> None:
    outcome = genmix("pretrain-classifier", data, "--out", tmp_path / "w.safetensors", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "steps: 1000" in outcome.out
    assert not (tmp_path / "w.safetensors").exists()
