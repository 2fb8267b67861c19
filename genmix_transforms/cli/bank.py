"""``genmix bank``: what is in a bank, what it looks like, whether it is whole; and banks made of others."""

import contextlib
import json
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genmix_transforms.cli.command import Command, Json
from genmix_transforms.cli.options import (
    Data,
    DataOptions,
    Device,
    Out,
    Pool,
    Share,
    comma_separated,
    parse_share,
    show_bank,
    takes_data_options,
)
from genmix_transforms.errors import CorruptFileError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from genmix_transforms.bank import SyntheticBank

app: typer.Typer = typer.Typer(help="Inspect, check, merge and export banks of synthetic images.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The bank's folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the bank in this folder.")]


@app.command(cls=Command)
def info(bank: Folder, as_json: Json = False) -> None:
    """Print what a bank holds and where it comes from. Fail if a shard is missing or cut; verify checks the content."""
    from genmix_transforms.bank.manifest import read_manifest

    manifest = read_manifest(bank)
    from genmix_transforms.bank.marks import count_marks

    missing = [shard.file for shard in manifest.shards if not (bank / shard.file).is_file()]
    class_counts = dict(zip(manifest.classes, manifest.class_counts, strict=True))
    marks, fault = None, None
    try:
        marks = None if missing else count_marks(bank, manifest)
    except CorruptFileError as error:
        fault = error
    if as_json:
        found = {
            "images": manifest.count,
            "shape": manifest.shape,
            "dtype": manifest.dtype,
            "class_counts": class_counts,
            "labels": manifest.labels,
            "window": manifest.window,
            "mask_classes": manifest.mask_classes,
            "shards": len(manifest.shards),
            "shards_missing": missing,
            "shards_to_come": manifest.shards_to_come,
            "generation": manifest.generation,
            "created": manifest.created,
            "sources": manifest.sources,
            "flags": None if marks is None else marks.flags,
            "decisions": None if marks is None else marks.decisions,
        }
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        shards = f"{len(manifest.shards)} shard{'s' * (len(manifest.shards) != 1)}"
        typer.echo(f"{bank}: {manifest.count} images, {' x '.join(map(str, manifest.shape))}, {manifest.dtype}")
        for name, count in class_counts.items():
            typer.echo(f"  {name:<24} {count:>8}")
        if manifest.labels == "probabilities":
            typer.echo("  soft labels: weights of the classes; an image counts for the class with the largest")
        if manifest.mask_classes is not None:
            typer.echo(f"  a mask an image: {', '.join(manifest.mask_classes)}")
        typer.echo(f"  {shards}, generation {manifest.generation}")
        if manifest.shards_to_come:
            typer.echo(f"  {manifest.shards_to_come} shards are still to come: run the same fill again")
        if marks is not None and marks.flags:
            typer.echo(f"  marked: {', '.join(f'{name} {count}' for name, count in marks.flags.items())}")
        if marks is not None and marks.decisions["open"] < manifest.count:
            typer.echo(f"  reviewed: {', '.join(f'{name} {count}' for name, count in marks.decisions.items())}")
        for source in manifest.sources:
            generator = source.get("generator")
            if generator:
                typer.echo(f"  drawn by a {generator['kind']} generator, weights {generator['weights'][:19]}...")
            counts = source.get("training_set", {}).get("class_counts")
            if counts:
                typer.echo(f"  which was trained on {', '.join(f'{name} {count}' for name, count in counts.items())}")
    if missing:
        raise CorruptFileError(
            f"{bank}: {', '.join(missing)}: no such file; fill the bank again, or take it from its copy"
        )
    if fault is not None:
        raise fault


@app.command(cls=Command)
def sheet(
    bank: Folder,
    out: Annotated[Path, typer.Option(help="The picture to write (.png).")],
    columns: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 12,
    seed: Annotated[int, typer.Option(help="Which images: a different seed shows different ones.")] = 0,
) -> None:
    """Draw a contact sheet: a row of images for each class."""
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.bank.card import bank_sheet
    from genmix_transforms.files.sheet import save_picture

    save_picture(bank_sheet(SyntheticBank.load(bank), columns=columns, seed=seed), out)
    typer.echo(str(out))


