"""``genmix bank``: what is in a bank, what it looks like, and whether it is whole."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into a bank of synthetic images.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The bank's folder.")]


@app.command()
def info(bank: Folder) -> None:
    """Print what a bank holds and where it comes from."""
    from genmix_transforms.bank import store

    manifest = store.read_manifest(bank)
    typer.echo(f"{bank}: {sum(manifest.class_counts)} images, {' x '.join(map(str, manifest.shape))}, {manifest.dtype}")
    for name, count in zip(manifest.classes, manifest.class_counts, strict=True):
        typer.echo(f"  {name:<24} {count:>8}")
    typer.echo(f"  {len(manifest.shards)} shard{'s' * (len(manifest.shards) != 1)}, generation {manifest.generation}")
    generator = manifest.provenance.get("generator")
    if generator:
        typer.echo(f"  drawn by a {generator['kind']} generator, weights {generator['weights'][:19]}...")
    counts = manifest.provenance.get("training_set", {}).get("class_counts")
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
def verify(bank: Folder) -> None:
    """Check every shard against its checksum; a corrupt one is named."""
    from genmix_transforms.bank import SyntheticBank

    loaded = SyntheticBank.load(bank, verify=True)
    typer.echo(f"{bank}: whole: {loaded.extra_repr()}")
