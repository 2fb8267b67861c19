"""Patches of scans with their neighbors as channels: generators train on them, banks hold them, GenMix mixes them."""

from pathlib import Path

import pytest
import torch

from genmix_transforms import GenMix, SyntheticBank
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


@pytest.fixture(scope="module", params=[1, 2], ids=["three channels", "five channels"])
def patches(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PatchDataset:
    folder = tmp_path_factory.mktemp("volumes")
    phantom = LesionPhantom(train=(2, 0, 2), val=(0, 0, 0), test=(0, 0, 0))
    phantom.write_scans(folder / "scans", format="nifti")
    extract_patches(
        folder / "scans",
        out=folder / "patches.npz",
        key=KEY,
        table=folder / "scans" / "scans.csv",
        size=16,
        kind="2.5d",
        neighbors=request.param,
        window=(90, 260),
        labels={"1": "cyst", "3": "metastasis"},
    )
    return open_dataset(folder / "patches.npz")


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
