"""The settings of a Textual Inversion: of its prompts and its base model, of its sampler, and of its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from genmix_transforms.errors import InputError
from genmix_transforms.generators.sampler_settings import DiffusionSampler
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.textual_inversion.prompts import MOST_VECTORS, check_template, choose_templates
from genmix_transforms.settings import Settings, option

PAPER_MODEL = "CompVis/ldm-text2im-large-256"
"""The model of Lee et al.: latent diffusion, trained on LAION-400M (Rombach et al., arXiv 2112.10752)."""

LEARNING_RATES = {
    # Gal et al.'s code: 0.005 for each image of a batch of 4.
    "ldm": 0.02,
    # The example of diffusers for Stable Diffusion: 0.0005, with --scale_lr for each image of a batch of 4 (1 x 4).
    "stable-diffusion": 0.002,
}
"""By family of base model. They are not scaled with the batch: Adam's steps are of one size whatever the gradient's is,
and here a batch is of several classes."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings(DiffusionSampler):
    """How images are drawn. Other settings draw other images: they are part of a generator's configuration.

    The defaults are the sampler "paper".

    Raises:
        InputError: values that cannot work.

    Example:
        >>> SamplerSettings.of("fast").steps
        20
    """

    SAMPLERS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Rombach et al. and Gal et al. (rinongal/textual_inversion, scripts/txt2img.py and its README): DDIM, 50 steps,
        # eta 0, scale 10.
        "paper": {"method": "ddim", "steps": 50, "eta": 0.0, "guidance_scale": 10.0},
        # Second order and data prediction, which strong guidance needs (Lu et al., arXiv 2211.01095); the same scale,
        # so that nothing but the solver differs.
        "fast": {"method": "dpmsolver++", "steps": 20, "eta": 0.0, "guidance_scale": 10.0},
    }

    method: Literal["ddim", "dpmsolver++", "unipc"] = option(
        "ddim", help="The solver: ddim (deterministic with eta 0), or a second-order one, for 10 to 50 steps."
    )
    steps: int = option(50, help="Passes through the U-Net, from pure noise to the image.", least=1)
    guidance_scale: float = option(
        10.0,
        help="Classifier-free guidance: how far to go from the negative prompt toward the class's; 1 is no guidance, "
        "and takes half the time.",
        least=0,
    )
    negative_prompt: str = option("", help="Prompt to move away from; the empty prompt, as published, by default.")
    strength: float = option(
        1.0,
        help="With start images (SDEdit): share of the steps that are taken, starting from the noised image.",
        above=0,
        most=1,
    )

    def check(self) -> None:
        """Refuse settings that would draw nothing, or ignore one another."""
        super().check()
        if not self.steps_taken:
            raise InputError(
                f"strength {self.strength} of {self.steps} steps is no step at all: the image would stay the real one; "
                f"give a strength of at least {1 / self.steps:g}, or more steps"
            )
        if self.negative_prompt and self.guidance_scale == 1:
            raise InputError(
                f"guidance_scale 1 is no guidance, and negative_prompt {self.negative_prompt!r} would do nothing; give "
                "a scale above 1, or no negative_prompt"
            )

    @property
    def steps_taken(self) -> int:
        """How many of the steps are taken: all, or with start images the last ones, as diffusers counts them."""
        return min(int(self.steps * self.strength), self.steps)


