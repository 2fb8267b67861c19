"""The settings that every training of a generator has."""

from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal

from genmix_transforms.settings import Settings, option

LARGEST_BATCH = 65_536
"""Images. More than that is a slip, and looking up which images they are would take hours."""

LONGEST = 10**9
"""Steps. More than that is a slip."""

FAST_MATH_HELP = (
    "On CUDA, compute float32 matrix products and convolutions in TF32 (the range of float32, 10 bits of mantissa) and "
    "let cuDNN time its algorithms and take the fastest, which may be another in another run. Off: float32 as IEEE has "
    "it, and cuDNN's deterministic algorithms. No effect on a CPU."
)
"""Said by the settings of a generator's training and by a comparison's protocol."""

_RECORDED_APART = ("preset", "steps", "batch_size", "mixed_precision")
"""What a run's record has under names of its own: a preset is what it sets, and the steps may be raised."""


Augmentation = Literal["color", "translation", "cutout"]
"""What DiffAugment is made of, see :mod:`genmix_transforms.generators.augmentation`."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How a generator is trained; each kind adds its own.

    Adding a field here or in a kind's settings is all that a new option takes: ``fit`` checks it, the command line and
    configuration files offer it, the tables of the documentation list it, and the run's provenance records it.

    Attributes:
        FINE_TUNING: settings of which a value given beside a pool is for the fine-tuning alone, not the pre-training.
    """

    FINE_TUNING: ClassVar[tuple[str, ...]] = ("preset", "steps", "learning_rate")

    preset: str = option(help="Named values for the options that are not given.")
    steps: int = option(help="Optimizer steps.", least=1, most=LONGEST)
    batch_size: int = option(help="Images in a step, over all processes.", least=1, most=LARGEST_BATCH)
    checkpoint_every: int = option(20_000, help="Images between checkpoints and sample sheets.", least=1, runtime=True)
    # float16 is not offered: its narrow range turns GAN and diffusion losses into NaN after some thousand steps.
    mixed_precision: Literal["no", "bf16"] = option("no", help="bf16 for devices that support it.")
    # Runtime, though it rounds otherwise: two trainings on a GPU need not end alike in any case, and a run that began
    # on another device, or before there was this, must be able to go on.
    fast_math: bool = option(True, help=FAST_MATH_HELP, runtime=True, rare=True)
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = option(
        (), help="Trackers to send losses, learning rates, speed and sheets to.", runtime=True
    )

    def identity(self) -> dict[str, Any]:
        """What defines a run, besides its data, its seed and its batch: a resumed run must have the same."""
        return {
            setting.name: self.to_json()[setting.name]
            for setting in self.options()
            if not setting.runtime and setting.name not in _RECORDED_APART
        }

    @classmethod
    def assumed(cls) -> dict[str, Any]:
        """What a run had whose record lacks a setting, because it was made before the setting was: the default."""
        return {
            setting.name: list(setting.default) if isinstance(setting.default, tuple) else setting.default
            for setting in cls.options()
            if setting.default is not MISSING and not setting.runtime and setting.name not in _RECORDED_APART
        }
