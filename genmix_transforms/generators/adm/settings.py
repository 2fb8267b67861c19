"""The settings of an ADM: of its network, of its training, and of the training of the classifier that guides it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from genmix_transforms.errors import InputError
from genmix_transforms.generators.processes import own_device
from genmix_transforms.generators.settings import Augmentation, TrainingSettings
from genmix_transforms.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class ADMNetworkSettings(Settings):
    """What its network is, besides the size and the classes."""

    configuration: Any = option(  # noqa: RUF009 (a name, flags or an ADMConfiguration, which is frozen)
        None,
        help="The network: small-32, small-64, one of the published (64, 128, 256, 256-uncond, 512), or the original's "
        "flags (a JSON file, on the command line). Default: the small one closest to the size.",
    )
    null_class: bool | None = option(
        None,
        help='Whether the network has a row for "no class", which classifier-free guidance needs. Default: as in the '
        "configuration.",
        rare=True,
    )


@dataclass(frozen=True, kw_only=True)
class ADMSettings(TrainingSettings):
    """How it is trained."""

    FINE_TUNING: ClassVar[tuple[str, ...]] = (*TrainingSettings.FINE_TUNING, "tune", "lora_rank", "label_dropout")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The learning rate is that of Dhariwal, Nichol (appendix I); batch and steps are not theirs (256 images,
        # millions of steps), but suit some hundreds of images.
        "adm": {"steps": 50_000, "batch_size": 32, "learning_rate": 1e-4, "tune": "all"},
        # From a network that knows images already.
        "fine-tune": {"steps": 20_000, "batch_size": 16, "learning_rate": 1e-4, "tune": "all"},
        # A row for each class in a network that is not changed.
        "classes": {"steps": 2_000, "batch_size": 16, "learning_rate": 1e-2, "tune": "classes"},
        # The budget that Lee et al. (arXiv 2405.20650), section 3.1, give their GANs; they say nothing of their ADM's.
        # The learning rate is ADM's: theirs, 0.001, is ten times that.
        "paper": {"steps": 70_000, "batch_size": 8, "learning_rate": 1e-4, "tune": "all"},
    }

    learning_rate: float = option(help="Of AdamW.", above=0, most=10)
    weight_decay: float = option(0.0, help="Of AdamW.", least=0, most=10)
    ema_decay: float = option(
        0.9999,
        help="Decay of the averaged weights at a step. It is smaller at the start: the half-life of the "
        "average, at most 6,931 steps for 0.9999, is never more than a twentieth of the run so far.",
        above=0,
        below=1,
    )
    ema_device: str = option(
        "auto",
        help="Where the average is stored: auto (with the network, or on the CPU if GPU memory is short), or a device.",
        rare=True,
        runtime=True,
    )
    label_dropout: float | None = option(
        None,
        help="Share of the images shown without their class, which classifier-free guidance needs. Default: 0.1 for a "
        'network with a row for "no class", else 0.',
        least=0,
        below=1,
    )
    mirror: bool = option(False, help="Mirror images left to right, half of the time. Do not use it if sides matter.")
    timesteps: Literal["uniform", "loss-second-moment"] = option(
        "uniform", help="Draw noise levels uniformly, or more often where the loss is large."
    )
    tune: Literal["all", "attention", "lora", "classes"] = option(
        "all",
        help="Which part of the network to train: all; attention or lora (with both ends), which take less memory; or "
        "classes, only one vector for each class.",
    )
    lora_rank: int = option(8, help="Rank of the adapters with tune lora.", least=1, most=4096)
    gradient_checkpointing: bool = option(
        False, help="Recompute activations instead of storing them: less memory, more time.", runtime=True
    )
    accumulate: int = option(
        1,
        help="Number of parts that each process divides its share of a batch into, to save memory.",
        least=1,
        runtime=True,
    )

    def check(self) -> None:
        """Check that there is such a device."""
        if self.ema_device != "auto":
            own_device(self.ema_device)

    def identity(self) -> dict[str, Any]:
        """What defines a run: the rank only where there are adapters."""
        identity = super().identity()
        if self.tune != "lora":
            del identity["lora_rank"]
        return identity


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(TrainingSettings):
    """How the classifier of noisy images is trained that guides an ADM's sampling."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The rate and the weight decay are those of Dhariwal, Nichol (appendix H).
        "adm": {"steps": 10_000, "batch_size": 32, "learning_rate": 3e-4, "weight_decay": 0.05}
    }

    learning_rate: float = option(help="Of AdamW.", above=0, most=10)
    weight_decay: float = option(help="Of AdamW.", least=0, most=10)
    augment: tuple[Augmentation, ...] = option(
        ("translation",),
        help="Augmentation of the images before the noise (DiffAugment), or none. The original uses random crops to "
        "reduce overfitting.",
    )
    mirror: bool = option(False, help="Mirror images left to right, half of the time. Do not use it if sides matter.")


def resolve(settings: ADMSettings, *, null_class: bool, warm_start: bool, processes: int) -> ADMSettings:
    """Check the settings against the network and the processes; ``label_dropout`` becomes a number.

    Raises:
        InputError: a batch that cannot be shared, a part of a new network to tune, dropped labels that the
            network has no row for, or a row that nothing would teach.
    """
    if settings.accumulate > max(1, settings.batch_size // processes):
        raise InputError(
            f"ADM.fit: a batch of {settings.batch_size} cannot be shared into {settings.accumulate} parts in each of "
            f"{processes} processes; give a smaller accumulate"
        )
    if not warm_start and settings.tune != "all":
        raise InputError(
            f"ADM.fit: tune {settings.tune!r} adapts a network that knows images already: give warm_start=True "
            "(--init FOLDER), or tune 'all'"
        )
    if settings.tune == "classes":
        if settings.label_dropout:
            raise InputError(
                "ADM.fit: tune 'classes' leaves a row for \"no class\" as it is: dropped labels would teach nothing; "
                "leave label_dropout out"
            )
        return replace(settings, label_dropout=0.0)
    if settings.label_dropout and not null_class:
        raise InputError(
            'ADM.fit: label_dropout needs a network with a row for "no class": make it with null_class=True, or '
            "adapt(null_class=True) it"
        )
    if null_class and settings.label_dropout == 0:
        raise InputError(
            'ADM.fit: the network has a row for "no class" (null_class), which label_dropout 0 would never teach; '
            "leave label_dropout out (0.1), or make the network with null_class=False"
        )
    if settings.label_dropout is not None:
        return settings
    return replace(settings, label_dropout=0.1 if null_class else 0.0)
