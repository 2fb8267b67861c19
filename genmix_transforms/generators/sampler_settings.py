"""What the settings of every diffusion sampler have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from genmix_transforms.errors import InputError
from genmix_transforms.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class DiffusionSampler(Settings):
    """How a diffusion model's images are drawn. Other settings draw other images: they are part of an image's identity.

    A subclass names its methods with a ``Literal``, and adds what is its own.

    Attributes:
        SAMPLERS: named sets of values, which :meth:`of` takes in place of settings.
    """

    SAMPLERS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    method: str = option("ddim", help="The solver.")
    steps: int = option(25, help="Passes through the network, from pure noise to the image.", least=1)
    eta: float = option(
        0.0, help="Noise that ddim adds at each step, as a share of what ddpm adds.", least=0, most=1, rare=True
    )
    guidance_scale: float = option(
        1.0, help="Classifier-free guidance: how far to go toward the class; 1 is no guidance.", least=0
    )
    precision: Literal["float32", "bfloat16"] = option(
        "float32", help="Precision of the networks (autocast). The sampler's own arithmetic stays in float32."
    )
    batch_size: int = option(
        8,
        help="Number of images in every pass. A different number may round differently, and an image would depend on "
        "the others drawn with it.",
        least=1,
    )

    def check(self) -> None:
        """Only ddim has an ``eta``."""
        if self.eta and self.method != "ddim":
            raise InputError(f"eta is ddim's, from 0 to 1, got {self.eta} with {self.method}")

    @classmethod
    def of(cls, given: "DiffusionSampler | Mapping[str, Any] | str | None", *, name: str = "sampler") -> Self:
        """Settings from a name in :attr:`SAMPLERS`, or from a mapping as ``to_json`` makes it; None: the defaults.

        Raises:
            InputError: something else, a name that is no setting, or values that cannot work.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str) and cls.SAMPLERS:
            if given not in cls.SAMPLERS:
                raise InputError(f"{name}: must be one of {', '.join(cls.SAMPLERS)}, or settings, got {given!r}")
            given = cls.SAMPLERS[given]
        if given is not None and not isinstance(given, Mapping):
            names = f"a name ({', '.join(cls.SAMPLERS)}), " if cls.SAMPLERS else ""
            raise InputError(f"{name}: expected {names}{cls.__name__} or a mapping, got a {type(given).__name__}")
        return super().of(given or {}, name=name)
