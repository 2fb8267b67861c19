"""Patches of scans, 2.5-D and cubes: generators train on them, banks hold them, GenMix mixes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.cli.main import app
from genmix_transforms.data import LesionPhantom, PatchDataset, open_dataset
from genmix_transforms.data.volumes import extract_patches
from genmix_transforms.generators import ADM, DCGAN, fill_bank
from genmix_transforms.generators.base import Generator
from tests.data.volumes.made_scans import KEY

FLAGS = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
    "learn_sigma": True,
    "class_cond": True,
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Cut patches of 16 pixels from the scans of four phantoms."""
    folder = tmp_path_factory.mktemp("volumes")
    phantom = LesionPhantom(train=(2, 0, 2), val=(0, 0, 0), test=(0, 0, 0))
    phantom.write_scans(folder / "scans", format="nifti")

    def patches(name: str, **options: Any) -> Path:
        labels = {"1": "cyst", "3": "metastasis"}
        table, out = folder / "scans" / "scans.csv", folder / f"{name}.npz"
        extract_patches(
            folder / "scans", out=out, key=KEY, table=table, size=16, window=(90, 260), labels=labels, **options
        )
        return out

    return patches


@pytest.fixture(scope="module", params=[1, 2], ids=["three channels", "five channels"])
def patches(request: pytest.FixtureRequest, cut: Callable[..., Path]) -> PatchDataset:
    return open_dataset(cut(f"{request.param} neighbors", kind="2.5d", neighbors=request.param))


@pytest.mark.filterwarnings("ignore:very few images")
@pytest.mark.parametrize("kind", ["dcgan", "adm"])
def test_neighbors_are_channels_to_the_end(patches: PatchDataset, tmp_path: Path, kind: str) -> None:
    channels = patches.images.shape[1]
    generator: Generator
    if kind == "dcgan":
        generator = DCGAN(classes=patches.classes, resolution=16, channels=channels, base_width=4)
    else:
        generator = ADM(classes=patches.classes, configuration=FLAGS, channels=channels, sampler={"steps": 2})
    generator.fit(patches, out=tmp_path / "run", steps=1, batch_size=2, device="cpu", progress=False)
    fill_bank(generator, counts=patches.class_counts, out=tmp_path / "bank", progress=False)
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.image_shape == (channels, 16, 16)
    assert bank.window == patches.window == (-40, 220)
    mixed, labels = GenMix(bank, window=patches.window)(patches.images / 255, patches.labels)
    assert mixed.shape == (4, channels, 16, 16)
    assert torch.allclose(labels.sum(1), torch.ones(4))


@pytest.mark.filterwarnings("ignore:very few images")
@pytest.mark.parametrize("conditioning", ["conditional", "per class"])
def test_cubes_of_scans_to_a_mixed_batch_on_the_command_line(
    cut: Callable[..., Path], tmp_path: Path, conditioning: str
) -> None:
    data = cut(f"cubes, {conditioning}", kind="3d", spacing=2)
    run, bank, sheet = tmp_path / "run", tmp_path / "bank", tmp_path / "sheet.png"
    training = ["--steps", 2, "--batch-size", 2, "--base-width", 4, "--device", "cpu", "--all-data"]
    each = ["--per-class"] if conditioning == "per class" else []
    for command in (
        ["train", "dcgan", "--data", data, "--out", run, *training, *each],
        ["fill", run, "--out", bank, "--counts", "cyst=3,metastasis=2", "--device", "cpu"],
        ["bank", "verify", bank],
        ["bank", "sheet", bank, "--out", sheet],
    ):
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0, result.output
    samples = sorted(run.rglob("samples/*.png"))
    assert len(samples) == (2 if each else 1)
    for picture in (sheet, *samples):
        assert Image.open(picture).width > 96

    real = open_dataset(data)
    assert repr(real) == f"{data.name}: 4 patches, 1 x 16 x 16 x 16 (cyst 2, metastasis 2)"
    filled = SyntheticBank.load(bank)
    assert filled.image_shape == (1, 16, 16, 16)
    assert filled.class_count.tolist() == [3, 2]
    assert filled.window == real.window == (-40, 220)
    genmix = GenMix(filled, window=real.window, generator=torch.Generator().manual_seed(0))
    mixed, labels = genmix(real.images / 255, real.labels)
    assert mixed.shape == real.images.shape
    assert labels.shape == (4, 2)
    drawn = genmix.params
    assert drawn is not None
    lam = drawn["lam"].view(-1, 1, 1, 1, 1)
    expected = lam * filled.rows(drawn["index"]) / 255 + (1 - lam) * real.images / 255
    assert torch.allclose(mixed, expected, atol=1e-5)
