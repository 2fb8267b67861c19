"""``genmix bank``: what is in a bank, what it looks like, and whether it is whole."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into a bank of synthetic images.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The bank's folder.")]


@app.command()
def info(bank: Folder) -> None:
    """Print what a bank holds and where it comes from."""
    from genmix_transforms.bank.manifest import read_manifest

    manifest = read_manifest(bank)
    typer.echo(f"{bank}: {manifest.count} images, {' x '.join(map(str, manifest.shape))}, {manifest.dtype}")
    for name, count in zip(manifest.classes, manifest.class_counts, strict=True):
        typer.echo(f"  {name:<24} {count:>8}")
    typer.echo(f"  {len(manifest.shards)} shard{'s' * (len(manifest.shards) != 1)}, generation {manifest.generation}")
    if manifest.shards_to_come:
        typer.echo(f"  {manifest.shards_to_come} shards are still to come: run the same fill again")
    for source in manifest.sources:
        generator = source.get("generator")
        if generator:
            typer.echo(f"  drawn by a {generator['kind']} generator, weights {generator['weights'][:19]}...")
        counts = source.get("training_set", {}).get("class_counts")
        if counts:
            typer.echo(f"  which was trained on {', '.join(f'{name} {count}' for name, count in counts.items())}")


@app.command()
def sheet(
    bank: Folder,
    out: Annotated[Path, typer.Option(help="The picture to write (.png).")],
    columns: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 12,
    seed: Annotated[int, typer.Option(help="Which images: another seed, others.")] = 0,
) -> None:
    """Draw a contact sheet: a row of images for each class."""
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.bank.sheet import bank_sheet
    from genmix_transforms.files.sheet import save_picture

    save_picture(bank_sheet(SyntheticBank.load(bank), columns=columns, seed=seed), out)
    typer.echo(str(out))


@app.command()
def verify(context: typer.Context, bank: Folder) -> None:
    """Check every shard against its checksum; a corrupt one is named."""
    from genmix_transforms.bank.verifying import verify_bank

    manifest = verify_bank(bank, progress=bool(context.obj))
    typer.echo(
        f"{bank}: whole: {manifest.count} images in {len(manifest.shards)} shards, generation {manifest.generation}"
    )


@app.command()
def seal(bank: Folder) -> None:
    """Check every shard, and write sha256 sums into the manifest, for a bank that is to be published."""
    from genmix_transforms.bank.verifying import seal as seal_bank

    manifest = seal_bank(bank)
    typer.echo(f"{bank}: sealed: {len(manifest.shards)} shards, generation {manifest.generation}")


class Format(StrEnum):
    """What a bank is exported to."""

    PNG = "png"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"


@app.command()
def export(
    bank: Folder,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    format: Annotated[Format, typer.Option(help="A folder of PNG files a class, tar shards, or Parquet.")] = Format.PNG,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write the images for other programs to read."""
    from genmix_transforms.bank import SyntheticBank, exporting

    write = {
        Format.PNG: exporting.export_png,
        Format.WEBDATASET: exporting.export_webdataset,
        Format.PARQUET: exporting.export_parquet,
    }[format]
    write(SyntheticBank.load(bank), out, overwrite=overwrite)
    typer.echo(str(out))
