"""The training of an ADM: settings, one step, and how a run is put together."""

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.generators.adm.estimate import measure
from genmix_transforms.generators.adm.loss import BOUND_WEIGHT, HybridLoss
from genmix_transforms.generators.adm.network import initialise
from genmix_transforms.generators.adm.timesteps import TIMESTEPS, TimestepSampler, make_timesteps
from genmix_transforms.generators.adm.tuning import TUNE, prepare_for_tuning, trained, with_weights
from genmix_transforms.generators.ema import MovingAverage, half_life_of
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.processes import Processes, own_device
from genmix_transforms.generators.state import Stateful
from genmix_transforms.generators.training import MIXED_PRECISION, train

if TYPE_CHECKING:
    from genmix_transforms.generators.adm.generator import ADM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """A named training schedule."""

    steps: int  # optimiser iterations
    batch_size: int  # images, all processes together
    learning_rate: float  # of AdamW


PRESETS = {
    # The learning rate is that of Dhariwal, Nichol (appendix I); batch and steps are not theirs (256 images, millions of
    # steps), but suit some hundreds of images.
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
        schedule = PRESETS[self.preset]
        for name in ("steps", "batch_size", "learning_rate"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(schedule, name))
        for name in ("steps", "batch_size", "lora_rank", "accumulate", "checkpoint_every"):
            whole_number(getattr(self, name), name=name, least=1)
        if not 0 < _number(self, "learning_rate") < float("inf"):
            raise InputError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= _number(self, "weight_decay") < float("inf"):
            raise InputError(f"weight_decay must be at least 0, got {self.weight_decay}")
        half_life_of(_number(self, "ema_decay"), batch_size=1)
        if self.ema_device != "auto":
            own_device(self.ema_device)
        if self.label_dropout is not None and not 0 <= _number(self, "label_dropout") < 1:
            raise InputError(f"label_dropout must be at least 0 and below 1, got {self.label_dropout}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TrainingSettings":
        """Settings from options by name; an unknown one is an error that names it."""
        names = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in names]
        if unknown:
            raise InputError(f"ADM.fit: no such option: {', '.join(unknown)}; there are {', '.join(names)}")
        return cls(**options)


class ADMTraining:
    """A network in training, its optimiser, its average, and what it learns of the timesteps.

    Args:
        generator: what is trained.
        network: its weights, on the device, as :func:`prepare_for_tuning` left them.
        settings: see there.
        loss: on the same device.
        timesteps: what draws them.
        ema_device: where the average is kept; None: beside the network.
    """

    def __init__(
        self,
        generator: "ADM",
        network: nn.Module,
        *,
        settings: TrainingSettings,
        loss: HybridLoss,
        timesteps: TimestepSampler,
        ema_device: torch.device | None = None,
    ) -> None:
        self.generator = generator
        self.network = network
        self.settings = settings
        self.loss = loss
        self.timesteps = timesteps
        self.label_dropout = label_dropout(generator, settings)
        self._trained = nn.ParameterList(trained(network))
        assert settings.batch_size is not None and settings.learning_rate is not None
        self.average = MovingAverage(
            self._trained,
            half_life=half_life_of(settings.ema_decay, batch_size=settings.batch_size),
            device=ema_device,
        )
        self.optimiser = torch.optim.AdamW(
            self._trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def state_objects(self) -> Mapping[str, Stateful]:
        """The network, the optimiser, the average and the timesteps' losses."""
        return {
            "network": self.network,
            "optimiser": self.optimiser,
            "average": self.average,
            "timesteps": self.timesteps,
        }

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step on noisy images of all kinds of noise.

        Returns:
            "mse", the error in the noise; and, of a network that tells the variance, "bits_per_dim": the variational
            bound, as the mean of a term estimates it.
        """
        count = len(images)
        if self.settings.mirror:
            turned = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
            images = torch.where(turned, images.flip(-1), images)
        if self.label_dropout:
            hidden = torch.rand(count, device=labels.device) < self.label_dropout
            labels = torch.where(hidden, torch.full_like(labels, self.generator.configuration.num_classes), labels)
        timesteps, weights = self.timesteps.draw(count)
        added = torch.randn_like(images)
        terms = []
        for part in parts(count, self.settings.accumulate):
            squared, bits = self.losses(images[part], labels[part], timesteps[part], added[part])
            each = self._sum(squared, bits)
            (each * weights[part]).sum().div(count).backward()
            terms.append((squared.detach(), None if bits is None else bits.detach()))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        assert self.settings.batch_size is not None
        self.average.update(self._trained, batch=self.settings.batch_size, images_seen=images_seen)
        squared = torch.cat([term for term, _ in terms])
        bits = torch.cat([term for _, term in terms if term is not None]) if terms[0][1] is not None else None
        self.timesteps.update(timesteps, self._sum(squared, bits))
        values = {"mse": (weights * squared).mean()}
        return values if bits is None else {**values, "bits_per_dim": self.loss.count * (weights * bits).mean()}

    def losses(self, images: Tensor, labels: Tensor, timesteps: Tensor, added: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two parts of the loss of each image."""
        noisy = self.loss.noisy(images, added, timesteps)
        told = labels if self.generator.configuration.class_cond else None
        prediction = self.network(noisy, timesteps, class_labels=told, return_dict=False)[0]
        return self.loss(prediction, images, added, timesteps)

    def _sum(self, squared: Tensor, bits: Tensor | None) -> Tensor:
        # L_vlb is the sum of all terms: one of them stands for as many as there are timesteps.
        return squared if bits is None else squared + BOUND_WEIGHT * self.loss.count * bits

    def snapshot(self) -> "ADM":
        """The ADM with the averaged weights: a copy, for which the gradients have left room."""
        return self.generator.with_network(with_weights(self.network, list(self.average.average.parameters())))


def fit_adm(
    generator: "ADM",
    dataset: PatchDataset,
    *,
    out: str | Path,
    settings: TrainingSettings,
    seed: int,
    warm_start: bool,
    restart: bool,
    device: str | torch.device | None,
    progress: bool,
) -> nn.Module:
    """Train, and return the averaged network; :meth:`ADM.fit` says the rest."""
    seed = check_seed(seed)
    assert settings.steps is not None and settings.batch_size is not None
    generator.check_trainable_on(dataset)
    dropout = label_dropout(generator, settings)
    processes = Processes.join(device)
    _check_batch(dataset, settings, processes)
    if not warm_start and settings.tune != "all":
        raise InputError(
            f"ADM.fit: tune {settings.tune!r} adapts a network that knows images already: give warm_start=True "
            "(--init FOLDER), or tune 'all'"
        )
    network: Any = copy.deepcopy(generator.network)
    if not warm_start:
        initialise(network, seed=seed)
    prepare_for_tuning(network, settings.tune, lora_rank=settings.lora_rank, seed=seed)
    network.train().to(processes.device)
    if settings.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    bits = torch.iinfo(generator.pixel_dtype).bits
    loss = HybridLoss(generator.schedule, device=processes.device, levels=2**bits)
    training = ADMTraining(
        generator,
        network,
        settings=settings,
        loss=loss,
        timesteps=make_timesteps(settings.timesteps, loss.count, device=processes.device, processes=processes),
        ema_device=_place_average(generator, network, loss, settings=settings, processes=processes),
    )
    started_from = {"weights": generator.weights_hash, **generator.provenance} if warm_start else None
    train(
        training,
        dataset,
        out=out,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=seed,
        options={
            "kind": generator.kind,
            "classes": list(generator.classes),
            "configuration": generator.configuration.to_flags(),
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "ema_decay": settings.ema_decay,
            "label_dropout": dropout,
            "mirror": settings.mirror,
            "timesteps": settings.timesteps,
            "tune": settings.tune,
            **({"lora_rank": settings.lora_rank} if settings.tune == "lora" else {}),
            **({"started_from": started_from["weights"]} if started_from else {}),
        },
        checkpoint_every=settings.checkpoint_every,
        mixed_precision=settings.mixed_precision,
        restart=restart,
        progress=progress,
        processes=processes,
        started_from=started_from,
        evolution=Evolution(generator.classes, batch_size=settings.batch_size),
    )
    return training.snapshot().network


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


def parts(count: int, number: int) -> Iterator[slice]:
    """``count`` images in ``number`` parts, as even as can be."""
    for part in range(number):
        yield slice(part * count // number, (part + 1) * count // number)


def _check_batch(dataset: PatchDataset, settings: TrainingSettings, processes: Processes) -> None:
    batch_size = settings.batch_size or 1
    if batch_size > len(dataset):
        raise InputError(
            f"ADM.fit: {dataset.name} has {len(dataset)} images, fewer than a batch of {batch_size}; give a batch size "
            f"(--batch-size) of at most {len(dataset)}"
        )
    if settings.accumulate > max(1, batch_size // processes.count):
        raise InputError(
            f"ADM.fit: a batch of {batch_size} cannot be shared into {settings.accumulate} parts in each of "
            f"{processes.count} processes; give a smaller accumulate"
        )


def _place_average(
    generator: "ADM", network: nn.Module, loss: HybridLoss, *, settings: TrainingSettings, processes: Processes
) -> torch.device | None:
    """Say what the training will take, and where the average goes: None, beside the network."""
    device = processes.device
    given = None if settings.ema_device == "auto" else torch.device(settings.ema_device)
    if not log.isEnabledFor(logging.INFO) and (given is not None or device.type != "cuda"):
        return given
    assert settings.steps is not None and settings.batch_size is not None
    count = -(-settings.batch_size // processes.count // settings.accumulate)
    shape = (count, *generator.image_shape)

    def one_pass() -> Tensor:
        images = torch.zeros(shape, device=device)
        timesteps = torch.randint(0, loss.count, (count,), device=device)
        labels = torch.zeros(count, dtype=torch.int64, device=device)
        told = labels if generator.configuration.class_cond else None
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.mixed_precision == "bf16"):
            prediction = network(images, timesteps, class_labels=told, return_dict=False)[0]
            squared, bits = loss(prediction, images, torch.randn_like(images), timesteps)
            return (squared if bits is None else squared + bits).mean()

    estimate = measure(network, one_pass, parts=settings.accumulate, device=device)
    place = given
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + 4 * estimate.weights  # the weights are there already
        if given is None and estimate.bytes > 0.95 * free:
            place = torch.device("cpu")
        if estimate.bytes - (place is not None) * estimate.average_bytes > free:
            log.warning(
                "ADM.fit: about %.1f GiB are needed, and %.1f are free; accumulate, gradient_checkpointing, or tune "
                "'attention' or 'lora' take less",
                estimate.bytes / 2**30, free / 2**30,
            )  # fmt: skip
    if processes.is_main:
        elsewhere = place is not None and place.type != device.type
        log.info("ADM: %s", estimate.text(steps=settings.steps, average_elsewhere=elsewhere))
    return place


def _number(settings: TrainingSettings, name: str) -> float:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, got {value!r}")
    return float(value)
