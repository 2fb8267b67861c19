"""The parts of a base model: those that do not belong together are refused before any work."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from genmix_transforms.generators.textual_inversion.parts import check_noise_schedule, check_parts


def changed(model: LatentDiffusion, part: str, **values: Any) -> LatentDiffusion:
    """The model with a part that says something else of itself."""
    other = copy.deepcopy(model)
    config = getattr(other, part).config
    if isinstance(config, dict):
        getattr(other, part)._internal_dict = type(config)({**config, **values})
    else:
        for name, value in values.items():
            setattr(config, name, value)
    return other


def test_the_tiny_models_are_whole(ldm: LatentDiffusion, stable_diffusion: LatentDiffusion) -> None:
    for model in (ldm, stable_diffusion):
        check_parts(model, name="tiny")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"sample_size": [4, 4]}, r"trained on latents of \[4, 4\]; one number is expected"),
        ("unet", {"sample_size": None}, "trained on latents of None"),
        ("unet", {"in_channels": 9}, "takes 9 channels and gives 4, and its autoencoder's latents have 4"),
        ("autoencoder", {"latent_channels": 16}, "takes 4 channels and gives 4, and its autoencoder's latents have 16"),
        ("unet", {"cross_attention_dim": 24}, "states have 16 numbers, and its U-Net asks for 24"),
        ("unet", {"cross_attention_dim": (16, 24)}, r"states have 16 numbers, and its U-Net asks for \(16, 24\)"),
    ],
)
def test_parts_that_do_not_fit(ldm: LatentDiffusion, part: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^tiny: .*{message}"):
        check_parts(changed(ldm, part, **values), name="tiny")


def test_a_tokenizer_of_another_model(ldm: LatentDiffusion, stable_diffusion: LatentDiffusion) -> None:
    other = copy.deepcopy(stable_diffusion)
    other.tokenizer = copy.deepcopy(ldm.tokenizer)
    with pytest.raises(InputError, match=r"tokenizer has \d+ tokens, and its text encoder vectors for \d+"):
        check_parts(other, name="tiny")


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "prediction_type": "sample"},
    ],
)
def test_another_kind_of_diffusion(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"predicts epsilon or v_prediction .* came with a {config['_class_name']}"):
        check_noise_schedule(config, name="tiny")


def test_it_is_looked_at_when_a_base_model_is_opened(ldm_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(ldm_folder, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "sample"}))
    with pytest.raises(InputError, match="base: a base model that predicts epsilon or v_prediction"):
        open_base_model(find_base_model(folder))
