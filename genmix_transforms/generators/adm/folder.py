"""An ADM's weights in its folder, as diffusers' pipelines keep theirs: ``unet/``, ``scheduler/``, ``classifier/``."""

import shutil
from pathlib import Path
from typing import Any

import safetensors
from diffusers import DDPMScheduler

from genmix_transforms.errors import InputError
from genmix_transforms.files.atomic import write_text
from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.schedule import NoiseSchedule
from genmix_transforms.generators.folder import CONFIG, write_weights

NETWORK = "unet"
SCHEDULER = "scheduler"
CLASSIFIER = "classifier"

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Diffusers' name for the weights within each."""


def save_network(folder: Path, network: Any, *, provenance: dict[str, Any] | None = None) -> None:
    """Write a diffusers model so that its ``from_pretrained`` opens the folder, each file whole or not at all.

    Args:
        folder: made if need be.
        network: the model.
        provenance: travels inside the weights' file: one rename replaces both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS, network.state_dict(), provenance=provenance or {})
    write_text(folder / CONFIG, network.to_json_string())


def save_scheduler(folder: Path, configuration: ADMConfiguration) -> None:
    """Write the noise schedule as diffusers' ancestral sampler with the same steps as ours."""
    folder.mkdir(parents=True, exist_ok=True)
    scheduler: Any = DDPMScheduler(
        num_train_timesteps=configuration.diffusion_steps,
        trained_betas=NoiseSchedule.of(configuration).betas.tolist(),
        variance_type="learned_range" if configuration.learn_sigma else "fixed_large",
        timestep_spacing="linspace",
    )
    write_text(folder / "scheduler_config.json", scheduler.to_json_string())


def save_classifier(folder: Path, classifier: NoisyClassifier | None) -> None:
    """Write the classifier; None: remove the one that is there."""
    if classifier is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        save_network(folder, classifier)


def load_classifier(folder: Path) -> NoisyClassifier | None:
    """The classifier in a folder; None where there is none.

    Raises:
        InputError: it cannot be read.
    """
    if not (folder / CONFIG).exists():
        return None
    try:
        classifier: NoisyClassifier = NoisyClassifier.from_pretrained(folder)
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: not a classifier that can be read ({error})") from error
    classifier.eval()
    return classifier
