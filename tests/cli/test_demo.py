"""``genmix demo``, shortened: every part of it runs, and it leaves what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from genmix_transforms import SyntheticBank
from genmix_transforms.cli import demo
from genmix_transforms.data import LesionPhantom, PatchDataset

Genmix = Callable[..., Any]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 2), ("BASE_WIDTH", 4), ("CLASSIFIER_STEPS", 2), ("SEEDS", 1)):
        monkeypatch.setattr(demo, name, value)
    draw, drawn = LesionPhantom.dataset, {}

    def once(phantom: LesionPhantom) -> PatchDataset:
        """Drawing 1,290 lesions takes longer than all the rest, and a second time gives the same."""
        key = (phantom.size, phantom.seed)
        if key not in drawn:
            drawn[key] = draw(phantom)
        return drawn[key]

    monkeypatch.setattr(LesionPhantom, "dataset", once)


@pytest.mark.usefixtures("short")
def test_the_demo_leaves_what_it_says(genmix: Genmix, tmp_path: Path) -> None:
    outcome = genmix("-q", "demo", "--out", tmp_path / "demo")
    assert outcome.code == 0, outcome.err
    bank = SyntheticBank.load(tmp_path / "demo/bank", verify=True)
    assert bank.class_counts == {"cyst": 433, "hemangioma": 70, "metastasis": 178}  # the paper's training set
    assert Image.open(tmp_path / "demo/mixing.png").size[0] > 12 * 32
    assert (tmp_path / "demo/results/results.json").exists()
    for text in ("baseline", "mixup", "blend", "genmix", "Acc", "hemangioma", "sens/spec"):
        assert text in outcome.out
    page = (tmp_path / "demo/report.html").read_text()
    assert "data:image/png;base64," in page
    assert outcome.out.endswith(f"  open {tmp_path / 'demo/report.html'}\n")
    proposed = [line.split()[:2] for line in outcome.out.splitlines() if line.startswith("  genmix ")]
    assert proposed == [
        ["genmix", "split"],
        ["genmix", "train"],
        ["genmix", "fill"],
        ["genmix", "audit"],
        ["genmix", "evaluate"],
    ]
    # Again, it has nothing left to do and says the same.
    again = genmix("-q", "demo", "--out", tmp_path / "demo")
    assert again.out.split("seconds.")[1] == outcome.out.split("seconds.")[1]


def test_a_dry_run_leaves_nothing(genmix: Genmix, tmp_path: Path) -> None:
    outcome = genmix("demo", "--out", tmp_path / "demo", "--dry-run")
    assert outcome.code == 0
    assert yaml.safe_load(outcome.out) == {"out": str(tmp_path / "demo"), "seed": 0}
    assert not (tmp_path / "demo").exists()


def test_another_folder_is_not_taken_over(genmix: Genmix, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = genmix("-q", "demo", "--out", tmp_path / "file")
    assert outcome.code == 2
    assert "cannot be a folder" in outcome.err
    assert (tmp_path / "file").read_text() == "mine"
