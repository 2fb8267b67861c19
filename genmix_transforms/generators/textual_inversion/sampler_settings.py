"""A sampler's settings: part of the identity of every image that is drawn with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.generators.sampler_options import check_sampler, known_settings

METHODS = ("ddim", "dpmsolver++", "unipc")

PRESETS: dict[str, dict[str, Any]] = {
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
            if settings not in PRESETS:
                raise InputError(f"sampler: must be one of {', '.join(PRESETS)}, or settings, got {settings!r}")
            settings = PRESETS[settings]
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(
                f"sampler: expected a preset ({', '.join(PRESETS)}), SamplerSettings or a mapping, "
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
