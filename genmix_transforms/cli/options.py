"""Options that several commands share. Each has the name of the Python argument it becomes."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.data import PatchDataset, open_dataset
from genmix_transforms.data.patches import describe_counts
from genmix_transforms.errors import InputError


class Precision(StrEnum):
    """Arithmetic of the networks."""

    NO = "no"
    BF16 = "bf16"


class Fit(StrEnum):
    """How images reach the size."""

    RESIZE = "resize"
    PAD = "pad"
    CROP = "crop"


DATA_PANEL = "Data"

Data = Annotated[
    str,
    typer.Option(
        help="Real patches: a folder of class folders, an .npz (MedMNIST's, or images/labels/label_names), "
        "a .csv (path,label[,split][,group]), or the word phantom.",
        rich_help_panel=DATA_PANEL,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Side of the square patches in pixels; left out, the size of the source.", rich_help_panel=DATA_PANEL
    ),
]
FitOption = Annotated[
    Fit,
    typer.Option(
        help="How the size is reached: resize (bilinear, antialiased), pad with zeros, or crop the middle and resize.",
        rich_help_panel=DATA_PANEL,
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(help="1 for grey, 3 for colour; left out, as the source is.", rich_help_panel=DATA_PANEL),
]
GroupKey = Annotated[
    str | None,
    typer.Option(
        help="Array or column that says which patches belong together (a patient): they never part in a split. "
        "Left out, the usual names are looked for.",
        rich_help_panel=DATA_PANEL,
    ),
]
SplitSeed = Annotated[
    int,
    typer.Option(
        help="Seed of the split into train, validation and test, where the source has none of its own. "
        "Give every command the same.",
        rich_help_panel=DATA_PANEL,
    ),
]
Official = Annotated[
    bool,
    typer.Option(
        "--official/--no-official",
        help="Keep the split that the source came with, where it has one.",
        rich_help_panel=DATA_PANEL,
    ),
]
AllData = Annotated[
    bool,
    typer.Option(
        "--all-data",
        help="Train on all patches: only if none of them will ever test anything.",
        rich_help_panel=DATA_PANEL,
    ),
]
PerClassOption = Annotated[
    bool, typer.Option("--per-class", help="A network for each class (the paper's way), each for all the steps.")
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps; left out, the preset's.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Images in a step, all processes together; left out, the preset's.")
]
CheckpointEvery = Annotated[int, typer.Option(help="Images between checkpoints and sample sheets.")]
MixedPrecision = Annotated[Precision, typer.Option(help="bf16 for processors that have it.")]
Seed = Annotated[int, typer.Option(help="Of the weights, the order of the images and the noise.")]
Restart = Annotated[bool, typer.Option("--restart", help="Throw away an earlier run in this folder.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; left out, CUDA where there is one.")]
Out = Annotated[Path, typer.Option(help="The folder to write.")]


def open_patches(data: str, *, size: int | None, fit: Fit, channels: int | None, group_key: str | None) -> PatchDataset:
    """Open the data, and say what was found and done."""
    patches = open_dataset(data, size=size, fit=fit.value, channels=channels, group_key=group_key)
    typer.echo(str(patches))
    for note in patches.notes:
        typer.echo(f"  {note}")
    return patches


def split_patches(
    patches: PatchDataset, *, split_seed: int, official: bool
) -> tuple[PatchDataset, PatchDataset, PatchDataset]:
    """Split the data, and say how."""
    train, val, test = patches.split(seed=split_seed, official=official)
    if official and patches.official is not None:
        how = "as the source is split"
    else:
        how = f"split with seed {split_seed}" + ("" if patches.groups is None else ", by group")
    counts = describe_counts(train.class_counts)
    typer.echo(f"  {how}: {len(train)} to train ({counts}), {len(val)} to validate, {len(test)} to test")
    return train, val, test


def fold_patches(
    patches: PatchDataset, *, folds: int, split_seed: int
) -> tuple[tuple[PatchDataset, PatchDataset, PatchDataset], ...]:
    """Split the data into folds, and say how."""
    found = patches.folds(folds, seed=split_seed)
    typer.echo(f"  {folds} folds with seed {split_seed}{'' if patches.groups is None else ', by group'}")
    for number, (train, val, test) in enumerate(found):
        counts = describe_counts(train.class_counts)
        typer.echo(f"  fold {number}: {len(train)} to train ({counts}), {len(val)} to validate, {len(test)} to test")
    return found


def open_training_set(
    data: str,
    *,
    size: int | None,
    fit: Fit,
    channels: int | None,
    group_key: str | None,
    split_seed: int,
    official: bool,
    all_data: bool,
    painter: str,
) -> PatchDataset:
    """What a generator is trained on: the training part, or all; ``painter`` says who needs squares."""
    train = open_patches(data, size=size, fit=fit, channels=channels, group_key=group_key)
    if not all_data:
        train, _, _ = split_patches(train, split_seed=split_seed, official=official)
    height, width = train.images.shape[-2:]
    if height != width:
        raise InputError(
            f"the patches are {height}x{width}, and a {painter} draws squares: give --size (with --fit crop or pad)"
        )
    return train


Share = Annotated[
    str | None,
    typer.Option(
        help="RANK/COUNT: do every COUNT-th shard from number RANK on; 0/1: all of them. Left out, as torchrun, "
        "accelerate launch or Slurm has numbered the processes."
    ),
]


def parse_share(text: str | None) -> tuple[int, int] | None:
    """``1/4`` as ``(1, 4)``."""
    if text is None:
        return None
    rank, slash, count = text.partition("/")
    if not (slash and rank.isdecimal() and count.isdecimal()):
        raise InputError(f"--share: expected RANK/COUNT, such as 0/1 for all shards, got {text!r}")
    return int(rank), int(count)


def comma_separated(text: str | None) -> list[str]:
    """``a, b`` as ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def propose_fill(out: Path) -> None:
    """Say that a generator is trained, and how a bank is filled with it."""
    command = shlex.join(["genmix", "fill", str(out), "--out", f"banks/{out.name}"])
    typer.echo(f"{out}: trained; fill a bank with it:\n  {command}")
