"""``genmix styles``: sheets of a StyleGAN's mixed styles, and of the way between two images."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genmix_transforms.cli.command import Command
from genmix_transforms.cli.options import Device, comma_separated
from genmix_transforms.errors import InputError

if TYPE_CHECKING:
    from genmix_transforms.generators import StyleGAN

app: typer.Typer = typer.Typer(help="Inspect the styles of a StyleGAN.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="A StyleGAN: a folder, or the id of a repository on the hub.")]
Picture = Annotated[Path, typer.Option(help="The picture to write (.png).")]
ClassName = Annotated[str | None, typer.Option(help="The class to draw. Default: the first.")]
Psi = Annotated[float | None, typer.Option(help="Truncation. Default: the StyleGAN's own.")]


@app.command(cls=Command)
def mix(
    generator: Source,
    out: Picture,
    class_name: ClassName = None,
    coarse_seeds: Annotated[str, typer.Option(help="A row for each: the styles of the coarse layers.")] = "0,1,2,3",
    fine_seeds: Annotated[str, typer.Option(help="A column for each: the fine layers.")] = "4,5,6,7,8,9",
    crossover: Annotated[
        int | None, typer.Option(help="The first fine layer, two per resolution from 4 pixels on. Default: the middle.")
    ] = None,
    psi: Psi = None,
    device: Device = None,
) -> None:
    """Draw images with the coarse styles of one seed and the fine styles of another."""
    from genmix_transforms.files.sheet import draw_sheet, save_picture
    from genmix_transforms.generators.stylegan import mix_styles

    loaded, label = _load(generator, class_name=class_name, psi=psi, device=device)
    coarse, fine = _seeds(coarse_seeds, "--coarse-seeds"), _seeds(fine_seeds, "--fine-seeds")
    grid = mix_styles(loaded, label=label, coarse_seeds=coarse, fine_seeds=fine, crossover=crossover)
    headings = [(str(seed), 1) for seed in fine]
    save_picture(draw_sheet(list(grid), [str(seed) for seed in coarse], headings=headings), out)
    typer.echo(str(out))


@app.command(cls=Command)
def interpolate(
    generator: Source,
    out: Picture,
    class_name: ClassName = None,
    seeds: Annotated[
        str, typer.Option(help="The images to interpolate between, with a row from each to the next.")
    ] = "0,1,2,3",
    frames: Annotated[int, typer.Option(help="Images in a row.")] = 8,
    psi: Psi = None,
    device: Device = None,
) -> None:
    """Draw a linear interpolation in w between the images of seeds."""
    from genmix_transforms.files.sheet import draw_sheet, save_picture
    from genmix_transforms.generators.stylegan import interpolate as walk

    loaded, label = _load(generator, class_name=class_name, psi=psi, device=device)
    numbers = _seeds(seeds, "--seeds")
    rows = walk(loaded, label=label, seeds=numbers, frames=frames)
    titles = [f"{start} to {stop}" for start, stop in pairwise(numbers)]
    save_picture(draw_sheet(list(rows), titles), out)
    typer.echo(str(out))


def _load(source: str, *, class_name: str | None, psi: float | None, device: str | None) -> tuple["StyleGAN", int]:
    """The StyleGAN and the label of a class; of a network for each class, the one of that class."""
    from genmix_transforms.generators import PerClass, StyleGAN, load_generator
    from genmix_transforms.generators.processes import own_device

    generator = load_generator(source, device=own_device(device))
    class_name = generator.classes[0] if class_name is None else class_name
    if class_name not in generator.classes:
        raise InputError(f"{source}: no class {class_name!r}; the classes are {', '.join(generator.classes)}")
    label = generator.classes.index(class_name)
    if isinstance(generator, PerClass):
        generator, label = generator.members[label], 0
    if not isinstance(generator, StyleGAN):
        raise InputError(f"{source}: a {generator.kind} generator has no styles; give a StyleGAN")
    return generator if psi is None else generator.truncated(psi=psi, cutoff=generator.cutoff), label


def _seeds(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in comma_separated(text)]
    except ValueError as error:
        raise InputError(f"{option}: expected whole numbers, separated by commas, got {text!r}") from error
