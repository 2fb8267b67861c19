"""How an ADM is trained: presets and single numbers, checked before any work."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.adm.timesteps import TIMESTEPS
from genmix_transforms.generators.adm.tuning import TUNE
from genmix_transforms.generators.ema import half_life_of
from genmix_transforms.generators.processes import own_device
from genmix_transforms.generators.training import MIXED_PRECISION

if TYPE_CHECKING:
    from genmix_transforms.generators.adm.generator import ADM


@dataclass(frozen=True)
class Schedule:
    """A named training schedule."""

    steps: int  # optimiser iterations
    batch_size: int  # images, all processes together
    learning_rate: float  # of AdamW


PRESETS = {
    # The learning rate is that of Dhariwal, Nichol (appendix I); batch and steps are not theirs (256 images, millions
    # of steps), but suit some hundreds of images.
    "adm": Schedule(steps=50_000, batch_size=32, learning_rate=1e-4),
    # From a network that knows images already.
    "fine-tune": Schedule(steps=20_000, batch_size=16, learning_rate=1e-4),
    # The budget that Lee et al. (arXiv 2405.20650), section 3.1, give their GANs; they say nothing of their ADM's. The
    # learning rate is ADM's: theirs, 0.001, is ten times that.
    "paper": Schedule(steps=70_000, batch_size=8, learning_rate=1e-4),
}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How an ADM is trained.

    Args:
        preset: "adm" (50,000 steps of 32 images at 0.0001), "fine-tune" (20,000 of 16) or "paper" (70,000 of 8).
        steps: optimiser steps; None: the preset's.
        batch_size: images in a step, all processes together; None: the preset's.
        learning_rate: of AdamW; None: the preset's.
        weight_decay: of AdamW.
        ema_decay: what the averaged weights keep of themselves at a step. Early on less: the average's half-life, in
            full 6,931 steps for 0.9999, is never more than a twentieth of the run so far.
        ema_device: where the average is kept: "auto" (beside the network, or on the CPU when the GPU's memory is
            short), or the name of a device.
        label_dropout: share of the images shown without their class, which classifier-free guidance needs; None: 0.1
            for a network with a row for "no class", else 0.
        mirror: show images mirrored left to right, half of the time. Not where sides matter.
        timesteps: "uniform", or "loss-second-moment": more often where the loss is large.
        tune: "all", "attention" or "lora": what is trained, besides both ends of the network.
        lora_rank: of the adapters.
        gradient_checkpointing: compute activations twice instead of keeping them: less memory, more time.
        accumulate: parts that a process shares its batch into, one after the other: less memory.
        checkpoint_every: images between checkpoints and sample sheets.
        mixed_precision: "no" or "bf16".

    Raises:
        InputError: values that cannot work.
    """

    preset: str = "adm"
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    ema_decay: float = 0.9999
    ema_device: str = "auto"
    label_dropout: float | None = None
    mirror: bool = False
    timesteps: str = "uniform"
    tune: str = "all"
    lora_rank: int = 8
    gradient_checkpointing: bool = False
    accumulate: int = 1
    checkpoint_every: int = 20_000
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("preset", tuple(PRESETS)),
            ("timesteps", TIMESTEPS),
            ("tune", TUNE),
            ("mixed_precision", MIXED_PRECISION),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("steps", "batch_size"):
            whole_number(getattr(self.schedule, name), name=name, least=1)
        for name in ("lora_rank", "accumulate", "checkpoint_every"):
            whole_number(getattr(self, name), name=name, least=1)
        if not 0 < _number(self.schedule.learning_rate, "learning_rate") < float("inf"):
            raise InputError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= _number(self.weight_decay, "weight_decay") < float("inf"):
            raise InputError(f"weight_decay must be at least 0, got {self.weight_decay}")
        half_life_of(_number(self.ema_decay, "ema_decay"), batch_size=1)
        if self.ema_device != "auto":
            own_device(self.ema_device)
        if self.label_dropout is not None and not 0 <= _number(self.label_dropout, "label_dropout") < 1:
            raise InputError(f"label_dropout must be at least 0 and below 1, got {self.label_dropout}")

    @property
    def schedule(self) -> Schedule:
        """The preset, with the numbers that were given in their places."""
        given = {name: getattr(self, name) for name in ("steps", "batch_size", "learning_rate")}
        return replace(PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TrainingSettings":
        """Settings from options by name; an unknown one is an error that names it."""
        names = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in names]
        if unknown:
            raise InputError(f"ADM.fit: no such option: {', '.join(unknown)}; there are {', '.join(names)}")
        return cls(**options)


def label_dropout(generator: "ADM", settings: TrainingSettings) -> float:
    """The share of images shown without their class.

    Raises:
        InputError: there is no row for "no class", or nothing that would teach it.
    """
    has_row = generator.configuration.null_class
    if settings.label_dropout and not has_row:
        raise InputError(
            'ADM.fit: label_dropout needs a network with a row for "no class": make it with null_class=True, or '
            "adapt(null_class=True) it"
        )
    if has_row and settings.label_dropout == 0:
        raise InputError(
            'ADM.fit: the network has a row for "no class" (null_class), which label_dropout 0 would never teach; '
            "leave label_dropout out (0.1), or make the network with null_class=False"
        )
    return (0.1 if has_row else 0.0) if settings.label_dropout is None else settings.label_dropout


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, got {value!r}")
    return float(value)
