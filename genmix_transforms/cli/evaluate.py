"""``genmix evaluate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genmix_transforms.cli.options import (
    DATA_PANEL,
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
    fold_patches,
    open_patches,
    split_patches,
)
from genmix_transforms.errors import InputError

if TYPE_CHECKING:
    from genmix_transforms.bank import SyntheticBank

ARMS_PANEL = "Arms"
TRAINING_PANEL = "Training of the classifiers, the same in every arm"


FOLD = "{fold}"
NO_WEIGHTS = "none"


def evaluate(
    context: typer.Context,
    data: Data,
    out: Out,
    bank: Annotated[
        list[str] | None,
        typer.Option(
            help="The bank, for the arms that use one; or several, each as NAME=FOLDER. With --folds each fold has its "
            "own: write {fold} for its number.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = None,
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    group_key: GroupKey = None,
    split_seed: SplitSeed = 0,
    official: Official = True,
    folds: Annotated[
        int, typer.Option(help="Cross-validate: every patch is tested once a seed.", rich_help_panel=DATA_PANEL)
    ] = 1,
    arms: Annotated[
        str,
        typer.Option(
            help="baseline (real images), mixup, augmix, classical (flips, rotations, crops), repeat (real images "
            "again), blend (real and synthetic in one training set), genmix, genmix-union (real partners too), "
            "genmix-real (only those). With banks by name: blend:NAME, ...; blend alone is one for each.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = "baseline,mixup,blend,genmix",
    alpha: Annotated[
        float | None, typer.Option(help="genmix: lambda ~ Beta(alpha, 1).", rich_help_panel=ARMS_PANEL)
    ] = None,
    pairing: Annotated[
        str | None,
        typer.Option(help="genmix: any, balanced, same, other or inverse.", rich_help_panel=ARMS_PANEL),
    ] = None,
    real_partner: Annotated[
        float | None,
        typer.Option(help="genmix: share of samples mixed with another real image.", rich_help_panel=ARMS_PANEL),
    ] = None,
    blend_share: Annotated[
        float | None,
        typer.Option(help="blend: share of synthetic images in the training data.", rich_help_panel=ARMS_PANEL),
    ] = None,
    mixup_alpha: Annotated[
        float | None, typer.Option(help="mixup: lambda ~ Beta(alpha, alpha).", rich_help_panel=ARMS_PANEL)
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            help="Values of its one option that every arm tries on the validation part, 2 to 5; 0: none.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each arm.", rich_help_panel=TRAINING_PANEL)] = 5,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper (VGG-16, 100 epochs), small (EfficientNet-Lite0 on a CPU) or fast; left out, a small network "
            "from random weights. Options below change it.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="small, efficientnet_lite0, or a torchvision model by name (resnet18, vgg16, ...).",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet, a file of weights, or none: random ones; left out, the preset's, else random ones.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels to which the classifier enlarges patches.", rich_help_panel=TRAINING_PANEL),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", rich_help_panel=TRAINING_PANEL)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.", rich_help_panel=TRAINING_PANEL)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.", rich_help_panel=TRAINING_PANEL)] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Mirror half of the images, in every arm.", rich_help_panel=TRAINING_PANEL)
    ] = False,
    device: Device = None,
) -> None:
    """Train classifiers with and without synthetic images, and compare them: tables, CSV, JSON and LaTeX.

    All arms take the same optimiser steps, from the same weights for each seed. Run again, it goes on where it stopped;
    the same command in a second terminal shares the work.
    """
    from genmix_transforms.evaluation import Fold, Protocol, evaluate_folds
    from genmix_transforms.evaluation import preset as named

    given = {
        "classifier": classifier,
        "weights": weights,
        "input_size": input_size,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "flips": flips or None,
        "mixup_alpha": mixup_alpha,
        "blend_share": blend_share,
        "alpha": alpha,
        "pairing": pairing,
        "real_partner": real_partner,
        "tune": tune,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if weights == NO_WEIGHTS:
        changes["weights"] = None
    if steps is not None:
        changes["epochs"] = None
    protocol = Protocol(**changes) if preset is None else named(preset, **changes)
    banks = _open_banks(bank or [], folds=folds)
    patches = open_patches(data, size=size, fit=fit, channels=channels, group_key=group_key)
    if folds > 1:
        splits = fold_patches(patches, folds=folds, split_seed=split_seed)
    else:
        splits = (split_patches(patches, split_seed=split_seed, official=official),)
    results = evaluate_folds(
        [Fold(splits=parts, banks=found) for parts, found in zip(splits, banks, strict=True)],
        arms=comma_separated(arms),
        seeds=seeds,
        protocol=protocol,
        out=out,
        device=device,
        progress=bool(context.obj),
    )
    typer.echo(f"\n{results.table()}\n\n{out}: results.md, .tex, .csv and .json, summary.csv, differences.csv")


def _open_banks(texts: Sequence[str], *, folds: int) -> "list[dict[str, SyntheticBank]]":
    """The banks of each fold by name: one ``FOLDER``, or each as ``NAME=FOLDER``."""
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.evaluation.arms import ONLY_BANK

    if folds < 1:
        raise InputError(f"--folds must be at least 1, got {folds}")
    folders: dict[str, str] = {}
    for text in texts:
        # An equals sign may be in the name of a folder; then the folder is there.
        name, equals, folder = (ONLY_BANK, "", text) if Path(text).exists() else text.partition("=")
        if not equals:
            name, folder = ONLY_BANK, text
        if equals and (not name or ":" in name):
            raise InputError(f"--bank {text}: a bank's name must be a word without a colon")
        if name in folders or (len(texts) > 1 and name == ONLY_BANK):
            raise InputError(f"--bank {text}: of several banks each needs a name of its own: --bank NAME=FOLDER")
        if folds > 1 and FOLD not in folder:
            raise InputError(
                f"--bank {text}: {folds} folds need a bank each, whose generator saw that fold's training part only: "
                f"give --bank {name + '=' if name else ''}FOLDER with {FOLD} in it, such as out/fold-{FOLD}/banks/dcgan"
            )
        folders[name] = folder
    return [
        {name: SyntheticBank.load(folder.replace(FOLD, str(number))) for name, folder in folders.items()}
        for number in range(folds)
    ]
