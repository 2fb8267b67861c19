"""``genmix fill``."""

import shlex
from contextlib import suppress
from typing import Annotated

import typer

from genmix_transforms.cli.options import (
    Channels,
    Device,
    Fit,
    FitOption,
    GroupKey,
    Official,
    Out,
    Share,
    Size,
    SplitSeed,
    comma_separated,
    open_patches,
    parse_share,
    split_patches,
)
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder


def fill(
    context: typer.Context,
    generator: Annotated[str, typer.Argument(help="A generator: a folder, or the id of a repository on the hub.")],
    out: Out,
    match: Annotated[
        str | None,
        typer.Option(
            help="As many images of each class as the training part of this data has. "
            "Left out, as many as the generator was trained on."
        ),
    ] = None,
    counts: Annotated[str | None, typer.Option(help="Images of each class: cyst=433,hemangioma=70.")] = None,
    balance: Annotated[
        bool,
        typer.Option("--balance", help="Fill every class up to the largest one, real and synthetic together."),
    ] = False,
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    group_key: GroupKey = None,
    split_seed: SplitSeed = 0,
    official: Official = True,
    seed: Annotated[int, typer.Option(help="Another seed, other images.")] = 0,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model of a Textual Inversion, if it is not where the training found it: a folder, or its id "
            "on the hub."
        ),
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE, again for more: how an ADM or a Textual Inversion draws, such as steps=50 or eta=1. "
            "Other settings, other images. Left out, as the generator has them."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="That the images are under, such as cc-by-4.0: kept in the bank and on its card.")
    ] = None,
    share: Share = None,
    append: Annotated[bool, typer.Option("--append", help="Add to the bank in this folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away the bank in this folder.")] = False,
    device: Device = None,
) -> None:
    """Fill a bank with a generator's images. Run again, it goes on where it stopped.

    Several processes (torchrun, accelerate launch, a Slurm array) share the work without communication.
    """
    from genmix_transforms.generators import fill_bank, load_generator
    from genmix_transforms.generators.filling import UnfinishedBankError
    from genmix_transforms.generators.processes import own_device

    check_output_folder(out)
    where = own_device(device)
    if match and counts:
        raise InputError("give --match or --counts, not both")
    class_counts = _parse_counts(counts) if counts else None
    if match:
        patches = open_patches(match, size=size, fit=fit, channels=channels, group_key=group_key)
        train, _, _ = split_patches(patches, split_seed=split_seed, official=official)
        class_counts = train.class_counts
    settings = _parse_settings(sampler or [])
    loaded = load_generator(generator, device=where, base=base)
    if settings:
        if not hasattr(loaded, "with_sampler"):
            raise InputError(f"--sampler: a {loaded.kind} draws in one pass and has no sampler; leave the option out")
        loaded = loaded.with_sampler(**settings)
    try:
        bank = fill_bank(
            loaded,
            counts=class_counts,
            out=out,
            balance=balance,
            seed=seed,
            licence=licence,
            share=parse_share(share),
            append=append,
            overwrite=overwrite,
            progress=bool(context.obj),
        )
    except UnfinishedBankError as error:
        typer.echo(str(error))
        return
    command = shlex.join(["genmix", "bank", "sheet", str(out), "--out", f"{out.name}.png"])
    typer.echo(f"{out}: {bank.extra_repr()}\n  look at it: {command}")
    spread = getattr(loaded, "channel_spread", None)
    if spread is not None and spread.images:
        typer.echo(f"  {spread}")


def _parse_counts(text: str) -> dict[str, int]:
    counts = {}
    for part in comma_separated(text):
        name, _, number = part.rpartition("=")
        if not name or not number.strip().isdigit():
            raise InputError(f"--counts: expected name=number, separated by commas, got {part!r}")
        counts[name.strip()] = int(number)
    return counts


def _parse_settings(texts: list[str]) -> dict[str, str | int | float]:
    settings: dict[str, str | int | float] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise InputError(f"--sampler: expected NAME=VALUE, such as steps=50, got {text!r}")
        settings[name] = _number_or_text(value)
    return settings


def _number_or_text(text: str) -> str | int | float:
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text
