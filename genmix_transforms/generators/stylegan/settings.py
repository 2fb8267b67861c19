"""The settings of a StyleGAN: of its networks, and of its training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from genmix_transforms.errors import InputError
from genmix_transforms.generators.augmentation import POLICIES
from genmix_transforms.generators.settings import Augmentation, TrainingSettings
from genmix_transforms.generators.stylegan.layers import EPSILON
from genmix_transforms.settings import Settings, option

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)
"""Of the networks; images of other sizes are padded to the next."""

SMALLEST_IMAGE = 9
"""Mirrored borders must be narrower than the image: 8 pixels have 7 to mirror, and a smaller patch shows nothing."""


@dataclass(frozen=True, kw_only=True)
class StyleGANNetworkSettings(Settings):
    """What its networks are, beside the size and the classes, and how images are drawn."""

    fmap_base: int = option(
        8192,
        help="Channels at a resolution are 2 * this / side, 8192 in the paper; less is faster.",
        least=1,
        most=1_048_576,
    )
    fmap_max: int = option(512, help="The most channels, 512 in the paper.", least=1, most=8192)
    latent_size: int = option(512, help="Numbers in z and w, 512 in the paper.", least=1, most=8192)
    mapping_layers: int = option(8, help="Dense layers from z to w, 8 in the paper.", least=1, most=100, rare=True)
    conditioning: Literal["multiply", "concatenate"] = option(
        "multiply",
        help="How the class reaches the latent: multiplied by a vector of the class, or beside it as in NVIDIA's "
        "network.",
        rare=True,
    )
    psi: float = option(
        1.0,
        help="Truncation when drawing: 1 none, 0.7 as published (less varied), 0 the mean image of the class.",
        above=-10,
        below=10,
    )
    cutoff: int | None = option(
        8, help="How many layers are truncated, from the coarsest: 8 as published, none for all.", least=0, rare=True
    )
    blurred_bias: bool = option(
        False, help="For converted weights of a port whose doubling layers add a bias before the blur.", rare=True
    )
    norm_epsilon: float = option(
        EPSILON,
        help="Of the instance norms: 1e-8 as published, 1e-5 for converted weights of ports.",
        above=0,
        below=1,
        rare=True,
    )


@dataclass(frozen=True, kw_only=True)
class StyleGANSettings(TrainingSettings):
    """How it is trained. The networks grow; :class:`GrowingSchedule` says how that follows from the budget."""

    FINE_TUNING: ClassVar[tuple[str, ...]] = (*TrainingSettings.FINE_TUNING, "start_resolution", "growing_share")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Karras et al.'s learning rate; a budget, an R1 and an augmentation that suit a few hundred images.
        "stylegan": {"steps": 20_000, "batch_size": 32, "learning_rate": 0.001, "gamma": None, "augment": POLICIES},
        # Lee et al. (arXiv 2405.20650), section 3.1: 70,000 iterations, batch 8, learning rate 0.001. The rest is as
        # Karras et al. published it: R1 of weight 10 at every step, no augmentation of what the discriminator sees.
        "paper": {"steps": 70_000, "batch_size": 8, "learning_rate": 0.001, "gamma": 10.0, "augment": ()},
    }

    learning_rate: float = option(
        help="Of Adam up to 64 pixels; 1.5 times this at 128, 2 times at 256, 3 times above.", above=0, most=10
    )
    gamma: float | None = option(
        help="Weight of R1, 10 as published; none: from resolution and batch.", least=0, most=1_000_000
    )
    r1_interval: int = option(
        1, help="Steps between R1 penalties: 1 as published; 16 is faster and learns as well.", least=1
    )
    style_mixing: float = option(
        0.9, help="Probability that an image has the styles of two latents of its class.", least=0, most=1, rare=True
    )
    start_resolution: int | None = option(
        None,
        help="Side in pixels at which the growing starts. Default: 8 as published, or for fine-tuning the resolution "
        "of the weights.",
        least=8,
        most=RESOLUTIONS[-1],
    )
    growing_share: float | None = option(
        None,
        help="Part of the run after which the growing is complete. Default: all phases are equally long.",
        above=0,
        below=1,
    )
    minibatch_group: int = option(
        4,
        help="Images over which the discriminator computes the minibatch deviation; the batch is a multiple.",
        least=1,
        rare=True,
    )
    augment: tuple[Augmentation, ...] = option(
        help="Augmentation of the discriminator's images (DiffAugment), or none, which fails on small data sets.",
    )
    augment_target: float | None = option(
        None,
        help="Adapt the augmentation to keep the mean sign of the real images' logits at this value (0.6 in the "
        "literature). Default: always augment.",
        above=-1,
        below=1,
        rare=True,
    )
    augment_ramp: float = option(
        100_000, help="With augment_target: images from never to always augmenting.", above=0, rare=True
    )
    mirror: bool = option(
        False, help="Mirror half of the real images; only if left and right have no meaning.", rare=True
    )
    ema_half_life: float = option(
        10_000, help="Half-life, in images, of the averaged weights that are sampled from.", above=0, rare=True
    )
    compiled: bool = option(
        False,
        help="Use torch.compile, which takes some minutes before the first steps of a phase.",
        runtime=True,
        rare=True,
    )

    def check(self) -> None:
        """Refuse a control loop that has nothing to control."""
        if self.augment_target is not None and not self.augment:
            raise InputError("augment_target: there is nothing to adapt with augment=(); give a policy")

    def resolved(self, *, full: int, start: int, processes: int) -> Self:
        """The same settings with the resolution at which the growing starts, checked against networks and processes.

        Args:
            full: the networks' resolution.
            start: where the growing starts if nothing is said.
            processes: how many train together.

        Raises:
            InputError: a start beyond the networks' resolution, or a batch that the minibatch deviation cannot group.
        """
        settings = self if self.start_resolution is not None else replace(self, start_resolution=start)
        if settings.start_resolution not in (8, *RESOLUTIONS) or settings.start_resolution > full:
            raise InputError(
                f"start_resolution must be a power of two from 8 to the networks' {full}, "
                f"got {settings.start_resolution}"
            )
        own, group = self.batch_size // processes, self.minibatch_group
        if own > group and own % group:
            here = "the batch" if processes == 1 else f"each process's part of the batch of {self.batch_size}"
            raise InputError(
                f"{here} has {own} images, which groups of {group} do not divide (the minibatch deviation is taken "
                f"over a group): give a multiple of {group * processes}, or another minibatch_group"
            )
        return settings
