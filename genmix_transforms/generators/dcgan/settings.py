"""The settings of a DCGAN: of its networks, and of its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from genmix_transforms.generators.augmentation import POLICIES
from genmix_transforms.generators.settings import Augmentation, TrainingSettings
from genmix_transforms.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class DCGANNetworkSettings(Settings):
    """What its networks are, beside the size and the classes."""

    base_width: int = option(
        64, help="Channels of the networks at half resolution, 64 in the paper; less is faster.", least=1, most=8192
    )
    latent_size: int = option(100, help="Numbers in a latent, 100 in the paper.", least=1, most=65_536, rare=True)


@dataclass(frozen=True, kw_only=True)
class DCGANSettings(TrainingSettings):
    """How it is trained."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Radford et al., section 4: learning rate 0.0002 ("0.001, we found, was too high"), betas 0.5 and 0.999. The
        # batch is not theirs (128) but one that suits a few hundred images.
        "dcgan": {"steps": 20_000, "batch_size": 32, "learning_rate": 0.0002},
        # Lee et al. (arXiv 2405.20650), section 3.1: 70,000 iterations, batch 8, learning rate 0.001.
        "paper": {"steps": 70_000, "batch_size": 8, "learning_rate": 0.001},
    }

    learning_rate: float = option(help="Of Adam, for both networks.", above=0, most=10)
    betas: tuple[float, float] = option((0.5, 0.999), help="Of Adam.", least=0, below=1, rare=True)
    augment: tuple[Augmentation, ...] = option(
        POLICIES,
        help="Augmentation of the discriminator's images (DiffAugment), or none, which fails on small data sets.",
    )
    ema_half_life: float = option(
        10_000, help="Half-life, in images, of the averaged weights that are sampled from.", above=0
    )