@dataclass(frozen=True, kw_only=True)
class TextualInversionNetworkSettings(Settings):
    """What it is made of, beside the size and the classes: the base model, the vectors, the prompts, the sampler."""

    base: Any = option(  # noqa: RUF009
        PAPER_MODEL,
        help="The latent diffusion model: a folder saved by a diffusers pipeline, or an id on the hub.",
    )
    revision: str | None = option(None, help="Branch, tag or commit of the base model on the hub.")
    vectors: int | Mapping[str, int] = option(
        8,
        help="Vectors learned for each class: a number, or CLASS=NUMBER for every class. Gal et al. learn one; images "
        "that differ much from those of the base model need more.",
        least=1,
        most=MOST_VECTORS,
    )
    initial_words: Mapping[str, str] | None = option(
        None,
        help="Initial words of the classes: 'cyst=dark round cyst,metastasis=spot'. Default: the class names.",
    )
    templates: tuple[str, ...] | None = option(
        None, help="Prompts to learn with, each with one {} for the class. Default: ten plain ones."
    )
    modality: str | None = option(
        None, help="A word for the default prompts, used without templates: ultrasound, CT, X-ray."
    )
    prompt: str | None = option(
        None, help="The prompt that images are drawn with, with one {}. Default: the first template."
    )
    sampler: Any = option(  # noqa: RUF009
        "paper", help="How images are drawn: paper (50 steps of DDIM, scale 10) or fast (20 of DPM-Solver++)."
    )

    def check(self) -> None:
        """Refuse prompts without a place for the class, and samplers that do not exist."""
        choose_templates(self.templates, modality=self.modality)
        if self.prompt is not None:
            check_template(self.prompt)
        SamplerSettings.of(self.sampler)


@dataclass(frozen=True, kw_only=True)
class TextualInversionSettings(TrainingSettings):
    """How embeddings are learned."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Gal et al. (arXiv 2208.01618): 5,000 steps in the paper's section 4, 6,100 in the configurations of their
        # code, of 4 images of one concept. The batch is twice theirs, since it is of several classes.
        "gal": {"steps": 6_100, "batch_size": 8},
        # The budget that Lee et al. (arXiv 2405.20650), section 3.1, give their GANs; they say nothing of their
        # Textual Inversion's, only that the diffusion model is not fine-tuned.
        "paper": {"steps": 70_000, "batch_size": 8},
    }

    learning_rate: float | None = option(
        None,
        help="Of AdamW for the vectors. Default: 0.02 for the paper's base model, 0.002 for Stable Diffusion.",
        above=0,
        most=10,
    )
    # Above 0 it pulls vectors to the origin, and a word vector's length means something. (In diffusers' first example
    # it ate whole vocabularies: issues 507, 1009 and 1176 there.)
    weight_decay: float = option(0.0, help="Of AdamW for the vectors.", least=0, rare=True)
    mirror: bool = option(False, help="Mirror images left to right, half of the time. Do not use it if sides matter.")
    cache_latents: bool = option(
        True, help="Encode every image once, at the start, instead of at every step.", runtime=True
    )
    one_template_a_step: bool = option(
        True,
        help="Draw one prompt per class in a step, instead of one per image, which takes more time.",
        rare=True,
    )
    tune: Literal["embeddings", "lora"] = option(
        "embeddings", help="Train only the embeddings, as in the paper, or also small changes to the U-Net (lora)."
    )
    lora_rank: int = option(4, help="Rank of the adapters.", least=1, most=1024)
    lora_learning_rate: float = option(1e-4, help="Of AdamW for the adapters.", above=0, most=10)
    lora_after: int = option(0, help="Steps that train only the embeddings, before the adapters.", least=0)
    gradient_checkpointing: bool = option(
        False, help="Recompute the activations of the U-Net instead of storing them, to save memory.", runtime=True
    )
    accumulate: int = option(
        1,
        help="Number of parts that each process divides its batch into, to save memory.",
        least=1,
        runtime=True,
    )
    checkpoint_every: int = option(8_000, help="Images between checkpoints and sample sheets.", least=1, runtime=True)

    def check(self) -> None:
        """Refuse adapters that would never learn."""
        if self.tune == "lora" and self.lora_after >= self.steps:
            raise InputError(
                f"lora_after must be below the number of steps, {self.steps}, got {self.lora_after}: the adapters "
                "would never learn"
            )

    def identity(self) -> dict[str, Any]:
        """What defines a run; the adapters' settings only where there are adapters."""
        return {
            name: value
            for name, value in super().identity().items()
            if self.tune == "lora" or not name.startswith("lora_")
        }
