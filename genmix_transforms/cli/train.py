"""``genmix train``: a command for each kind of generator, made from its settings."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from genmix_transforms.cli import train_adm, train_stylegan, train_textual_inversion
from genmix_transforms.cli.command import Command
from genmix_transforms.cli.options import (
    AllData,
    Channels,
    Data,
    Device,
    Fit,
    FitOption,
    GroupKey,
    Official,
    Out,
    Restart,
    Seed,
    Size,
    SplitSeed,
    open_training_set,
    propose_fill,
)
from genmix_transforms.cli.parameters import with_settings
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed
from genmix_transforms.generators.arguments import shape_of
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.per_class import PerClass
from genmix_transforms.generators.processes import own_device
from genmix_transforms.generators.registry import generator_class, trainable_kinds

PANELS = {"network": "Network", "training": "Training"}

HELP = """Train {article} {name}.

    Leaves the generator (genmix fill takes it), a sheet for every checkpoint in samples/, and the losses in training/.

    Run again, it goes on where it stopped.

    Several processes: torchrun --nproc_per_node 2 -m genmix_transforms train {kind} ...
    """


class Kinds(typer.core.TyperGroup):
    """A command for each kind of generator; it is made, and its kind imported, when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The kinds by name, then the commands that are no kinds."""
        return sorted({*trainable_kinds(), *super().list_commands(ctx)})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a kind."""
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in trainable_kinds():
            found = train_command(generator_class(cmd_name))
        return found


app = typer.Typer(
    cls=Kinds,
    help="Train a generator on the training part of real patches. Run again, it goes on where it stopped.",
    no_args_is_help=True,
)


@app.callback()
def kinds() -> None:
    """Train a generator on the training part of real patches. Run again, it goes on where it stopped."""


# Until their settings are fields.
app.command("stylegan", cls=Command)(train_stylegan.stylegan)
app.command("adm", cls=Command)(train_adm.adm)
app.command("adm-classifier", cls=Command)(train_adm.adm_classifier)
app.command("textual-inversion", cls=Command)(train_textual_inversion.textual_inversion)


def train_command(kind: type[Generator]) -> Any:
    """Make the command that trains a kind of generator, with an option for each of its settings."""

    @with_settings(PANELS, network=kind.network_settings, training=kind.training_settings)
    def train(
        context: typer.Context,
        network: dict[str, Any],
        training: dict[str, Any],
        data: Data,
        out: Out,
        size: Size = None,
        fit: FitOption = Fit.RESIZE,
        channels: Channels = None,
        group_key: GroupKey = None,
        split_seed: SplitSeed = 0,
        official: Official = True,
        all_data: AllData = False,
        init: Annotated[
            str | None,
            typer.Option(
                help="Fine-tune this generator (a folder, or a hub id), made to fit the data's size and classes."
            ),
        ] = None,
        per_class: Annotated[
            bool,
            typer.Option(
                "--per-class",
                help="A network for each class (the paper's way with GANs), each for all the steps.",
                hidden=not kind.trains_per_class,
            ),
        ] = False,
        seed: Seed = 0,
        restart: Restart = False,
        device: Device = None,
    ) -> None:
        check_output_folder(out)
        own_device(device)
        check_seed(seed)
        if per_class and not kind.trains_per_class:
            raise InputError(f"--per-class: a {kind.kind} learns all classes in one network; leave the option out")
        if init is not None and per_class:
            raise InputError("give --init or --per-class, not both: a network is fine-tuned on all its classes")
        if init is not None and kind.fine_tuning_preset is not None:
            training = {"preset": kind.fine_tuning_preset, **training}
        kind.training_settings.of(training, name=kind.kind)
        network = kind.prepare_options(network, init=init)
        patches = open_training_set(
            data,
            size=size,
            fit=fit,
            channels=channels,
            group_key=group_key,
            split_seed=split_seed,
            official=official,
            all_data=all_data,
            painter=kind.__name__,
        )
        generator: Generator
        if init is not None:
            generator = kind.adapted_to(init, patches, **network)
        elif per_class:
            generator = PerClass.of(
                kind, classes=patches.classes, **shape_of(patches, painter=kind.__name__), **network
            )
        else:
            generator = kind.for_patches(patches, **network)
        generator.fit(
            patches,
            out=out,
            seed=seed,
            warm_start=init is not None,
            restart=restart,
            device=device,
            progress=bool(context.obj),
            **training,
        )
        propose_fill(out)

    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    train.__doc__ = kind.command_help or HELP.format(article=article, name=kind.__name__, kind=kind.kind)
    return command_of(train, name=kind.kind)


def command_of(function: Callable[..., None], *, name: str) -> Any:
    """A function with Typer's annotations as a command."""
    single = typer.Typer(add_completion=False)
    single.command(name, cls=Command)(function)
    return typer.main.get_command(single)
