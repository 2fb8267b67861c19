"""``genmix train adm`` and ``genmix train adm-classifier``."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from genmix_transforms.cli.options import (
    AllData,
    BatchSize,
    Channels,
    CheckpointEvery,
    Data,
    Device,
    Fit,
    FitOption,
    GroupKey,
    MixedPrecision,
    Official,
    Out,
    Precision,
    Restart,
    Seed,
    Size,
    SplitSeed,
    Steps,
    comma_separated,
    open_training_set,
    propose_fill,
)
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed


class Timesteps(StrEnum):
    """Which timesteps a batch is trained on."""

    UNIFORM = "uniform"
    LOSS_SECOND_MOMENT = "loss-second-moment"


class Tune(StrEnum):
    """What of the network is trained."""

    ALL = "all"
    ATTENTION = "attention"
    LORA = "lora"


Configuration = Annotated[
    str | None,
    typer.Option(
        help="The network: small-32, small-64, one of the published (64, 128, 256, 512), or a JSON file of the "
        "original's flags. Left out, the small one nearest to the size."
    ),
]
LearningRate = Annotated[float | None, typer.Option(help="Of AdamW; left out, the preset's.")]
Accumulate = Annotated[
    int, typer.Option(help="Parts that each process shares its batch into, one after the other: less memory.")
]
Mirror = Annotated[
    bool, typer.Option("--mirror", help="Show images mirrored left to right, half of the time. Not where sides matter.")
]


def adm(
    context: typer.Context,
    data: Data,
    out: Out,
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    group_key: GroupKey = None,
    split_seed: SplitSeed = 0,
    official: Official = True,
    all_data: AllData = False,
    configuration: Configuration = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Fine-tune this ADM (a folder of genmix convert or train), adapted to the classes, channels and size "
            "of the data. Left out, training starts from scratch."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="adm (50,000 steps of 32 images), fine-tune (20,000 of 16), or paper (70,000 of 8); all at 0.0001. "
            "Left out: fine-tune with --init, else adm."
        ),
    ] = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    ema_decay: Annotated[
        float, typer.Option(help="What the averaged weights keep of themselves at a step; early on less.")
    ] = 0.9999,
    ema_device: Annotated[
        str,
        typer.Option(help="Where the average is kept: auto (on the CPU when the GPU's memory is short), or a device."),
    ] = "auto",
    label_dropout: Annotated[
        float | None, typer.Option(help="Share of the images shown without their class, for classifier-free guidance.")
    ] = None,
    mirror: Mirror = False,
    timesteps: Annotated[
        Timesteps, typer.Option(help="Noise levels all alike, or more often those where the loss is large.")
    ] = Timesteps.UNIFORM,
    tune: Annotated[
        Tune, typer.Option(help="What of the network is trained: with --init, attention or lora take less memory.")
    ] = Tune.ALL,
    lora_rank: Annotated[int, typer.Option(help="Of the adapters of --tune lora.")] = 8,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Compute activations twice instead of keeping them: less memory."
        ),
    ] = False,
    accumulate: Accumulate = 1,
    checkpoint_every: CheckpointEvery = 20_000,
    mixed_precision: MixedPrecision = Precision.NO,
    seed: Seed = 0,
    restart: Restart = False,
    device: Device = None,
) -> None:
    """Train an ADM, a diffusion model, from scratch or from other weights (--init).

    Leaves the generator (genmix fill takes it), evolution.png (the images of fixed seeds, before the training and at
    the checkpoints), a sheet for every checkpoint in samples/, and the losses in training/.

    Several processes: torchrun --nproc_per_node 2 -m genmix_transforms train adm ...
    """
    from genmix_transforms.generators import ADM
    from genmix_transforms.generators.adm.settings import TrainingSettings
    from genmix_transforms.generators.processes import own_device

    check_output_folder(out)
    own_device(device)
    check_seed(seed)
    settings = {
        "preset": preset or ("adm" if init is None else "fine-tune"),
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "ema_decay": ema_decay,
        "ema_device": ema_device,
        "label_dropout": label_dropout,
        "mirror": mirror,
        "timesteps": timesteps.value,
        "tune": tune.value,
        "lora_rank": lora_rank,
        "gradient_checkpointing": gradient_checkpointing,
        "accumulate": accumulate,
        "checkpoint_every": checkpoint_every,
        "mixed_precision": mixed_precision.value,
    }
    TrainingSettings.of(settings)
    if init is not None and configuration is not None:
        raise InputError("--init brings its own network; leave --configuration out")
    train = open_training_set(
        data,
        size=size,
        fit=fit,
        channels=channels,
        group_key=group_key,
        split_seed=split_seed,
        official=official,
        all_data=all_data,
        painter="ADM",
    )
    _, channel_count, side, _ = train.images.shape
    null_class = True if label_dropout else None
    if init is not None:
        generator = ADM.from_pretrained(init).adapt(
            classes=train.classes, channels=channel_count, resolution=side, null_class=null_class
        )
    else:
        generator = ADM(
            classes=train.classes,
            resolution=side,
            channels=channel_count,
            configuration=_configuration(configuration),
            null_class=null_class,
            bits=8 * train.images.dtype.itemsize,
        )
    generator.fit(
        train,
        out=out,
        warm_start=init is not None,
        seed=seed,
        restart=restart,
        device=device,
        progress=bool(context.obj),
        **settings,
    )
    propose_fill(out)


def adm_classifier(
    context: typer.Context,
    data: Data,
    generator: Annotated[Path, typer.Option(help="The ADM that it will guide: a folder of genmix train adm.")],
    out: Out,
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    group_key: GroupKey = None,
    split_seed: SplitSeed = 0,
    official: Official = True,
    all_data: AllData = False,
    configuration: Annotated[
        Path | None,
        typer.Option(help="JSON of the classifier's flags; left out, the widths of the generator."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Images in a step, all processes together.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 3e-4,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.05,
    augment: Annotated[
        str, typer.Option(help="What the images go through before the noise (DiffAugment), or none.")
    ] = "translation",
    mirror: Mirror = False,
    checkpoint_every: Annotated[int, typer.Option(help="Images between checkpoints.")] = 20_000,
    mixed_precision: MixedPrecision = Precision.NO,
    guided: Annotated[
        Path | None, typer.Option(help="Save the generator with this classifier here; genmix fill takes it.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Of the guidance of --guided; 0.5 to 10 in the paper.")] = 1.0,
    seed: Seed = 0,
    restart: Restart = False,
    device: Device = None,
) -> None:
    """Train the classifier of noisy images that guides an ADM's sampling.

    Leaves it in the folder (NoisyClassifier.from_pretrained opens it), and losses and accuracies in training/, the
    latter for each quarter of the timesteps.
    """
    from genmix_transforms.generators import ADM
    from genmix_transforms.generators.adm import ADMConfiguration
    from genmix_transforms.generators.adm.classifier_training import train_classifier
    from genmix_transforms.generators.folder import check_free
    from genmix_transforms.generators.processes import own_device

    check_output_folder(out)
    own_device(device)
    check_seed(seed)
    if guided is not None:
        check_free(guided, overwrite=restart)
    adm = ADM.from_pretrained(generator)
    train = open_training_set(
        data,
        size=size,
        fit=fit,
        channels=channels,
        group_key=group_key,
        split_seed=split_seed,
        official=official,
        all_data=all_data,
        painter="ADM",
    )
    trained = train_classifier(
        train,
        generator=adm,
        out=out,
        configuration=None if configuration is None else ADMConfiguration.from_file(configuration),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augment=() if augment == "none" else tuple(comma_separated(augment)),
        mirror=mirror,
        checkpoint_every=checkpoint_every,
        mixed_precision=mixed_precision.value,
        seed=seed,
        restart=restart,
        device=device,
        progress=bool(context.obj),
    )
    typer.echo(f"{out}: trained")
    if guided is not None:
        adm.with_classifier(trained, scale=scale).save_pretrained(guided, overwrite=restart)
        command = shlex.join(["genmix", "fill", str(guided), "--out", f"banks/{guided.name}"])
        typer.echo(f"{guided}: the generator, guided by it; fill a bank with it:\n  {command}")


def _configuration(given: str | None) -> Any:
    """A preset's name, or what a JSON file says."""
    from genmix_transforms.generators.adm.configuration import ADMConfiguration

    if given is None or not given.endswith(".json"):
        return given
    return ADMConfiguration.from_file(given)
