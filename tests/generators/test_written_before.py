"""Runs of the first release open, draw what they drew, and go on.

The folders of ``written_before/`` were written by the first release with this format: tiny runs on noise, the base
model of the Textual Inversion (random weights), and images that each generator drew. The ADM's checkpoint is left out,
for its size.
"""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import fill_bank, load_generator
from genmix_transforms.generators.base import Generator
from tests.generators.kinds import KINDS

FOLDER = Path(__file__).parent / "written_before"
LABELS, SEEDS = [0, 1, 1], [5, 6, 2**40]
GOES_ON = ("dcgan", "per-class", "stylegan", "textual-inversion")
SIDE = {"adm": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy: a training writes into its folder."""
    shutil.copytree(FOLDER, tmp_path / "runs")
    return tmp_path / "runs"


def open_run(folder: Path, kind: str) -> Generator:
    if kind == "textual-inversion":
        pytest.importorskip("transformers", reason="a Textual Inversion needs transformers")
        return load_generator(folder / kind, base=folder / "ldm")
    return load_generator(folder / kind)


def noise(side: int) -> PatchDataset:
    """What they were trained on."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, side, side), generator=random, dtype=torch.int32).to(torch.uint8)
    return PatchDataset(images=images, labels=torch.arange(8) % 2, classes=("cyst", "metastasis"), name="noise")


@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_and_draws_what_it_drew(kind: str, folder: Path) -> None:
    drawn = open_run(folder, kind).sample(LABELS, SEEDS)
    before = load_file(FOLDER / "drawn.safetensors")[kind]
    assert drawn.dtype == before.dtype
    # Another processor rounds otherwise, by a grey level at most.
    assert (drawn.int() - before.int()).abs().max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_fills_a_bank(kind: str, folder: Path, tmp_path: Path) -> None:
    bank = fill_bank(open_run(folder, kind), out=tmp_path / "bank", progress=False)
    assert bank.class_counts == {"cyst": 4, "metastasis": 4}  # as many as it was trained on


@pytest.mark.parametrize("kind", GOES_ON)
def test_its_training_goes_on(kind: str, folder: Path) -> None:
    before = open_run(folder, kind)
    members = getattr(before, "members", [before])
    settings = members[0].provenance
    done, batch = settings["steps"], settings["batch_size"]
    untrained = open_run(folder, kind)
    own = {"ema_half_life": 50} if kind == "dcgan" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = untrained.fit(
            noise(SIDE.get(kind, 16)), out=folder / kind, steps=done + 1, batch_size=batch, seed=3, device="cpu",
            progress=False, **own,
        )  # fmt: skip
    for member in getattr(trained, "members", [trained]):
        assert member.provenance["images_seen"] == (done + 1) * batch
    assert trained.weights_hash != before.weights_hash
