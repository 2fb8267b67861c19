"""``genmix train adm-classifier``: the classifier of noisy images that guides an ADM's sampling."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.cli.options import (
    AllData,
    Data,
    DataOptions,
    Device,
    Out,
    Restart,
    Seed,
    takes_data_options,
)
from genmix_transforms.cli.parameters import with_settings
from genmix_transforms.files.checks import check_output_folder, check_seed
from genmix_transforms.generators.adm import ADM, ADMConfiguration, ClassifierSettings
from genmix_transforms.generators.adm.classifier_training import estimate_classifier, train_classifier
from genmix_transforms.generators.folder import check_free
from genmix_transforms.generators.processes import own_device


@with_settings({"training": "Training"}, training=ClassifierSettings)
@takes_data_options
def adm_classifier(
    context: typer.Context,
    training: dict[str, Any],
    options: DataOptions,
    data: Data,
    generator: Annotated[Path, typer.Option(help="The ADM that it will guide: a folder of genmix train adm.")],
    out: Out,
    all_data: AllData = False,
    configuration: Annotated[
        Path | None,
        typer.Option(help="JSON of the classifier's flags. Default: the widths of the generator."),
    ] = None,
    guided: Annotated[
        Path | None, typer.Option(help="Save the generator with this classifier here; genmix fill takes it.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Scale of the guidance of --guided; 0.5 to 10 in the paper.")] = 1.0,
    seed: Seed = 0,
    restart: Restart = False,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Train the classifier of noisy images that guides an ADM's sampling.

    With it, a generator that was trained without labels draws the classes of the labeled images.

    It writes the classifier to the folder (NoisyClassifier.from_pretrained opens it), and losses and accuracies to
    training/, the latter for each quarter of the timesteps.
    """
    check_output_folder(out)
    own_device(device)
    check_seed(seed)
    settings = ClassifierSettings.of(training, name="adm-classifier")
    flags = None if configuration is None else ADMConfiguration.from_file(configuration)
    if guided is not None:
        check_free(guided, overwrite=restart)
    adm = ADM.from_pretrained(generator)
    patches = options.open_training_set(data, all_data=all_data, painter="ADM")
    run: dict[str, Any] = {
        "generator": adm, "out": out, "configuration": flags, "seed": seed, "device": device, **training,
    }  # fmt: skip
    if dry_run:
        typer.echo(estimate_classifier(patches, **run).text())
        print_config(context, resolved=settings.to_json())
        return
    trained = train_classifier(patches, restart=restart, progress=bool(context.obj), **run)
    typer.echo(f"{out}: trained")
    if guided is not None:
        told = None if adm.configuration.class_cond else patches.classes  # else by the classifier alone
        adm.with_classifier(trained, scale=scale, classes=told).save_pretrained(guided, overwrite=restart)
        command = shlex.join(["genmix", "fill", str(guided), "--out", f"banks/{guided.name}"])
        typer.echo(f"{guided}: the generator, guided by it; fill a bank with it:\n  {command}")
