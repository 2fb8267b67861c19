"""``genmix convert``: somebody else's weights, checked, into a folder of ours."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.cli.options import Out, comma_separated

app = typer.Typer(
    help="Bring weights trained elsewhere into a folder of ours. Nothing is unpickled.", no_args_is_help=True
)


@app.callback()
def kinds() -> None:
    """Bring weights trained elsewhere into a folder of ours. Nothing is unpickled."""


@app.command()
def dcgan(
    files: Annotated[list[Path], typer.Argument(help="Generator weights (.pth, .pt, .safetensors), one file a class.")],
    out: Out,
    classes: Annotated[
        str | None, typer.Option(help="Class names, one for each file: cyst,metastasis. A single file may go without.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a generator in this folder.")] = False,
) -> None:
    """Convert generators laid out as in the PyTorch DCGAN example (main.0.weight, ...), with or without a prefix."""
    from genmix_transforms.generators.dcgan import convert_dcgan

    generator = convert_dcgan([str(file) for file in files], classes=comma_separated(classes) or None)
    generator.save_pretrained(out, overwrite=overwrite)
    channels, height, width = generator.image_shape
    counts = ",".join(f"{name}=100" for name in generator.classes)
    command = shlex.join(["genmix", "fill", str(out), "--counts", counts, "--out", f"banks/{out.name}"])
    typer.echo(
        f"{out}: draws {channels} x {height} x {width} images of {', '.join(generator.classes)}; fill a bank with it:\n"
        f"  {command}"
    )
