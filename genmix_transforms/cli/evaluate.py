"""``genmix evaluate``."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.cli.options import (
    DATA_PANEL,
    FOLD,
    Data,
    DataOptions,
    Device,
    Out,
    comma_separated,
    takes_data_options,
)
from genmix_transforms.cli.parameters import with_settings
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.protocol import BUDGET, Protocol
from genmix_transforms.files.checks import check_output_folder, whole_number

ARMS_PANEL = "Arms"
TRAINING_PANEL = "Training of the classifiers, the same in every arm"
MOST_FOLDS = 1000
AUTO = "auto"


class Exclude(StrEnum):
    """What is left out of banks."""

    COPIES = "copies"


@takes_data_options
@with_settings({"protocol": TRAINING_PANEL}, protocol=Protocol)
def evaluate(
    context: typer.Context,
    protocol: dict[str, Any],
    options: DataOptions,
    data: Data,
    out: Out,
    bank: Annotated[
        list[str] | None,
        typer.Option(
            help="The bank, for the arms that use one; or several, each as NAME=FOLDER. With --folds each fold has its "
            "own: write {fold} for the number of the fold.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = None,
    exclude: Annotated[
        Exclude | None,
        typer.Option(
            help="copies: leave out of the banks what genmix bank check has flagged as copies of training images.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Cross-validate: every patch is tested once per seed.", rich_help_panel=DATA_PANEL)
    ] = 1,
    arms: Annotated[
        str,
        typer.Option(
            help="baseline (real images), mixup, augmix, classical (flips, rotations, crops), repeat (real images "
            "again), pool (real images, from the weights of --pool-weights), blend (real and synthetic in one training "
            "set), pretrain (synthetic first, then real), genmix, genmix-union (real partners too), genmix-real (only "
            "those), and balanced-mixup, blend-mixup, genmix-first, pretrain-repeat. With banks by name: blend:NAME, "
            "...; blend alone is one for each. With options of their own: "
            "blend@0.25, genmix@pairing=same, genmix@pairing=all.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = "baseline,mixup,blend,genmix",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="auto: choose whether and how to use the bank, on the validation part alone, and add the choice to "
            "the arms. Or the arms to choose from, separated by commas.",
            rich_help_panel=ARMS_PANEL,
        ),
    ] = None,
    budget: Annotated[
        int, typer.Option(help="Maximum number of trainings for --recipe.", rich_help_panel=ARMS_PANEL)
    ] = BUDGET,
    seeds: Annotated[int, typer.Option(help="Runs of each arm; 5 or more.", rich_help_panel=TRAINING_PANEL)] = 5,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Train classifiers with and without synthetic images, and compare them: tables, CSV, JSON and LaTeX.

    All arms take the same number of optimizer steps. For each seed, all arms but "pool" start from the same weights.
    Run it again to continue where it stopped. The same command in a second terminal shares the work.
    """
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.evaluation import Fold, evaluate_folds
    from genmix_transforms.evaluation.arms import order_arms
    from genmix_transforms.evaluation.checks import check_seeds
    from genmix_transforms.evaluation.classifiers import check_classifier
    from genmix_transforms.evaluation.comparison import Plan
    from genmix_transforms.evaluation.recipe import RecipePlan, recipe_candidates
    from genmix_transforms.generators.processes import own_device

    # Reading the data may take minutes: whatever the options alone can have wrong comes first.
    check_output_folder(out)
    own_device(device)
    check_seeds(seeds)
    whole_number(folds, name="--folds", least=1, most=MOST_FOLDS)
    chosen = Protocol.of(protocol, name="evaluate")
    for weights in (chosen.weights, *filter(None, [chosen.pool_weights])):
        check_classifier(chosen.classifier, weights=weights)
    if recipe is not None and folds > 1:
        raise InputError(
            f"--recipe with --folds {folds}: a recipe is chosen for one split, on its validation part; leave one of "
            "them out"
        )
    folders = _bank_folders(bank or [], folds=folds)
    candidates = None if recipe in (None, AUTO) else comma_separated(str(recipe))
    if recipe is not None:
        recipe_candidates(candidates, folders, chosen)
    order_arms(comma_separated(arms), folders, {}, chosen)
    without: Literal["copies"] | None = None if exclude is None else "copies"
    banks = [
        {
            name: SyntheticBank.load(folder.replace(FOLD, str(number)), exclude=without)
            for name, folder in folders.items()
        }
        for number in range(folds)
    ]
    patches = options.open(data)
    splits = options.fold_patches(patches, folds) if folds > 1 else (options.split_patches(patches),)
    parts = [Fold(splits=of_fold, banks=found) for of_fold, found in zip(splits, banks, strict=True)]
    asked: dict[str, Any] = {
        "arms": comma_separated(arms), "seeds": seeds, "protocol": chosen, "out": out, "device": device
    }  # fmt: skip
    plan_of_recipe = None
    if recipe is not None:
        plan_of_recipe = RecipePlan.of(
            splits[0],
            banks=banks[0],
            candidates=candidates,
            protocol=chosen,
            budget=budget,
            out=out,
            device=device,
        )
    if dry_run:
        plan = Plan.of(parts, **asked)
        if plan_of_recipe is not None:
            typer.echo(
                f"before them at most {budget} trainings to choose a recipe among "
                f"{', '.join(plan_of_recipe.candidates)}, and then {seeds} of what is chosen"
            )
        typer.echo("\n".join([*(f"note: {doubt}" for doubt in plan.doubts), plan.estimate()]))
        print_config(context, resolved=chosen.to_json())
        return
    progress = bool(context.obj)
    if plan_of_recipe is not None:
        Plan.of(parts, **asked)  # what would stop the comparison stops it before the search
        found = plan_of_recipe.run(progress=progress)
        typer.echo(f"\n{found.sentence}\n{found.code}\n")
        asked["recipe"] = found
    results = evaluate_folds(parts, **asked, progress=progress)
    typer.echo(f"\n{results.table()}\n\n{out}: results.md, .tex, .csv and .json, summary.csv, differences.csv")


def _bank_folders(texts: Sequence[str], *, folds: int) -> dict[str, str]:
    """The folders of the banks by name: one ``FOLDER``, or each as ``NAME=FOLDER``."""
    from genmix_transforms.evaluation.arm_names import ONLY_BANK, check_bank_name

    folders: dict[str, str] = {}
    for text in texts:
        # An equals sign may be in the name of a folder; then the folder is there.
        name, equals, folder = (ONLY_BANK, "", text) if Path(text).exists() else text.partition("=")
        if not equals:
            name, folder = ONLY_BANK, text
        if equals:
            check_bank_name(name)
        if name in folders or (len(texts) > 1 and name == ONLY_BANK):
            raise InputError(f"--bank {text}: each of several banks needs its own name: --bank NAME=FOLDER")
        if folds > 1 and FOLD not in folder:
            raise InputError(
                f"--bank {text}: {folds} folds need a bank each, whose generator saw that fold's training part only: "
                f"give --bank {name + '=' if name else ''}FOLDER with {FOLD} in it, such as out/fold-{FOLD}/banks/dcgan"
            )
        folders[name] = folder
    return folders
