"""``genmix pretrain-classifier``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.cli.options import Channels, Device, Fit, FitOption, Size, SplitFile
from genmix_transforms.cli.parameters import with_settings
from genmix_transforms.evaluation.self_supervised import PretrainingSettings


@with_settings({"training": "Training"}, training=PretrainingSettings)
def pretrain_classifier(
    context: typer.Context,
    training: dict[str, Any],
    pool: Annotated[
        str,
        typer.Argument(help="Images; labels are ignored: a folder, an .npz, a .csv, or the word phantom."),
    ],
    out: Annotated[Path, typer.Option(help="The file to write (.safetensors), for genmix evaluate --weights.")],
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    split: SplitFile = None,
    all_data: Annotated[
        bool,
        typer.Option(
            "--all-data",
            help="Also use the validation and test images of a split pool; only if they are never used for testing.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the order of the images and the views.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Pre-train the small classifier on unlabeled images (SimCLR), to use a pool without a generator.

    If the pool is split, only the training part is used. It takes minutes, and starts again if it is stopped.
    """
    from genmix_transforms.data import open_dataset
    from genmix_transforms.errors import InputError
    from genmix_transforms.evaluation.self_supervised import check_pretraining
    from genmix_transforms.evaluation.self_supervised import pretrain_classifier as pretrain
    from genmix_transforms.generators.processes import own_device

    check_pretraining(out, seed=seed, overwrite=overwrite)
    own_device(device)
    chosen = PretrainingSettings.of(training, name="pretrain-classifier")
    if split is not None and all_data:
        raise InputError("--all-data takes every image; leave --split out")
    # A split file names classes too, so there the labels are read; the training looks at none.
    images = open_dataset(pool, size=size, fit=fit.value, channels=channels, labelled=split is not None)
    if split is not None:
        images = images.with_split(split).split()[0]
    elif images.official is not None and not all_data:
        images = images.split()[0]
    typer.echo(f"{len(images)} images of {images.name}, {' x '.join(map(str, images.images.shape[1:]))}")
    if dry_run:
        print_config(context, resolved=chosen.to_json())
        return
    pretrain(images, out=out, seed=seed, device=device, overwrite=overwrite, progress=bool(context.obj), **training)
    command = shlex.join(["genmix", "evaluate", "--data", "YOUR_DATA", "--weights", str(out), "--out", "results/mine"])
    typer.echo(f"{out}: trained; give it to the classifiers of a comparison:\n  {command}")
