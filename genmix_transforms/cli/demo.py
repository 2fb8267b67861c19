"""``genmix demo``: the whole path on the lesion phantom, in a few minutes and with nothing to download."""

import time
from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.files.checks import check_output_folder, check_seed

SIZE = 32
NOISE, ENLARGE = 0.3, 1.6
"""Of the phantom: quieter scans and larger lesions than patients have, so that anyone sees which class is which."""

BASE_WIDTH = 16
STEPS = 1_500
BATCH_SIZE = 16
CLASSIFIER_STEPS = 200
SEEDS = 3

COMMANDS = (
    "genmix split YOUR_DATA --out split.csv",
    "genmix train dcgan --data YOUR_DATA --split split.csv --size 32 --steps 2000 --base-width 32 --out runs/quick",
    "genmix fill runs/quick --out banks/quick",
    "genmix audit banks/quick --data YOUR_DATA --split split.csv --size 32 --out audits/quick",
    "genmix evaluate --data YOUR_DATA --split split.csv --size 32 --bank banks/quick --out results/quick",
)
"""What to type next: the quick settings, minutes on a CPU."""


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("genmix-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the phantom, the generator and the bank.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Do all of it on the lesion phantom: train a generator, fill a bank, mix, compare classifiers.

    Leaves the generator, the bank, a picture of real, synthetic and mixed patches, the results, and report.html, a
    page with the picture and the table.

    Run again, it goes on where it stopped.
    """
    check_output_folder(out)
    check_seed(seed)
    if dry_run:
        typer.echo(f"trains a DCGAN for {STEPS:,} steps, and {SEEDS} classifiers of each arm for {CLASSIFIER_STEPS}")
        print_config(context)
        return
    import torch

    # Networks this small gain a fifth from a second thread, and are several times slower with it on a busy machine.
    torch.set_num_threads(1)
    _run(out, seed=seed, progress=bool(context.obj))


def _run(out: Path, *, seed: int, progress: bool) -> None:
    from genmix_transforms import GenMix
    from genmix_transforms.cli.demo_report import render
    from genmix_transforms.data import LesionPhantom
    from genmix_transforms.data.patches import describe_counts
    from genmix_transforms.evaluation import Protocol, evaluate, mixing_figure
    from genmix_transforms.files.atomic import write_text
    from genmix_transforms.files.sheet import save_picture
    from genmix_transforms.generators import DCGAN, fill_bank

    began = time.monotonic()
    typer.echo(
        "1. Real patches: the lesion phantom, a model of liver lesions in CT (with large lesions and little noise)"
    )
    patches = LesionPhantom(size=SIZE, seed=seed, noise=NOISE, enlarge=ENLARGE).dataset()
    splits = patches.split()
    train = splits[0]
    typer.echo(f"   {len(train)} to train on: {describe_counts(train.class_counts)}")

    typer.echo("2. A small DCGAN learns them")
    generator = DCGAN(classes=train.classes, resolution=SIZE, channels=1, base_width=BASE_WIDTH)
    generator.fit(train, out=out / "generator", steps=STEPS, batch_size=BATCH_SIZE, seed=seed, progress=progress)

    typer.echo("3. It fills a bank, as many images of each class as it learned from")
    bank = fill_bank(generator, counts=train.class_counts, out=out / "bank", seed=seed, progress=progress)

    typer.echo("4. Real, synthetic and mixed patches")
    picture = mixing_figure(train, bank, genmix=GenMix(bank), seed=seed)
    save_picture(picture, out / "mixing.png")

    typer.echo(f"5. Classifiers with and without it, {SEEDS} seeds each")
    results = evaluate(
        splits,
        bank=bank,
        seeds=SEEDS,
        protocol=Protocol(steps=CLASSIFIER_STEPS),
        out=out / "results",
        progress=progress,
    )
    typer.echo(f"\n{results.table()}\n")
    page = render(
        results,
        picture,
        described=f"{len(train)} patches to train on, {describe_counts(train.class_counts)}",
        steps=STEPS,
        classifier_steps=CLASSIFIER_STEPS,
        commands=COMMANDS,
    )
    write_text(out / "report.html", page)
    commands = "".join(f"  {command}\n" for command in COMMANDS)
    typer.echo(
        f"{time.monotonic() - began:.0f} seconds. This shows how it works, not how well: the generator is small and "
        f"has taken {STEPS:,} steps, the classifiers {CLASSIFIER_STEPS}.\n"
        f"picture: {out / 'mixing.png'}\nbank:    {out / 'bank'}\nresults: {out / 'results'}\n\n"
        f"The same with your own data, with quick settings (minutes on a CPU):\n{commands}\n"
        f"The picture, the table and these commands on one page:\n  open {out / 'report.html'}"
    )
