"""``genmix train dcgan``."""

from typing import Annotated

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
    PerClassOption,
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
from genmix_transforms.files.checks import check_output_folder, check_seed


def dcgan(
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
    per_class: PerClassOption = False,
    preset: Annotated[
        str, typer.Option(help="dcgan (learning rate 0.0002), or paper (70,000 steps of 8 images at 0.001).")
    ] = "dcgan",
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam; left out, the preset's.")] = None,
    base_width: Annotated[int, typer.Option(help="Channels of the networks at half resolution; less is faster.")] = 64,
    augment: Annotated[
        str, typer.Option(help="What the discriminator's images go through (DiffAugment), or none.")
    ] = "color,translation,cutout",
    ema_half_life: Annotated[
        float, typer.Option(help="Half-life, in images, of the averaged weights that are sampled from.")
    ] = 10_000,
    checkpoint_every: CheckpointEvery = 20_000,
    mixed_precision: MixedPrecision = Precision.NO,
    seed: Seed = 0,
    restart: Restart = False,
    device: Device = None,
) -> None:
    """Train a DCGAN: sizes 16, 32, 64, 128 and 256; class-conditional, or with --per-class a network for each class.

    Leaves the generator (genmix fill takes it), a sheet for every checkpoint in samples/, and the losses in training/.

    Several processes: torchrun --nproc_per_node 2 -m genmix_transforms train dcgan ...
    """
    import torch

    from genmix_transforms.generators import DCGAN, PerClass
    from genmix_transforms.generators.processes import own_device

    check_output_folder(out)
    own_device(device)
    check_seed(seed)
    train = open_training_set(
        data,
        size=size,
        fit=fit,
        channels=channels,
        group_key=group_key,
        split_seed=split_seed,
        official=official,
        all_data=all_data,
        painter="DCGAN",
    )
    _, channel_count, height, _ = train.images.shape
    options = {
        "resolution": height,
        "channels": channel_count,
        "base_width": base_width,
        "bits": 8 if train.images.dtype == torch.uint8 else 16,
    }
    generator = (
        PerClass.of(DCGAN, classes=train.classes, **options) if per_class else DCGAN(classes=train.classes, **options)
    )
    generator.fit(
        train,
        out=out,
        preset=preset,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=() if augment == "none" else tuple(comma_separated(augment)),
        ema_half_life=ema_half_life,
        checkpoint_every=checkpoint_every,
        mixed_precision=mixed_precision.value,
        seed=seed,
        restart=restart,
        device=device,
        progress=bool(context.obj),
    )
    propose_fill(out)
