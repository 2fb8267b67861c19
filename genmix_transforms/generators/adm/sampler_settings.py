"""A sampler's settings: part of the identity of every image that is drawn with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.generators.sampler_options import check_sampler, known_settings

METHODS = ("ddpm", "ddim", "dpmsolver++", "unipc")


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How images are drawn. Other settings draw other images: they are part of a generator's configuration.

    Args:
        method: "ddpm" (ancestral, for 100 to 1000 steps), "ddim" (deterministic with ``eta`` 0), "dpmsolver++" or
            "unipc" (second order, for 10 to 50 steps).
        steps: passes through the network, at most as many as the diffusion has timesteps.
        eta: ddim: noise added at each step, as a share of ddpm's; from 0 to 1.
        guidance_scale: classifier-free guidance: how far to go from "no class" towards the class; 1 is no guidance.
            The network must have been trained with label dropout.
        classifier_scale: classifier guidance: the scale of the classifier's gradient; 0 is no guidance.
        precision: "float32", or "bfloat16" for the network's arithmetic (autocast).
        batch_size: images of one pass, always as many: another number may round otherwise, and then an image would
            depend on who was drawn with it.

    Raises:
        InputError: values that cannot work.
    """

    method: str = "ddim"
    steps: int = 25
    eta: float = 0.0
    guidance_scale: float = 1.0
    classifier_scale: float = 0.0
    precision: str = "float32"
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_sampler(self, methods=METHODS, numbers=("guidance_scale", "classifier_scale", "eta"))

    @classmethod
    def of(cls, settings: "SamplerSettings | Mapping[str, Any] | None") -> "SamplerSettings":
        """Settings from a mapping as :meth:`to_json` makes it; None: the defaults."""
        if isinstance(settings, cls):
            return settings
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(f"sampler: expected SamplerSettings or a mapping, got a {type(settings).__name__}")
        return cls(**known_settings(cls, settings or {}))

    def to_json(self) -> dict[str, Any]:
        """The settings, as JSON can hold them."""
        return asdict(self)

    @property
    def spacing(self) -> str:
        """Which timesteps the steps are at: the original's for ddpm and ddim."""
        return "leading" if self.method == "ddim" else "linspace"
