"""A whole training of an ADM: put together, estimated, and handed to the loop."""

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.generators.adm.estimate import measure
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.network import initialise
from genmix_transforms.generators.adm.settings import TrainingSettings, label_dropout
from genmix_transforms.generators.adm.timesteps import make_timesteps
from genmix_transforms.generators.adm.training import ADMTraining, noise_losses
from genmix_transforms.generators.adm.tuning import prepare_for_tuning
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.training import train

if TYPE_CHECKING:
    from genmix_transforms.generators.adm.generator import ADM

log = logging.getLogger(__name__)


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
) -> Any:
    """Train, and return the averaged network; :meth:`ADM.fit` says the rest."""
    seed = check_seed(seed)
    schedule = settings.schedule
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
    started_from = _started_from(generator) if warm_start else None
    train(
        training,
        dataset,
        out=out,
        snapshot=lambda: generator.with_network(training.result()),
        steps=schedule.steps,
        batch_size=schedule.batch_size,
        seed=seed,
        options={
            "kind": generator.kind,
            "classes": list(generator.classes),
            "configuration": generator.configuration.to_flags(),
            "learning_rate": schedule.learning_rate,
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
        evolution=Evolution(generator.classes, batch_size=schedule.batch_size),
    )
    return generator.with_network(training.result()).network


def _started_from(generator: "ADM") -> dict[str, Any]:
    """The provenance of the weights; what was adapted has seen the training set of what it was adapted from."""
    origin = {"weights": generator.weights_hash, **generator.provenance}
    before = generator.provenance.get("adapted_from", {})
    if "training_set" in before:
        origin.setdefault("training_set", before["training_set"])
    return origin


def _check_batch(dataset: PatchDataset, settings: TrainingSettings, processes: Processes) -> None:
    batch_size = settings.schedule.batch_size
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
    count = -(-settings.schedule.batch_size // processes.count // settings.accumulate)
    shape = (count, *generator.image_shape)

    def one_pass() -> Tensor:
        images = torch.zeros(shape, device=device)
        timesteps = torch.randint(0, loss.count, (count,), device=device)
        labels = torch.zeros(count, dtype=torch.int64, device=device)
        told = labels if generator.configuration.class_cond else None
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.mixed_precision == "bf16"):
            squared, bits = noise_losses(network, loss, images, told, timesteps, torch.randn_like(images))
            return (squared if bits is None else squared + bits).mean()

    estimate = measure(network, one_pass, parts=settings.accumulate, device=device)
    place = given
    if device.type == "cuda":
        # What this process holds counts as free: the weights, and what the trial pass has left in the allocator.
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        if settings.ema_device == "auto" and estimate.too_much_for(free):
            place = torch.device("cpu")
        if estimate.too_much_for(free, average_elsewhere=place is not None and place.type == "cpu"):
            log.warning(
                "ADM.fit: about %.1f GiB are needed, and %.1f are free; accumulate, gradient_checkpointing, or tune "
                "'attention' or 'lora' take less",
                estimate.bytes / 2**30, free / 2**30,
            )  # fmt: skip
    if processes.is_main:
        elsewhere = place is not None and place.type != device.type
        log.info("ADM: %s", estimate.text(steps=settings.schedule.steps, average_elsewhere=elsewhere))
    return place
