"""``genmix convert``: somebody else's weights, checked, into a folder of ours."""

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genmix_transforms.cli.command import Command, DryRun, print_config
from genmix_transforms.cli.options import Out, comma_separated

if TYPE_CHECKING:
    from genmix_transforms.generators.base import Generator

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a generator in this folder.")]

app: typer.Typer = typer.Typer(
    help="Convert published weights to a generator folder. Nothing is unpickled.", no_args_is_help=True
)


@app.callback()
def kinds() -> None:
    """Convert published weights to a generator folder. Nothing is unpickled."""


@app.command(cls=Command)
def dcgan(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(help="Generator weights (.pth, .pt, .safetensors), one file per class.")
    ],
    out: Out,
    classes: Annotated[
        str | None, typer.Option(help="Class names, one for each file: cyst,metastasis. Optional for a single file.")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Convert generators in the layout of the PyTorch DCGAN example (main.0.weight, ...), with or without prefix."""
    from genmix_transforms.generators.dcgan import convert_dcgan

    _check_out(out, overwrite=overwrite)
    generator = convert_dcgan([str(file) for file in files], classes=comma_separated(classes) or None)
    _finish(context, generator, out, overwrite=overwrite, dry_run=dry_run)


@app.command(cls=Command)
def stylegan(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="NVIDIA's .pkl, or a PyTorch port's .pt, .pth, .model, .safetensors.")],
    out: Out,
    classes: Annotated[
        str | None,
        typer.Option(help="Class names: cyst,metastasis. Several make an unconditional network conditional."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Adapt it to images with this side in pixels. Default: no change.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Adapt it to 1 for gray, 3 for color. Default: no change.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of new weights, if the network is adapted.")] = 0,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Convert a StyleGAN (version 1) by NVIDIA, or from the ports of rosinality, huangzh13 and lernapparat.

    NVIDIA's files also have the discriminator. It is converted, too, and genmix train stylegan --init uses both.
    """
    from genmix_transforms.files.checks import check_seed
    from genmix_transforms.generators.stylegan import convert_stylegan

    _check_out(out, overwrite=overwrite)
    names = comma_separated(classes) or None
    generator = convert_stylegan(file, classes=names, resolution=resolution, channels=channels, seed=check_seed(seed))
    typer.echo(f"{file}: {generator.provenance['converted']}")
    for note in generator.provenance.get("notes", []):
        typer.echo(f"  {note}")
    _finish(context, generator, out, overwrite=overwrite, dry_run=dry_run)


class _TakesFlags(Command):
    """A command that takes a file of the original's flags by ``--config`` too, as it did before."""

    def read_config(self, file: Path) -> dict[str, Any]:
        """What the file holds, or the file itself as the one of the flags."""
        content = super().read_config(file)
        if not content.keys() & {"image_size", "large_size", "num_channels", "classifier_width"}:
            return content
        warnings.warn(f"--config {file}: write --flags {file} for the original's flags", FutureWarning, stacklevel=2)
        return {"flags": str(file)}


@app.command(cls=_TakesFlags)
def adm(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="A checkpoint (.pt, .pth, .safetensors), or its path on the hub, owner/name/file.pt.")
    ],
    out: Out,
    flags: Annotated[
        Path | None,
        typer.Option(help="JSON of the original's flags, for a network without a published size."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, in the network's order: cyst,metastasis. Default: numbers.")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Convert a checkpoint of OpenAI's guided-diffusion (ADM): a network, an upsampler or a noisy classifier.

    Published networks are recognized. The folder holds the network in the format of diffusers, in unet/. Upsamplers and
    classifiers do not draw images by themselves; they are converted to a diffusers folder only.
    """
    from genmix_transforms.generators.adm import ADM
    from genmix_transforms.generators.adm.convert import read_checkpoint
    from genmix_transforms.generators.adm.network import save_network

    _check_out(out, overwrite=overwrite)
    checkpoint = read_checkpoint(file, configuration=flags)
    if checkpoint.kind != "network":
        where = type(checkpoint.network).__name__
        typer.echo(f"{out}: an ADM {checkpoint.kind}, which {where}.from_pretrained opens")
        if dry_run:
            print_config(context)
        else:
            save_network(out, checkpoint.network)
        return
    generator = ADM.from_checkpoint(checkpoint, classes=comma_separated(classes) or None)
    _finish(context, generator, out, overwrite=overwrite, dry_run=dry_run)


@app.command(name="textual-inversion", cls=Command)
def textual_inversion(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Embeddings, one file per class: diffusers' learned_embeds.safetensors or .bin (or its folder), Gal's "
            "embeddings_gs-N.pt, AUTOMATIC1111's .pt."
        ),
    ],
    out: Out,
    classes: Annotated[str, typer.Option(help="Class names, one for each file: cyst,metastasis.")],
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model that they were learned for: a folder with a diffusers pipeline, or a hub id. Default: "
            "the paper's (CompVis/ldm-text2im-large-256)."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the base model on the hub.")] = None,
    resolution: Annotated[
        int,
        typer.Option(
            "--resolution", "--size", help="Side of the images in pixels; the base model's images are resized to it."
        ),
    ] = 64,
    channels: Annotated[int, typer.Option(help="1 for gray, 3 for color.")] = 1,
    prompt: Annotated[
        str | None,
        typer.Option(help='Prompt to draw with, such as "a photo of {}", where {} is the class. Default: a plain one.'),
    ] = None,
    sampler: Annotated[str, typer.Option(help="paper (DDIM, 50 steps) or fast (DPM-Solver++, 20).")] = "paper",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Make a Textual Inversion from learned embeddings. The base model is not copied."""
    from genmix_transforms.generators.textual_inversion import TextualInversion
    from genmix_transforms.generators.textual_inversion.embeddings_file import one_file_a_class
    from genmix_transforms.generators.textual_inversion.settings import PAPER_MODEL, SamplerSettings

    _check_out(out, overwrite=overwrite)
    generator = TextualInversion.from_embeddings(
        one_file_a_class(files, comma_separated(classes)), base=base or PAPER_MODEL, revision=revision,
        resolution=resolution, channels=channels, prompt=prompt, sampler=SamplerSettings.of(sampler),
    )  # fmt: skip
    for file, name in zip(files, generator.classes, strict=True):
        count, token = generator.vectors[name], generator.provenance["tokens"][name]
        typer.echo(f"{file}: {token}, {count} vector{'s' * (count > 1)}: class {name}")
    _finish(context, generator, out, overwrite=overwrite, dry_run=dry_run)


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or must not be, before any work."""
    from genmix_transforms.files.checks import check_output_folder
    from genmix_transforms.generators.folder import check_free

    check_output_folder(out)
    check_free(out, overwrite=overwrite)


def _finish(context: typer.Context, generator: "Generator", out: Path, *, overwrite: bool, dry_run: bool) -> None:
    """Save what was made unless nothing is to be done, and say what it is and what to do with it."""
    if not dry_run:
        generator.save_pretrained(out, overwrite=overwrite)
    shape = " x ".join(map(str, generator.image_shape))
    names = generator.classes
    counts = ",".join(f"{name}=100" for name in names[:3])
    listed = ", ".join(names) if len(names) < 8 else f"{len(names)} classes"
    command = shlex.join(["genmix", "fill", str(out), "--counts", counts, "--out", f"banks/{out.name}"])
    typer.echo(f"{out}: draws {shape} images of {listed}; fill a bank with it:\n  {command}")
    if dry_run:
        print_config(context)
