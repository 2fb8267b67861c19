"""Table 1 of the paper for anyone's data: generators trained on each fold's training part, banks, all arms, statistics.

    pip install '.[classifiers]'
    python benchmarks/table1.py --data busi_128.npz --preset small --folds 3 --seeds 5 \
        --generators dcgan,stylegan,adm-scratch --out results/table1_busi

Run again, it goes on where it stopped: generators at their last checkpoint, banks at their last shard, classifiers at
their last run. ``--processes 2`` shares the work between two processes, each with a GPU of its own where there are as
many; so does the same command in a second terminal.
Which options choose the data is in table1_data.py, the sizes and steps of the generators in table1_generators.py,
everything else is genmix_transforms.evaluation's.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from table1_data import add_data_options, given_folds, given_patches
from table1_generators import GENERATORS, NEEDS_WEIGHTS, add_precision_option, in_precision

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import (
    Fold,
    Protocol,
    Recipe,
    Results,
    evaluate_folds,
    feature_points,
    make_banks,
    preset,
    save_figures,
)
from genmix_transforms.evaluation.arms import split_arm_name, with_value
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.training import train_network
from genmix_transforms.generators.processes import own_device

FIGURES = "--figures"
PROTOCOLS = {
    "scratch": Protocol(tune=3),
    "trial": Protocol(steps=4, batch_size=8, validate_every=2, tune=2),
}
"""The classifiers of the presets that are these scripts' own. ``scratch`` is what ``genmix evaluate`` trains where no
preset is given, a small network from random weights, tuned as in ``small``."""
PLAIN = ("baseline", "mixup", "augmix", "classical", "repeat", "genmix-real")
ARMS = (*PLAIN, "blend", "genmix", "genmix-union")
"""The arms of the paper's table, and of the recorded ones; ``--arms`` takes others too."""