@app.command(cls=Command)
def verify(context: typer.Context, bank: Folder, as_json: Json = False) -> None:
    """Check every shard against its checksum, and name corrupt ones."""
    from genmix_transforms.bank.opening import verify_bank

    manifest = verify_bank(bank, progress=bool(context.obj))
    images, shards, generation = manifest.count, len(manifest.shards), manifest.generation
    if as_json:
        typer.echo(json.dumps({"whole": True, "images": images, "shards": shards, "generation": generation}, indent=2))
    else:
        typer.echo(f"{bank}: whole: {images} images in {shards} shards, generation {generation}")


@app.command(cls=Command)
def seal(bank: Folder) -> None:
    """Check every shard, and write sha256 sums into the manifest, before publishing a bank."""
    from genmix_transforms.bank.hub import seal as seal_bank

    manifest = seal_bank(bank)
    typer.echo(f"{bank}: sealed: {len(manifest.shards)} shards, generation {manifest.generation}")


@app.command(cls=Command)
def select(
    bank: Folder,
    out: Out,
    classes: Annotated[str | None, typer.Option(help="Images of these classes: cyst,metastasis.")] = None,
    min_distance: Annotated[
        float | None,
        typer.Option(help="Images with at least this distance to the nearest real one; excludes near copies."),
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option(help="Images with at most this distance to it; excludes unrealistic images.")
    ] = None,
    flags: Annotated[
        str | None, typer.Option(help="Images marked with any of these: near_copy, duplicate, rejected, outlier.")
    ] = None,
    without_flags: Annotated[str | None, typer.Option(help="Images marked with none of these.")] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Images whose label has at least this confidence in a classifier of real images, 0 to 1."),
    ] = None,
    confidence: Annotated[
        Path | None, typer.Option(help="The file that an audit wrote with the confidence of each image's label.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a new bank of the images that meet all conditions."""
    from genmix_transforms.bank import SyntheticBank

    if (min_confidence is None) != (confidence is None):
        raise InputError("give --min-confidence and --confidence FILE together, or neither")
    # Held to its checksums first: the new bank's would vouch for whatever is read here.
    opened = SyntheticBank.load(bank, verify=True)
    chosen = opened.select(
        classes=comma_separated(classes) or None,
        min_distance=min_distance,
        max_distance=max_distance,
        flags=_flags(flags, "--flags"),
        without_flags=_flags(without_flags, "--without-flags"),
        min_confidence=min_confidence,
        confidence=None if confidence is None else _confidence(confidence, opened),
    )
    chosen.save(out, overwrite=overwrite)
    show_bank(out, chosen)


@app.command(cls=Command)
@takes_data_options
def label(
    bank: Folder,
    data: Data,
    options: DataOptions,
    out: Out,
    per_class: Annotated[
        int | None,
        typer.Option(
            help="Keep this many images of each class, those with the highest confidence. Default: all.", min=1
        ),
    ] = None,
    soft: Annotated[
        bool,
        typer.Option(
            "--soft", help="Keep the probabilities of all classes as labels, instead of the most likely class."
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Initial weights of the classifier: a file written by genmix pretrain-classifier."),
    ] = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Give a bank without classes the labels that a classifier of labeled images finds, and write it as a new bank.

    The classifier is trained on the training part of the data, with the preset few-labels.
    """
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.bank.writing import bank_to_change
    from genmix_transforms.evaluation import label_bank, preset
    from genmix_transforms.generators.processes import own_device

    if out.exists():  # before the training
        bank_to_change(out, append=False, overwrite=overwrite)
    opened = SyntheticBank.load(bank, verify=True)
    if options.size is None:
        options = replace(options, size=opened.image_shape[-1])
    labeled = label_bank(
        opened,
        options.split_patches(options.open(data)),
        per_class=per_class,
        soft=soft,
        protocol=preset("few-labels", **({} if weights is None else {"weights": str(weights)})),
        device=own_device(device),
    )
    labeled.save(out, overwrite=overwrite)
    show_bank(out, labeled)


@app.command(cls=Command)
@takes_data_options
def check(
    context: typer.Context,
    bank: Folder,
    data: Data,
    options: DataOptions,
    pool: Pool = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the bank here with what was measured: distances, flags for copies.")
    ] = None,
    share: Annotated[
        float, typer.Option(help="Share of images of new patients that may be called copies; sets the threshold.")
    ] = 0.005,
    any_training_set: Annotated[
        bool,
        typer.Option("--any-training-set", help="Compare even if the bank's generator was trained on other images."),
    ] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Look for copies: images closer to a training image than images of different patients are to each other.

    This also finds shifted, flipped, rotated, zoomed, inverted, noisy and partial copies. The patches are resized to
    the bank's size unless --size is given.
    """
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.evaluation.audit import find_copies
    from genmix_transforms.generators.processes import own_device

    where = own_device(device)
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        opened = SyntheticBank.load(bank, verify=True)
        if options.size is None:
            options = replace(options, size=opened.image_shape[-1])
        train, _, _ = options.split_patches(options.open(data))
        found = find_copies(
            opened,
            train,
            share=share,
            any_training_set=any_training_set,
            pool=None if pool is None else options.open_pool(pool),
            device=where,
            progress=bool(context.obj),
        )
    typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else found.table())
    if out is not None:
        marked = found.marked(opened)
        marked.save(out, overwrite=overwrite)
        if not as_json:
            show_bank(out, marked)


def _confidence(file: Path, bank: "SyntheticBank") -> "Tensor":
    from genmix_transforms.evaluation.audit.labels import read_confidence

    return read_confidence(file, bank)


def _flags(text: str | None, option: str) -> int | None:
    """``near_copy,rejected`` as the bits that these names stand for."""
    from genmix_transforms.bank import Flag

    names = comma_separated(text)
    unknown = [name for name in names if name.upper() not in Flag.__members__]
    if unknown:
        known = ", ".join(name.lower() for name in Flag.__members__)
        raise InputError(f"{option}: there are the flags {known}; not {', '.join(unknown)}")
    return sum({Flag[name.upper()] for name in names}) or None


@app.command(cls=Command)
def merge(
    context: typer.Context,
    banks: Annotated[list[Path], typer.Argument(help="The banks' folders.")],
    out: Out,
    classes: Annotated[
        str | None,
        typer.Option(help="Classes of the new bank, in order: cyst,metastasis. Default: as they occur."),
    ] = None,
    share: Share = None,
    overwrite: Overwrite = False,
) -> None:
    """Merge banks into a new one, matching classes by name. Run it again to continue where it stopped.

    Several processes (torchrun, accelerate launch, a Slurm array) share the work without communication.
    """
    from genmix_transforms.bank.merging import merge_banks
    from genmix_transforms.errors import UnfinishedBankError

    try:
        merged = merge_banks(
            banks,
            out=out,
            classes=comma_separated(classes) or None,
            share=parse_share(share),
            overwrite=overwrite,
            progress=bool(context.obj),
        )
    except UnfinishedBankError as error:
        typer.echo(str(error))
        return
    show_bank(out, merged)


class Format(StrEnum):
    """What a bank is exported to."""

    PNG = "png"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"


@app.command(cls=Command)
def export(
    bank: Folder,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    format: Annotated[
        Format, typer.Option(help="A folder of PNG files per class, tar shards, or Parquet.")
    ] = Format.PNG,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write the images in a format for other programs."""
    from genmix_transforms.bank import SyntheticBank, exporting

    write = {
        Format.PNG: exporting.export_png,
        Format.WEBDATASET: exporting.export_webdataset,
        Format.PARQUET: exporting.export_parquet,
    }[format]
    write(SyntheticBank.load(bank), out, overwrite=overwrite)
    typer.echo(str(out))
