"""How embeddings are learned and how images are drawn: presets and single numbers, checked before any work."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.sampler_options import check_sampler, known_settings
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


METHODS = ("ddim", "dpmsolver++", "unipc")

SAMPLERS: dict[str, dict[str, Any]] = {
    # Rombach et al. and Gal et al. (rinongal/textual_inversion, scripts/txt2img.py and its README): DDIM, 50 steps,
    # eta 0, scale 10.
    "paper": {"method": "ddim", "steps": 50, "eta": 0.0, "guidance_scale": 10.0},
    # Second order and data prediction, which strong guidance needs (Lu et al., arXiv 2211.01095); the same scale, so
    # that nothing but the solver differs.
    "fast": {"method": "dpmsolver++", "steps": 20, "eta": 0.0, "guidance_scale": 10.0},
}
"""Samplers by name; the other settings are the defaults."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How images are drawn. Other settings draw other images: they are part of a generator's configuration.

    The defaults are the preset "paper".

    Args:
        method: "ddim" (deterministic with ``eta`` 0), "dpmsolver++" or "unipc" (second order, for 10 to 50 steps).
        steps: passes through the U-Net from pure noise to the image.
        eta: ddim: noise added at each step, as a share of ddpm's; from 0 to 1.
        guidance_scale: classifier-free guidance: how far to go from the negative prompt towards the class's; 1 is no
            guidance, and half the work.
        negative_prompt: what to go away from; "" is the empty prompt, as published.
        strength: with start images (SDEdit): the share of the steps that is taken, from the noised image on; 1: all.
        precision: "float32", or "bfloat16" for the networks' arithmetic (autocast); the steps' own stays in float32.
        batch_size: images of one pass, always as many: another number may round otherwise, and then an image would
            depend on who was drawn with it.

    Raises:
        InputError: values that cannot work.
    """

    method: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    guidance_scale: float = 10.0
    negative_prompt: str = ""
    strength: float = 1.0
    precision: str = "float32"
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_sampler(self, methods=METHODS, numbers=("guidance_scale", "eta", "strength"))
        if not 0 < self.strength <= 1:
            raise InputError(f"sampler: strength must be above 0 and at most 1, got {self.strength}")
        if not self.steps_taken:
            raise InputError(
                f"sampler: strength {self.strength} of {self.steps} steps is no step at all: the image would stay the "
                f"real one; give a strength of at least {1 / self.steps:g}, or more steps"
            )
        if not isinstance(self.negative_prompt, str):
            raise InputError(f"sampler: negative_prompt must be a text, got {self.negative_prompt!r}")
        if self.negative_prompt and self.guidance_scale == 1:
            raise InputError(
                f"sampler: guidance_scale 1 is no guidance, and negative_prompt {self.negative_prompt!r} would do "
                "nothing; give a scale above 1, or no negative_prompt"
            )

    @classmethod
    def of(cls, settings: "SamplerSettings | Mapping[str, Any] | str | None") -> "SamplerSettings":
        """Settings from a preset's name or a mapping as :meth:`to_json` makes it; None: the preset "paper".

        Example:
            >>> SamplerSettings.of("fast").steps
            20
        """
        if isinstance(settings, cls):
            return settings
        if isinstance(settings, str):
            if settings not in SAMPLERS:
                raise InputError(f"sampler: must be one of {', '.join(SAMPLERS)}, or settings, got {settings!r}")
            settings = SAMPLERS[settings]
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(
                f"sampler: expected a preset ({', '.join(SAMPLERS)}), SamplerSettings or a mapping, "
                f"got a {type(settings).__name__}"
            )
        return cls(**known_settings(cls, settings or {}))

    def to_json(self) -> dict[str, Any]:
        """The settings, as JSON can hold them."""
        return asdict(self)

    @property
    def steps_taken(self) -> int:
        """How many of the steps are taken: all, or with start images the last ones, as diffusers counts them."""
        return min(int(self.steps * self.strength), self.steps)
