"""``genmix train``: a command for each kind of generator, made from its settings."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.cli.late import LateCommand, as_command
from genmix_transforms.cli.options import (
    AllData,
    Data,
    DataOptions,
    Device,
    Out,
    Pretrain,
    PretrainSteps,
    Restart,
    Seed,
    Unlabelled,
    propose_fill,
    takes_data_options,
)
from genmix_transforms.cli.parameters import with_settings, without
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed
from genmix_transforms.generators.kinds import trainable_kinds

if TYPE_CHECKING:
    from genmix_transforms.generators.base import Generator

OTHERS = {
    "adm-classifier": (
        "train_adm_classifier:adm_classifier",
        "Train the classifier of noisy images that guides an ADM's sampling.",
    )
}
"""What trains something other than a generator: name, place, and what the help says of it."""

PANELS = {"network": "Network", "training": "Training"}

HELP = """Train {article} {name}{summary}.

    Leaves the generator (genmix fill takes it), a sheet for every checkpoint in samples/, {evolution}and the losses in
    training/.

    Run again, it goes on where it stopped.

    Several processes: torchrun --nproc_per_node 2 -m genmix_transforms train {kind} ...
    """


class LateKind(LateCommand):
    """The command of a kind of generator; it is made, and the kind imported, when it is used."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind, "train:train_command", f"Train a generator of the kind {kind}.")

    @cached_property
    def loaded(self) -> Any:
        """The command itself."""
        from genmix_transforms.generators.registry import generator_class

        return train_command(generator_class(str(self.name)))


class Kinds(typer.core.TyperGroup):
    """A command for each kind of generator, and those that train something else."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, sorted."""
        return sorted([*trainable_kinds(), *OTHERS])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, not loaded yet; None if there is none."""
        if cmd_name in OTHERS:
            return LateCommand(cmd_name, *OTHERS[cmd_name])
        return LateKind(cmd_name) if cmd_name in trainable_kinds() else None


app: typer.Typer = typer.Typer(
    cls=Kinds,
    help="Train a generator on the training part of real patches. Run again, it goes on where it stopped.",
    no_args_is_help=True,
)


@app.callback()
def kinds() -> None:
    """Train a generator on the training part of real patches. Run again, it goes on where it stopped."""


def train_command(kind: "type[Generator]") -> Any:
    """Make the command that trains a kind of generator, with an option for each of its settings."""
    from genmix_transforms.generators.arguments import shape_of
    from genmix_transforms.generators.per_class import PerClass
    from genmix_transforms.generators.pretraining import Pretraining, check_kind, check_pool, check_unseen
    from genmix_transforms.generators.processes import own_device
    from genmix_transforms.generators.trackers import check_trackers

    @with_settings(PANELS, network=kind.network_settings, training=kind.training_settings)
    @takes_data_options
    def train(
        context: typer.Context,
        network: dict[str, Any],
        training: dict[str, Any],
        options: DataOptions,
        data: Data,
        out: Out,
        all_data: AllData = False,
        unlabelled: Unlabelled = False,
        pretrain: Pretrain = None,
        pretrain_steps: PretrainSteps = None,
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
            ),
        ] = False,
        seed: Seed = 0,
        restart: Restart = False,
        device: Device = None,
        dry_run: DryRun = False,
    ) -> None:
        warm_start = init is not None or pretrain is not None
        check_output_folder(out)
        where = own_device(device)
        check_seed(seed)
        _check_starts(init=init, pretrain=pretrain, pretrain_steps=pretrain_steps, per_class=per_class, out=out)
        if pretrain is not None:
            check_kind(kind)
        settings = kind.choose_settings(training, warm_start=warm_start)
        check_trackers(settings.report_to)
        prepared = kind.prepare_options(network, training=training, init=init)
        patches, held_out = options.open_parts(
            data,
            all_data=all_data,
            painter=kind.__name__,
            labelled=not unlabelled,
            volumes=kind.draws_volumes,
        )
        first: Pretraining | None = None
        generator: Generator
        if pretrain is not None:
            pool = options.open_pool(pretrain)
            check_pool(pool, patches, held_out=held_out)
            first = Pretraining(
                kind=kind, pool=pool, patches=patches, out=out, network=prepared, training=training,
                steps=pretrain_steps, seed=seed, device=where,
            )  # fmt: skip
        elif init is not None:
            generator = kind.adapted_to(init, patches, **prepared)
            check_unseen(generator, patches, held_out=held_out, name=init)
        elif per_class:
            shape = shape_of(patches, painter=kind.__name__, volumes=kind.draws_volumes)
            generator = PerClass.of(kind, classes=patches.classes, **shape, **prepared)
        else:
            generator = kind.for_patches(patches, **prepared)
        run: dict[str, Any] = {"out": out, "seed": seed, "warm_start": warm_start, "device": where, **training}
        if dry_run:
            if first is not None:
                estimate, generator = first.estimate()
                typer.echo(f"on the pool: {estimate.text().replace('--steps', '--pretrain-steps')}")
            typer.echo(generator.estimate(patches, **run).text())
            print_config(context, resolved={**network, **settings.to_json()})
            return
        if first is not None:
            generator = first.train(restart=restart, progress=bool(context.obj))
            restart = False  # that has thrown away both runs
        generator.fit(patches, restart=restart, progress=bool(context.obj), **run)
        propose_fill(out)

    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    evolution = "evolution.png (the images of fixed seeds as they change), " if kind.shows_evolution else ""
    summary = f": {kind.command_help}" if kind.command_help else ""
    train.__doc__ = HELP.format(
        article=article, name=kind.__name__, kind=kind.kind, summary=summary, evolution=evolution
    )
    return as_command(train if kind.trains_per_class else without(train, "per_class"), name=kind.kind)


def _check_starts(
    *, init: str | None, pretrain: str | None, pretrain_steps: int | None, per_class: bool, out: Path
) -> None:
    """A training starts from given weights, from a pool, or anew, and not from two of these."""
    if init is not None and per_class:
        raise InputError("give --init or --per-class, not both: a network is fine-tuned on all its classes")
    if pretrain is not None and per_class:
        raise InputError("give --pretrain or --per-class, not both: a network is fine-tuned on all its classes")
    if pretrain is not None and init is not None:
        raise InputError(
            "give --pretrain or --init, not both: --pretrain trains on a pool first, --init starts from what is "
            f"trained (such as {out / 'pretrain'}, once --pretrain has been there)"
        )
    if pretrain_steps is not None and pretrain is None:
        raise InputError("--pretrain-steps are steps on a pool: give --pretrain POOL")
