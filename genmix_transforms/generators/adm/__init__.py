"""ADM: Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233)."""

import warnings
from typing import Any

from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.classifier_training import train_classifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.generator import ADM
from genmix_transforms.generators.adm.network import ADMUNet
from genmix_transforms.generators.adm.noise_schedule import NoiseSchedule
from genmix_transforms.generators.adm.sampling import SamplerSettings
from genmix_transforms.generators.adm.settings import ADMNetworkSettings, ADMSettings, ClassifierSettings

__all__ = [
    "ADM",
    "ADMConfiguration",
    "ADMNetworkSettings",
    "ADMSettings",
    "ADMUNet",
    "ClassifierSettings",
    "NoiseSchedule",
    "NoisyClassifier",
    "SamplerSettings",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    if name == "TrainingSettings":  # until the next release
        warnings.warn("adm.TrainingSettings is now called ADMSettings", DeprecationWarning, stacklevel=2)
        return ADMSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
