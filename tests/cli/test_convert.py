"""``genmix convert dcgan``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms import SyntheticBank
from genmix_transforms.generators.dcgan.network import DCGANNetwork, initialise

Genmix = Callable[..., Any]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict laid out as in the PyTorch DCGAN example."""
    network = DCGANNetwork(resolution=64, channels=3, base_width=4)
    initialise(network, seed=1)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "netG.pth")
    return tmp_path / "netG.pth"


def test_what_it_proposes_works(genmix: Genmix, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = genmix("convert", "dcgan", weights, "--out", "runs/liver", "--classes", "cyst")
    assert outcome.code == 0, outcome.err
    assert "draws 3 x 64 x 64 images of cyst" in outcome.out
    proposed = outcome.out.splitlines()[-1].split()
    assert proposed[0] == "genmix"
    assert genmix("-q", *proposed[1:]).code == 0
    assert SyntheticBank.load("banks/liver").class_counts == {"cyst": 100}


def test_nothing_is_overwritten(genmix: Genmix, weights: Path, tmp_path: Path) -> None:
    assert genmix("convert", "dcgan", weights, "--out", tmp_path / "run").code == 0
    assert genmix("convert", "dcgan", weights, "--out", tmp_path / "run").code == 2
    assert genmix("convert", "dcgan", weights, "--out", tmp_path / "run", "--overwrite").code == 0


def test_bad_input(genmix: Genmix, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    for arguments, message in (
        ([tmp_path / "none.pth"], "none.pth: no such file"),
        ([tmp_path / "text.pth"], "text.pth"),
        ([weights, weights], "give a class name for each of the 2 files"),
        ([weights, "--classes", "a,b"], "one file a class, got 1 files and 2 names"),
    ):
        outcome = genmix("convert", "dcgan", *arguments, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "run").exists()
