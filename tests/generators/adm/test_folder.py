"""An ADM's folder: what diffusers reads, whole or not there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import ADMConfiguration, NoisyClassifier
from genmix_transforms.generators.adm.folder import (
    WEIGHTS,
    load_classifier,
    save_classifier,
    save_network,
    save_scheduler,
)
from genmix_transforms.generators.folder import read_weights

Make = Callable[..., Any]


def test_weights_and_provenance_come_back(tiny_adm: Make, tmp_path: Path) -> None:
    network = tiny_adm().network
    save_network(tmp_path / "unet", network, provenance={"seen": 3})
    weights, provenance = read_weights(tmp_path / "unet" / WEIGHTS)
    assert provenance == {"seen": 3}
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert isinstance(UNet2DModel.from_pretrained(tmp_path / "unet"), UNet2DModel)


def test_what_diffusers_saved_is_read_too(tiny_adm: Make, tmp_path: Path) -> None:
    network = tiny_adm().network
    network.save_pretrained(tmp_path / "unet")
    weights, provenance = read_weights(tmp_path / "unet" / WEIGHTS)
    assert provenance == {}
    assert torch.equal(weights["conv_in.weight"], network.conv_in.weight)


def test_nothing_is_left_half_written(tiny_adm: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_adm().network
    save_network(tmp_path / "unet", network)
    before = {file.name: file.read_bytes() for file in (tmp_path / "unet").iterdir()}
    with torch.no_grad():
        network.conv_in.weight.zero_()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_network(tmp_path / "unet", network)
    assert {file.name: file.read_bytes() for file in (tmp_path / "unet").iterdir()} == before


def test_the_classifier_comes_and_goes(tiny_flags: ADMConfiguration, tmp_path: Path) -> None:
    classifier = NoisyClassifier.of(tiny_flags)
    assert load_classifier(tmp_path / "classifier") is None
    save_classifier(tmp_path / "classifier", classifier)
    loaded = load_classifier(tmp_path / "classifier")
    assert loaded is not None
    assert not loaded.training
    assert torch.equal(loaded.conv_in.weight, classifier.conv_in.weight)
    save_classifier(tmp_path / "classifier", None)
    assert not (tmp_path / "classifier").exists()


@pytest.mark.parametrize(("learn_sigma", "variance"), [(True, "learned_range"), (False, "fixed_large")])
def test_the_scheduler_says_what_ours_does(learn_sigma: bool, variance: str, tmp_path: Path) -> None:
    save_scheduler(tmp_path / "scheduler", ADMConfiguration(learn_sigma=learn_sigma, diffusion_steps=500))
    config = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert (config["variance_type"], config["timestep_spacing"], config["clip_sample"]) == (variance, "linspace", True)
    assert config["num_train_timesteps"] == len(config["trained_betas"]) == 500


def test_broken_folders(tiny_flags: ADMConfiguration, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; .* has a config\.json but no weights"):
        read_weights(tmp_path / "unet" / WEIGHTS)
    save_classifier(tmp_path / "unet", NoisyClassifier.of(tiny_flags))
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_weights(tmp_path / "unet" / WEIGHTS)
    with pytest.raises(InputError, match="not a classifier that can be read"):
        load_classifier(tmp_path / "unet")
