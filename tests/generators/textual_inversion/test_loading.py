"""A generator from its folder: the same images, with adapters or without, and files that do not belong together."""

import copy
import json
from pathlib import Path

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators import TextualInversion, load_generator
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from genmix_transforms.generators.textual_inversion.lora import adapter_parameters, add_adapters
from tests.generators.textual_inversion.tiny_generators import make_ti


@pytest.fixture(scope="module")
def generator(ldm: LatentDiffusion) -> TextualInversion:
    return make_ti(ldm)


def test_saved_and_loaded(generator: TextualInversion, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert isinstance(loaded, TextualInversion)
    assert (loaded.config, loaded.weights_hash) == (generator.config, generator.weights_hash)
    assert torch.equal(loaded.sample([0, 1], [5, 6]), generator.sample([0, 1], [5, 6]))


@pytest.mark.parametrize("lent", [False, True])
def test_adapters_are_saved_and_loaded(ldm: LatentDiffusion, tmp_path: Path, lent: bool) -> None:
    pytest.importorskip("peft")
    unet = copy.deepcopy(ldm.unet)
    adapted = make_ti(ldm).with_embeddings(make_ti(ldm).embeddings, model=ldm.with_unet(unet))
    add_adapters(unet, rank=2)
    with torch.no_grad():
        for parameter in adapter_parameters(unet):
            parameter.add_(0.3)
    images = adapted.sample([0], [5])
    assert not torch.equal(images, make_ti(ldm).sample([0], [5]))
    adapted.save_pretrained(tmp_path)
    loaded = TextualInversion.from_pretrained(tmp_path, base=ldm if lent else None)
    assert loaded.weights_hash == adapted.weights_hash
    assert torch.equal(loaded.sample([0], [5]), images)
    assert not adapter_parameters(ldm.unet)  # a model that was lent stays as it is


def test_tokens_of_other_classes_are_refused(generator: TextualInversion, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"]["classes"] = ["cyst", "lesion"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config.json: the tokens are .*<metastasis>.*, and the classes .*lesion"):
        load_generator(tmp_path)
