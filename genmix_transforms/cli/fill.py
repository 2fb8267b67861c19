"""``genmix fill``."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.cli.options import (
    DataOptions,
    Device,
    Out,
    Share,
    comma_separated,
    parse_share,
    show_bank,
    takes_data_options,
)
from genmix_transforms.errors import InputError, UnfinishedBankError
from genmix_transforms.files.checks import check_output_folder

if TYPE_CHECKING:
    from genmix_transforms.generators.base import Generator
    from genmix_transforms.generators.filling import Plan


@takes_data_options
def fill(
    context: typer.Context,
    generator: Annotated[str, typer.Argument(help="A generator: a folder, or the id of a repository on the hub.")],
    out: Out,
    options: DataOptions,
    match: Annotated[
        str | None,
        typer.Option(
            help="As many images of each class as the training part of this data has. "
            "Default: as many as the generator was trained on."
        ),
    ] = None,
    counts: Annotated[str | None, typer.Option(help="Images of each class: cyst=433,hemangioma=70.")] = None,
    balance: Annotated[
        bool,
        typer.Option("--balance", help="Fill every class up to the largest one, counting real and synthetic images."),
    ] = False,
    soft: Annotated[
        float | None,
        typer.Option(
            metavar="ALPHA",
            help="Draw each image from a soft label, kept as its label (GeMix): Dirichlet, with this concentration for "
            "its class and 1 for the others; at least 1, the authors use 2. For a class-conditional generator.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="A different seed gives different images.")] = 0,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model of a Textual Inversion, if it has moved since the training: a folder, or its id "
            "on the hub."
        ),
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "--sampler",
            metavar="NAME=VALUE",
            help="How an ADM or a Textual Inversion draws, such as steps=50 or eta=1; repeatable. Other settings give "
            "different images. Default: the generator's settings.",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="License of the images, such as cc-by-4.0; stored in the bank and on its card.")
    ] = None,
    share: Share = None,
    append: Annotated[bool, typer.Option("--append", help="Add to the bank in this folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away the bank in this folder.")] = False,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Fill a bank with a generator's images. Run it again to continue where it stopped.

    Several processes (torchrun, accelerate launch, a Slurm array) share the work without communication.
    """
    from genmix_transforms.generators import fill_bank, load_generator
    from genmix_transforms.generators.filling import check_options, make_plan
    from genmix_transforms.generators.processes import own_device

    check_output_folder(out)
    if match and counts:
        raise InputError("give --match or --counts, not both")
    check_options(seed=seed, licence=licence, append=append, overwrite=overwrite, soft=soft)
    class_counts = _parse_counts(counts) if counts else None
    own_share = parse_share(share)
    settings = _parse_settings(sampler or [])
    loaded = load_generator(generator, device=own_device(device), base=base)
    if settings:
        if not hasattr(loaded, "with_sampler"):
            raise InputError(f"--set: a {loaded.kind} draws in one pass and has no sampler; leave the option out")
        loaded = loaded.with_sampler(**settings)
    if match:
        train, _, _ = options.split_patches(options.open(match))
        class_counts = train.class_counts
    if dry_run:
        _describe(loaded, make_plan(loaded, counts=class_counts, balance=balance, seed=seed, soft=soft), out=out)
        has_sampler = hasattr(loaded, "with_sampler")
        print_config(context, resolved={"sampler": loaded.config["sampler"]} if has_sampler else None)
        return
    try:
        bank = fill_bank(
            loaded,
            counts=class_counts,
            out=out,
            balance=balance,
            soft=soft,
            seed=seed,
            licence=licence,
            share=own_share,
            append=append,
            overwrite=overwrite,
            progress=bool(context.obj),
        )
    except UnfinishedBankError as error:
        typer.echo(str(error))
        return
    show_bank(out, bank)
    spread = getattr(loaded, "channel_spread", None)
    if spread is not None and spread.images:
        typer.echo(f"  {spread}")


def _describe(generator: "Generator", plan: "Plan", *, out: Path) -> None:
    """Say what will be drawn, and what it takes, or that the disk has no room for it."""
    from genmix_transforms.data.patches import describe_counts
    from genmix_transforms.files.disk import check_free_space, size_text
    from genmix_transforms.generators.estimate import duration_text
    from genmix_transforms.generators.filling import estimate_fill

    size, seconds = estimate_fill(generator, plan)
    check_free_space(out, size, what="the bank")
    counts = describe_counts(dict(zip(generator.classes, plan.counts, strict=True)))
    soft = "" if plan.soft is None else " with soft labels"
    shards = "1 shard" if plan.shards == 1 else f"{plan.shards} shards"
    typer.echo(f"{plan.total} images ({counts}){soft} in {shards}, {size_text(size)}")
    typer.echo(f"about {duration_text(seconds)} in one process on {generator.device}, from one batch")


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
            raise InputError(f"--set: expected NAME=VALUE, such as steps=50, got {text!r}")
        settings[name] = _number_or_text(value)
    return settings


def _number_or_text(text: str) -> str | int | float:
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text
