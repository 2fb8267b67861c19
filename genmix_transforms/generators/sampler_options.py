"""What the settings of every diffusion sampler have in common: how they are checked, and read from a mapping."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, Protocol

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number

PRECISIONS = ("float32", "bfloat16")


class DiffusionSampler(Protocol):
    """The settings that ADM's sampler and Textual Inversion's both have."""

    @property
    def method(self) -> str:
        """The solver's name."""

    @property
    def steps(self) -> int:
        """Passes through the network."""

    @property
    def eta(self) -> float:
        """DDIM: noise added at each step, as a share of DDPM's."""

    @property
    def precision(self) -> str:
        """Of the network's arithmetic."""

    @property
    def batch_size(self) -> int:
        """Images of one pass."""


def check_sampler(settings: DiffusionSampler, *, methods: Collection[str], numbers: Collection[str]) -> None:
    """Check what all samplers have, and the settings named in ``numbers``.

    Args:
        settings: a sampler's settings.
        methods: names that its ``method`` may have.
        numbers: names of settings that are finite numbers, 0 or more.

    Raises:
        InputError: a value out of its range.
    """
    for name, allowed in (("method", methods), ("precision", PRECISIONS)):
        if getattr(settings, name) not in allowed:
            raise InputError(f"sampler: {name} must be one of {', '.join(allowed)}, got {getattr(settings, name)!r}")
    whole_number(settings.steps, name="sampler: steps", least=1)
    whole_number(settings.batch_size, name="sampler: batch_size", least=1)
    for name in numbers:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise InputError(f"sampler: {name} must be a number, at least 0, got {value!r}")
    if settings.eta > 1 or (settings.eta and settings.method != "ddim"):
        raise InputError(f"sampler: eta is ddim's, from 0 to 1, got {settings.eta} with {settings.method}")


def known_settings(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, if every name in it is a field of the dataclass ``kind``.

    Raises:
        InputError: other names.
    """
    names = [field.name for field in fields(kind)]
    unknown = [str(name) for name in given if name not in names]
    if unknown:
        raise InputError(f"sampler: no such setting: {', '.join(unknown)}; there are {', '.join(names)}")
    return dict(given)
