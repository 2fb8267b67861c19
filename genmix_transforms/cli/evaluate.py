"""``genmix evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.cli.options import (
    Channels,
    Data,
    Device,
    Fit,
    FitOption,
    GroupKey,
    Official,
    Out,
    Size,
    SplitSeed,
    comma_separated,
    open_patches,
    split_patches,
)

ARMS_PANEL = "Arms"
TRAINING_PANEL = "Training of the classifiers, the same in every arm"


def evaluate(
    context: typer.Context,
    data: Data,
    out: Out,
    bank: Annotated[
        Path | None, typer.Option(help="The bank, for the arms that use one.", rich_help_panel=ARMS_PANEL)
    ] = None,
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    group_key: GroupKey = None,
    split_seed: SplitSeed = 0,
    official: Official = True,
    arms: Annotated[
        str,
        typer.Option(
            help="baseline (real images), mixup (MixUp among them), blend (real and synthetic in one training set), "
            "genmix.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = "baseline,mixup,blend,genmix",
    alpha: Annotated[float, typer.Option(help="genmix: lambda ~ Beta(alpha, 1).", rich_help_panel=ARMS_PANEL)] = 0.3,
    pairing: Annotated[
        str,
        typer.Option(help="genmix: any, balanced, same, other or inverse.", rich_help_panel=ARMS_PANEL),
    ] = "any",
    real_partner: Annotated[
        float,
        typer.Option(help="genmix: share of samples mixed with another real image.", rich_help_panel=ARMS_PANEL),
    ] = 0.0,
    blend_share: Annotated[
        float,
        typer.Option(help="blend: share of synthetic images in the training data.", rich_help_panel=ARMS_PANEL),
    ] = 0.5,
    mixup_alpha: Annotated[
        float, typer.Option(help="mixup: lambda ~ Beta(alpha, alpha).", rich_help_panel=ARMS_PANEL)
    ] = 0.2,
    seeds: Annotated[int, typer.Option(help="Runs of each arm.", rich_help_panel=TRAINING_PANEL)] = 5,
    classifier: Annotated[
        str,
        typer.Option(
            help="small, or a torchvision model by name (resnet18, vgg16, ...), from random weights.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = "small",
    steps: Annotated[int, typer.Option(help="Optimiser steps.", rich_help_panel=TRAINING_PANEL)] = 600,
    batch_size: Annotated[int, typer.Option(help="Images in a step.", rich_help_panel=TRAINING_PANEL)] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=TRAINING_PANEL)] = 1e-3,
    flips: Annotated[
        bool, typer.Option("--flips", help="Mirror half of the images, in every arm.", rich_help_panel=TRAINING_PANEL)
    ] = False,
    device: Device = None,
) -> None:
    """Train classifiers with and without synthetic images, and compare them: as a table, CSV and JSON.

    All arms take the same optimiser steps, from the same weights for each seed. Run again, it goes on where it stopped.
    """
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.evaluation import Protocol
    from genmix_transforms.evaluation import evaluate as compare

    protocol = Protocol(
        classifier=classifier,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        flips=flips,
        mixup_alpha=mixup_alpha,
        blend_share=blend_share,
        alpha=alpha,
        pairing=pairing,
        real_partner=real_partner,
    )
    opened = SyntheticBank.load(bank) if bank else None
    patches = open_patches(data, size=size, fit=fit, channels=channels, group_key=group_key)
    splits = split_patches(patches, split_seed=split_seed, official=official)
    results = compare(
        splits,
        bank=opened,
        arms=comma_separated(arms),
        seeds=seeds,
        protocol=protocol,
        out=out,
        device=device,
        progress=bool(context.obj),
    )
    typer.echo(f"\n{results.table()}\n\n{out}: results.md, results.csv, summary.csv, results.json")
