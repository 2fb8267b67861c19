"""ADM: Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233)."""

from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.classifier_training import train_classifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.generator import ADM
from genmix_transforms.generators.adm.network import ADMUNet
from genmix_transforms.generators.adm.sampler_settings import SamplerSettings
from genmix_transforms.generators.adm.schedule import NoiseSchedule
from genmix_transforms.generators.adm.settings import TrainingSettings

__all__ = [
    "ADM",
    "ADMConfiguration",
    "ADMUNet",
    "NoiseSchedule",
    "NoisyClassifier",
    "SamplerSettings",
    "TrainingSettings",
    "train_classifier",
]
