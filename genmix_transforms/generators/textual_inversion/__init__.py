"""Textual Inversion: Gal et al., "An Image is Worth One Word" (arXiv 2208.01618), on latent diffusion models."""

import warnings
from typing import Any

from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.generator import TextualInversion
from genmix_transforms.generators.textual_inversion.network import BaseSource, LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import (
    SamplerSettings,
    TextualInversionNetworkSettings,
    TextualInversionSettings,
)
from genmix_transforms.generators.textual_inversion.start_images import StartImages

__all__ = [
    "BaseSource",
    "LatentDiffusion",
    "SamplerSettings",
    "StartImages",
    "TextualInversion",
    "TextualInversionNetworkSettings",
    "TextualInversionSettings",
    "find_base_model",
    "open_base_model",
]


def __getattr__(name: str) -> Any:
    if name == "TrainingSettings":  # until the next release
        warnings.warn(
            "textual_inversion.TrainingSettings is now called TextualInversionSettings",
            DeprecationWarning,
            stacklevel=2,
        )
        return TextualInversionSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