def choose_recipes(
    names: Sequence[str], *, preset: str, side: int, weights: dict[str, str], precision: str | None = None
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The recipes of the generators that can be had, and why the others cannot."""
    known = GENERATORS[preset](side)
    if precision is not None:
        known = {name: in_precision(recipe, precision) for name, recipe in known.items()}
    unknown = [name for name in (*names, *weights) if name not in known]
    if unknown:
        raise InputError(f"no generator {unknown[0]!r} in the preset {preset}; there are {', '.join(known)}")
    recipes, missing = {}, {}
    for name in names:
        if name in weights:
            recipes[name] = known[name].starting_from(weights[name])
        elif name in NEEDS_WEIGHTS:
            missing[name] = NEEDS_WEIGHTS[name]
        else:
            recipes[name] = known[name]
    return recipes, missing


def protocol_of(name: str) -> Protocol:
    """How a preset trains its classifiers.

    Args:
        name: one of ``GENERATORS``.
    """
    return PROTOCOLS[name] if name in PROTOCOLS else preset(name)


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` as a mapping."""
    for text in texts:
        if "=" not in text:
            raise InputError(f"expected NAME=FOLDER, got {text!r}")
    return dict(text.split("=", 1) for text in texts)


def in_several_processes(count: int) -> int:
    """This command in so many processes, which share its work; the first one's exit status that is not 0."""
    started = [
        subprocess.Popen([sys.executable, sys.argv[0], *words], env={**os.environ, **environment})
        for words, environment in shared_among(count, sys.argv[1:])
    ]
    return next((code for code in [process.wait() for process in started] if code), 0)


def shared_among(count: int, words: Sequence[str]) -> list[tuple[list[str], dict[str, str]]]:
    """What each of so many processes is given: the words of its command line, and what its environment has besides.

    Each has a ``LOCAL_RANK``, by which it takes a GPU of its own, or one of the fewest others, unless the command names
    one: ``cuda`` alone names none.
    """
    at = words.index("--processes")
    rest = [*words[:at], *words[at + 2 :]]
    for place, word in enumerate(rest):
        if (word, *rest[place + 1 : place + 2]) == ("--device", "cuda"):
            rest = rest[:place] + rest[place + 2 :]
            break
    common = [*(word for word in rest if word != FIGURES), "--no-progress"]
    # Figures are drawn once, by the first.
    return [
        ([*common, FIGURES] if FIGURES in rest and not number else common, {"LOCAL_RANK": str(number)})
        for number in range(count)
    ]


def draw_figures(
    results: Results,
    splits: Splits,
    banks: Mapping[str, SyntheticBank],
    protocol: Protocol,
    *,
    out: Path,
    device: str | None,
) -> None:
    """The figures of the results; examples, features and evolution are the first fold's, the features of seed 0."""
    where = own_device(device)
    train = splits[0]
    genmix = {name: GenMix(bank.with_classes(train.classes), alpha=protocol.alpha) for name, bank in banks.items()}
    points = {}
    for arm in results.arms:
        kind, name = split_arm_name(arm)
        if kind not in ("baseline", "blend", "genmix"):
            continue
        (knob,) = {run.knob for run in results.runs if (run.arm, run.fold, run.seed) == (arm, 0, 0)}
        setting = prepare((arm,), splits, banks, with_value(protocol, arm, knob), device=where)
        network = train_network(arm, splits, setting, 0, device=where).network
        shown = {"baseline": {}, "blend": {"bank": banks.get(name)}}.get(
            kind, {"bank": banks.get(name), "genmix": genmix.get(name)}
        )
        points[arm] = feature_points(network, train, normalisation=setting.normalisation, **shown)
    evolving = [run for run in (out / "fold-0" / "runs").glob("adm*") if (run / "training").exists()]
    extra = {"train": train, "genmix": genmix} if genmix else {}
    save_figures(results, out / "figures", points=points, run=evolving[0] if evolving else None, **extra)


def add_work_options(options: argparse.ArgumentParser, *, figures: str) -> None:
    """How much work, who shares it and what is shown; ``figures`` says what is drawn."""
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument(FIGURES, action="store_true", help=f"{figures} (pip install '.[figures]')")
    options.add_argument("--processes", type=int, default=1, help="how many share the work")
    options.add_argument("--device")
    options.add_argument("--no-progress", action="store_true")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(options, presets=GENERATORS)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--generators", default="dcgan,stylegan,textual-inversion,adm", help="rows, by name")
    add_precision_option(options)
    options.add_argument("--weights", action="append", default=[], metavar="NAME=FOLDER", help="to fine-tune from")
    options.add_argument("--arms", help="left out, all: plain ones, controls, and each with a bank for each generator")
    options.add_argument("--classifier-weights", help="a file, where ImageNet's cannot be downloaded")
    options.add_argument("--classifier-tune", type=int, help="values that each arm tries; left out, the preset's")
    options.add_argument("--only-generators", action="store_true", help="train and fill, and stop there")
    add_work_options(options, figures="draw them too")
    return options


def main() -> None:
    given = parser().parse_args()
    if given.processes > 1:
        sys.exit(in_several_processes(given.processes))
    patches = given_patches(given)
    print(patches)
    folds = given_folds(given, patches)
    names = [name.strip() for name in given.generators.split(",") if name.strip()]
    recipes, missing = choose_recipes(
        names,
        preset=given.preset,
        side=patches.images.shape[-1],
        weights=pairs(given.weights),
        precision=given.mixed_precision,
    )
    for name, reason in missing.items():
        print(f"{name}: stays empty: {reason}")
    banks = make_banks(
        [train for train, _, _ in folds], recipes, out=given.out, device=given.device, progress=not given.no_progress
    )
    for number, made in enumerate(banks):
        for name, bank in made.items():
            print(f"fold {number}, {name}: {bank.extra_repr()}")
    if given.only_generators:
        return
    protocol = protocol_of(given.preset)
    changes = {
        name: value for name in ("weights", "tune") if (value := getattr(given, f"classifier_{name}")) is not None
    }
    results = evaluate_folds(
        [Fold(splits=splits, banks=found) for splits, found in zip(folds, banks, strict=True)],
        arms=given.arms.split(",") if given.arms else ARMS if names else PLAIN,
        seeds=given.seeds,
        protocol=replace(protocol, **changes),
        missing=missing,
        out=given.out,
        device=given.device,
        progress=not given.no_progress,
    )
    print(f"\n{results.table()}")
    if given.figures:
        draw_figures(results, folds[0], banks[0], replace(protocol, **changes), out=given.out, device=given.device)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"table1: {error}")
