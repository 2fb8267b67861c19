"""How embeddings are learned: presets and single numbers, checked before any work."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.training import MIXED_PRECISION

TUNE = ("embeddings", "lora")


@dataclass(frozen=True)
class Schedule:
    """A named training schedule."""

    steps: int  # optimiser iterations
    batch_size: int  # images, all classes and processes together


PRESETS = {
    # Gal et al. (arXiv 2208.01618): 5,000 steps in the paper's section 4, 6,100 in the configurations of their code, of
    # 4 images of one concept. The batch is twice theirs, since it is of several classes.
    "gal": Schedule(steps=6_100, batch_size=8),
    # The budget that Lee et al. (arXiv 2405.20650), section 3.1, give their GANs; they say nothing of their Textual
    # Inversion's, only that the diffusion model is not fine-tuned.
    "paper": Schedule(steps=70_000, batch_size=8),
}

LEARNING_RATES = {
    # Gal et al.'s code: 0.005 for each image of a batch of 4.
    "ldm": 0.02,
    # The example of diffusers for Stable Diffusion: 0.0005, with --scale_lr for each image of a batch of 4 (1 x 4).
    "stable-diffusion": 0.002,
}
"""By family of base model. Not scaled any further with the batch: Adam's steps are of one size whatever the gradient's
is, and here a batch is of several classes."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How embeddings are learned.

    Args:
        preset: "gal" (6,100 steps of 8 images) or "paper" (70,000 of 8).
        steps: optimiser steps; None: the preset's.
        batch_size: images in a step, all classes and processes together; None: the preset's.
        learning_rate: of AdamW for the vectors; None: 0.02 for the paper's base model (Gal et al.: 0.005 for each image
            of a batch of 4), 0.002 for Stable Diffusion (diffusers' example: 0.0005 for each).
        weight_decay: of AdamW for the vectors. 0: it would pull them to the origin, and a word vector's length means
            something. (In diffusers' first example it ate whole vocabularies: issues 507, 1009 and 1176 there.)
        mirror: show images mirrored left to right, half of the time. Not where sides matter.
        cache_latents: encode every image once, at the start, and not at every step.
        one_template_a_step: draw one prompt template for each class in a step, so that the text encoder reads as many
            prompts as there are classes; False: one for each image.
        tune: "embeddings", or "lora": low-rank changes to the U-Net besides, which the paper does not make.
        lora_rank: of the adapters.
        lora_learning_rate: of AdamW for the adapters.
        lora_after: steps of the embeddings alone before the adapters begin to learn.
        gradient_checkpointing: compute the U-Net's activations twice instead of keeping them: less memory, more time.
        accumulate: parts that a process shares its batch into, one after the other: less memory.
        checkpoint_every: images between checkpoints and sample sheets.
        mixed_precision: "no" or "bf16".

    Raises:
        InputError: values that cannot work.
    """

    preset: str = "gal"
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    mirror: bool = False
    cache_latents: bool = True
    one_template_a_step: bool = True
    tune: str = "embeddings"
    lora_rank: int = 4
    lora_learning_rate: float = 1e-4
    lora_after: int = 0
    gradient_checkpointing: bool = False
    accumulate: int = 1
    checkpoint_every: int = 8_000
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        for name, allowed in (("preset", tuple(PRESETS)), ("tune", TUNE), ("mixed_precision", MIXED_PRECISION)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("steps", "batch_size"):
            whole_number(getattr(self.schedule, name), name=name, least=1)
        for name in ("lora_rank", "accumulate", "checkpoint_every"):
            whole_number(getattr(self, name), name=name, least=1)
        whole_number(self.lora_after, name="lora_after", least=0)
        for name in ("learning_rate", "lora_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < _number(value, name) < float("inf"):
                raise InputError(f"{name} must be positive, got {value}")
        if not 0 <= _number(self.weight_decay, "weight_decay") < float("inf"):
            raise InputError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.tune == "lora" and self.lora_after >= self.schedule.steps:
            raise InputError(
                f"lora_after must be below the number of steps, {self.schedule.steps}, got {self.lora_after}: the "
                "adapters would never learn"
            )

    @property
    def schedule(self) -> Schedule:
        """The preset, with the numbers that were given in their places."""
        given = {name: getattr(self, name) for name in ("steps", "batch_size")}
        return replace(PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None})

    def rate(self, family: str) -> float:
        """The vectors' learning rate, for a family of base model."""
        return LEARNING_RATES[family] if self.learning_rate is None else self.learning_rate

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TrainingSettings":
        """Settings from options by name; an unknown one is an error that names it."""
        names = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in names]
        if unknown:
            raise InputError(
                f"TextualInversion.fit: no such option: {', '.join(unknown)}; there are {', '.join(names)}"
            )
        return cls(**options)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, got {value!r}")
    return float(value)
