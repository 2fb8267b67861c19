"""``genmix train stylegan``."""

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
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed

NETWORK_PANEL = "Networks"
TRAINING_PANEL = "Training"


def stylegan(
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
    init: Annotated[
        str | None,
        typer.Option(
            help="Fine-tune this StyleGAN (a folder, or a hub id), adapted to the data's size, channels and classes."
        ),
    ] = None,
    fmap_base: Annotated[
        int,
        typer.Option(
            help="Channels at a resolution are 2 * this / side; less is faster.", rich_help_panel=NETWORK_PANEL
        ),
    ] = 8192,
    fmap_max: Annotated[int, typer.Option(help="The most channels.", rich_help_panel=NETWORK_PANEL)] = 512,
    latent_size: Annotated[int, typer.Option(help="Numbers in z and w.", rich_help_panel=NETWORK_PANEL)] = 512,
    mapping_layers: Annotated[int, typer.Option(help="Dense layers from z to w.", rich_help_panel=NETWORK_PANEL)] = 8,
    conditioning: Annotated[
        str,
        typer.Option(
            help="How the class meets the latent: multiply, or concatenate as in NVIDIA's network.",
            rich_help_panel=NETWORK_PANEL,
        ),
    ] = "multiply",
    psi: Annotated[
        float,
        typer.Option(help="Truncation when drawing: 1 none, 0 the mean image.", rich_help_panel=NETWORK_PANEL),
    ] = 0.7,
    cutoff: Annotated[
        int, typer.Option(help="How many layers are truncated, from the coarsest.", rich_help_panel=NETWORK_PANEL)
    ] = 8,
    preset: Annotated[
        str, typer.Option(help="stylegan, or paper (70,000 steps of 8 images at 0.001; R1 as published).")
    ] = "stylegan",
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of Adam up to 64 pixels, more above; left out, the preset's.")
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(help="Weight of R1; left out, the preset's, or from resolution and batch."),
    ] = None,
    r1_interval: Annotated[int, typer.Option(help="Steps between R1 penalties: 1 as published, 16 for speed.")] = 1,
    style_mixing: Annotated[float, typer.Option(help="Share of images in the styles of two latents.")] = 0.9,
    start_resolution: Annotated[
        int | None,
        typer.Option(help="Where the growing starts, in pixels; left out, 8, or the full size with --init."),
    ] = None,
    growing_share: Annotated[
        float | None,
        typer.Option(help="Part of the run after which all has grown; left out, all phases are equally long."),
    ] = None,
    minibatch_group: Annotated[
        int, typer.Option(help="Images over which the minibatch deviation is taken; the batch is a multiple.")
    ] = 4,
    augment: Annotated[
        str, typer.Option(help="What the discriminator's images go through (DiffAugment), or none.")
    ] = "color,translation,cutout",
    augment_target: Annotated[
        float | None,
        typer.Option(help="Augment as often as holds the real images' mean sign here (0.6); left out, always."),
    ] = None,
    augment_ramp: Annotated[
        float, typer.Option(help="With --augment-target: images from never to always augmenting.")
    ] = 100_000,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Show half of the real images mirrored: where left and right are alike.")
    ] = False,
    ema_half_life: Annotated[
        float, typer.Option(help="Half-life, in images, of the averaged weights that are sampled from.")
    ] = 10_000,
    checkpoint_every: CheckpointEvery = 20_000,
    mixed_precision: Annotated[
        Precision, typer.Option(help="bf16 where the processor has it; R1 stays in float32.")
    ] = Precision.NO,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Use torch.compile: some minutes before the first steps of a phase.")
    ] = False,
    seed: Seed = 0,
    restart: Restart = False,
    device: Device = None,
) -> None:
    """Train a StyleGAN: sizes 9 to 1024; class-conditional, or with --per-class a network for each class.

    Grows from 8 pixels on, in phases that follow from the budget. Leaves the generator (genmix fill takes it), a sheet
    for every checkpoint in samples/, and the losses in training/.

    Several processes: torchrun --nproc_per_node 2 -m genmix_transforms train stylegan ...
    """
    import torch

    from genmix_transforms.generators import PerClass, StyleGAN
    from genmix_transforms.generators.processes import own_device
    from genmix_transforms.generators.stylegan import adapt_stylegan

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
        painter="StyleGAN",
    )
    _, channel_count, height, _ = train.images.shape
    generator: StyleGAN | PerClass
    if init is not None:
        if per_class:
            raise InputError("give --init or --per-class, not both: a network is fine-tuned on all its classes")
        generator = adapt_stylegan(
            StyleGAN.from_pretrained(init), resolution=height, channels=channel_count, classes=train.classes
        )
    else:
        options: dict[str, Any] = {
            "resolution": height,
            "channels": channel_count,
            "fmap_base": fmap_base,
            "fmap_max": fmap_max,
            "latent_size": latent_size,
            "mapping_layers": mapping_layers,
            "conditioning": conditioning,
            "psi": psi,
            "cutoff": cutoff,
            "bits": 8 if train.images.dtype == torch.uint8 else 16,
        }
        generator = (
            PerClass.of(StyleGAN, classes=train.classes, **options)
            if per_class
            else StyleGAN(classes=train.classes, **options)
        )
    generator.fit(
        train,
        out=out,
        preset=preset,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        gamma=gamma,
        r1_interval=r1_interval,
        style_mixing=style_mixing,
        start_resolution=start_resolution,
        growing_share=growing_share,
        minibatch_group=minibatch_group,
        augment=() if augment == "none" else tuple(comma_separated(augment)),
        augment_target=augment_target,
        augment_ramp=augment_ramp,
        mirror=mirror,
        ema_half_life=ema_half_life,
        checkpoint_every=checkpoint_every,
        mixed_precision=mixed_precision.value,
        compiled=compiled,
        seed=seed,
        warm_start=init is not None,
        restart=restart,
        device=device,
        progress=bool(context.obj),
    )
    propose_fill(out)
