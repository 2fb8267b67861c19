"""A whole training of a StyleGAN: its options, put together, and handed to the loop."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.generators.adaptive_augmentation import AdaptiveAugmentation
from genmix_transforms.generators.augmentation import check_policy
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.stylegan.checks import check_group, check_start, check_training
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.growth import doublings, resolution_at
from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.schedule import PRESETS, GrowingSchedule
from genmix_transforms.generators.stylegan.training import StyleGANTraining
from genmix_transforms.generators.training import train

if TYPE_CHECKING:
    from genmix_transforms.generators.stylegan.generator import StyleGAN

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What defines a run beside its network, its data and its seed: :meth:`StyleGAN.fit` says what each is."""

    steps: int
    batch_size: int
    learning_rate: float
    gamma: float | None
    r1_interval: int
    style_mixing: float
    start_resolution: int | None
    growing_share: float | None
    minibatch_group: int
    augment: tuple[str, ...]
    augment_target: float | None
    augment_ramp: float
    mirror: bool
    ema_half_life: float

    @classmethod
    def of(
        cls,
        *,
        preset: str,
        steps: int | None,
        batch_size: int | None,
        learning_rate: float | None,
        gamma: float | None,
        r1_interval: int,
        style_mixing: float,
        start_resolution: int | None,
        growing_share: float | None,
        minibatch_group: int,
        augment: Sequence[str],
        augment_target: float | None,
        augment_ramp: float,
        mirror: bool,
        ema_half_life: float,
    ) -> "TrainingSettings":
        """The preset's budget, where nothing else is said.

        Raises:
            InputError: no such preset, or values out of range.
        """
        if preset not in PRESETS:
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        budget = PRESETS[preset]
        settings = cls(
            steps=whole_number(budget.steps if steps is None else steps, name="steps", least=1),
            batch_size=whole_number(
                budget.batch_size if batch_size is None else batch_size, name="batch_size", least=1
            ),
            learning_rate=budget.learning_rate if learning_rate is None else learning_rate,
            gamma=budget.gamma if gamma is None else gamma,
            r1_interval=r1_interval,
            style_mixing=style_mixing,
            start_resolution=start_resolution,
            growing_share=growing_share,
            minibatch_group=minibatch_group,
            augment=check_policy(augment),
            augment_target=augment_target,
            augment_ramp=augment_ramp,
            mirror=mirror,
            ema_half_life=ema_half_life,
        )
        check_training(
            gamma=settings.gamma,
            style_mixing=style_mixing,
            growing_share=growing_share,
            augment=settings.augment,
            augment_target=augment_target,
            r1_interval=r1_interval,
            minibatch_group=minibatch_group,
            learning_rate=settings.learning_rate,
            ema_half_life=ema_half_life,
            augment_ramp=augment_ramp,
        )
        return settings


def fit_stylegan(
    generator: "StyleGAN",
    dataset: PatchDataset,
    *,
    out: str | Path,
    settings: TrainingSettings,
    checkpoint_every: int,
    mixed_precision: str,
    compiled: bool,
    seed: int,
    warm_start: bool,
    restart: bool,
    device: str | torch.device | None,
    progress: bool,
) -> StyleGANNetwork:
    """Train, and return the averaged network; :meth:`StyleGAN.fit` says the rest."""
    full = generator.network_resolution
    start = settings.start_resolution
    if start is None:
        start = resolution_at(float(generator.network.growth)) if warm_start else 8
    check_start(start, full=full)
    seed = check_seed(seed)
    generator.check_trainable_on(dataset)
    processes = Processes.join(device)
    check_group(settings.batch_size, processes=processes.count, group=settings.minibatch_group)
    if any(generator.padding):
        log.warning(
            "%s pixels are no power of two: trained at %s on mirrored borders, and cropped back when drawn",
            generator.image_shape[1],
            full,
        )

    discriminator = _first_discriminator(generator, settings.minibatch_group, seed=seed, warm_start=warm_start)
    started_from = {"weights": generator.weights_hash, **generator.provenance} if warm_start else None
    if not warm_start:
        initialise(generator.network, seed=seed)
    generator.to(processes.device)
    training = StyleGANTraining(
        generator,
        discriminator.to(processes.device),
        schedule=GrowingSchedule(
            start=doublings(start),
            full=doublings(full),
            images=settings.steps * settings.batch_size,
            growing_share=settings.growing_share,
        ),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        r1_interval=settings.r1_interval,
        style_mixing=settings.style_mixing,
        augment=settings.augment,
        adaptive=None
        if settings.augment_target is None
        else AdaptiveAugmentation(target=settings.augment_target, ramp=settings.augment_ramp, device=processes.device),
        mirror=settings.mirror,
        ema_half_life=settings.ema_half_life,
        padding=generator.padding,
        compiled=compiled,
        gather=processes.gather,
    )
    options = {**asdict(settings), "augment": list(settings.augment), "start_resolution": start}
    del options["steps"], options["batch_size"]  # the loop records these itself, and lets the steps be raised
    train(
        training,
        dataset,
        out=out,
        snapshot=lambda: generator.with_network(training.result()),
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=seed,
        options={
            "kind": generator.kind,
            "config": generator.config,
            **options,
            **({"started_from": started_from["weights"]} if started_from else {}),
        },
        checkpoint_every=checkpoint_every,
        mixed_precision=mixed_precision,
        restart=restart,
        progress=progress,
        processes=processes,
        started_from=started_from,
    )
    return training.result()


def _first_discriminator(
    generator: "StyleGAN", minibatch_group: int, *, seed: int, warm_start: bool
) -> StyleGANDiscriminator:
    """The discriminator that the training starts with."""
    discriminator = generator.new_discriminator(minibatch_group=minibatch_group)
    if warm_start and generator.discriminator is not None:
        discriminator.load_state_dict(generator.discriminator.state_dict())
    else:
        initialise(discriminator, seed=seed + 1)
    return discriminator
