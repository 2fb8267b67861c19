"""What a table of table1.py would take: its optimiser steps counted, one step of each training timed, and multiplied.

    python benchmarks/table1_cost.py --data phantom --preset paper --device cuda

A step is the difference between a short training and one somewhat longer, divided by the steps between them: what is
done once (loading, compiling, saving) is not in it. A StyleGAN's short training grows through all of its sizes, as a
long one does. A classifier's time is the baseline's, with its validations; that early stopping ends many of them sooner
is left aside. The total is an extrapolation, for trainings one after the other: ``table1.py --processes`` shares them.
``--random-weights`` is for a machine that can download nothing: an ADM and a classifier of random numbers take as long
as those of published weights. A Textual Inversion's base model is 6 GB; ``--step-seconds`` takes what
textual_inversion.py has measured.

``--counts`` times nothing, where there is no machine to ask. ``--operations`` counts the floating-point operations of a
step in the time's place (those of matrix products and convolutions, by torch.utils.flop_counter): what any machine
must do, at a rate that is its own.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from findings import Findings, add_json_option
from table1 import ARMS, PLAIN, choose_recipes, pairs, protocol_of
from table1_data import add_data_options, given_folds, given_patches
from table1_generators import GENERATORS, NEEDS_WEIGHTS
from timing import machine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, Recipe
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.classifiers import LITE0
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.training import train_network
from genmix_transforms.generators import ADM
from genmix_transforms.generators.processes import own_device


@dataclass(frozen=True, kw_only=True)
class Row:
    """A kind of training in a table.

    Args:
        name: of the row.
        trainings: how often it is trained.
        steps: optimiser steps of one training, all of its networks together.
        train: trains for so many steps, or for as many per network.
        networks: that ``train`` trains one after the other.
    """

    name: str
    trainings: int
    steps: int
    train: Callable[[int], object]
    networks: int = 1


def generator_row(name: str, recipe: Recipe, train: PatchDataset, *, folds: int, device: str | None) -> Row:
    """Of one generator, on the first fold's training part."""
    networks = len(train.classes) if recipe.per_class else 1

    def fit(steps: int) -> None:
        at_size = train if recipe.size is None else train.resized(recipe.size)
        options = {**recipe.training, "steps": steps}
        warm = {} if recipe.weights is None else {"warm_start": True}
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recipe.untrained(at_size).fit(at_size, out=Path(folder), device=device, progress=False, **warm, **options)

    steps = recipe.training.get("steps")
    if steps is None:
        raise InputError(f"{name}: its recipe does not say how many steps")
    return Row(name=name, trainings=folds, steps=steps * networks, train=fit, networks=networks)


def classifier_row(splits: Splits, protocol: Protocol, *, trainings: int, device: torch.device) -> Row:
    """Of the baseline's classifier; validations come as often as in the protocol."""
    whole = protocol.for_training_set(len(splits[0]))

    def fit(steps: int) -> None:
        setting = prepare(("baseline",), splits, {}, replace(whole, steps=steps, patience=None, tune=0), device=device)
        train_network("baseline", splits, setting, 0, device=device)

    return Row(name=f"classifier ({protocol.classifier})", trainings=trainings, steps=whole.steps, train=fit)


def seconds_a_step(row: Row, *, few: int, many: int, device: torch.device) -> float:
    """From two trainings, after one to warm up."""
    taken = []
    for steps in (few, few, many):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        row.train(steps)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return (taken[2] - taken[1]) / ((many - few) * row.networks)


def backward_of_a_convolution(gradient: Tensor, inputs: Tensor, weight: Tensor, *rest: Any, out_val: Any) -> int:
    """Each of the two gradients takes what the convolution takes; torch forgets the groups in one of them."""
    transposed, wanted = rest[4], rest[7]
    forward = conv_flop_count(inputs.shape, weight.shape, gradient.shape, transposed=transposed)
    return forward * (wanted[0] + wanted[1])


FORMULAS = {**flop_registry, torch.ops.aten.convolution_backward: backward_of_a_convolution}


class Operations(TorchDispatchMode):
    """Counts while it is entered. Torch's FlopCounterMode also asks which module calls, and fails in R1's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if formula := FORMULAS.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def operations_a_step(row: Row, *, few: int, many: int) -> float:
    """Floating-point operations, from two trainings; a product and a sum are two."""
    counted = []
    for steps in (few, many):
        with Operations() as operations:
            row.train(steps)
        counted.append(operations.total)
    return (counted[1] - counted[0]) / ((many - few) * row.networks)


def report_operations(rows: Sequence[Row], operations: Sequence[float]) -> list[str]:
    """A Markdown table: operations of a step, and of all trainings."""
    lines = ["| what | trainings | steps of each | GFLOP a step | PFLOP |", "| --- | ---: | ---: | ---: | ---: |"]
    for row, found in zip(rows, operations, strict=True):
        whole = row.trainings * row.steps * found
        lines.append(f"| {row.name} | {row.trainings} | {row.steps:,} | {found / 1e9:.1f} | {whole / 1e15:.1f} |")
    return lines


def report(rows: Sequence[Row], seconds: Sequence[float | None]) -> list[str]:
    """A Markdown table, and below it the total where every row was timed."""
    lines = ["| what | trainings | steps of each | ms a step | hours |", "| --- | ---: | ---: | ---: | ---: |"]
    total = 0.0
    for row, found in zip(rows, seconds, strict=True):
        hours = None if found is None else row.trainings * row.steps * found / 3600
        total += hours or 0.0
        cells = ("", "") if found is None or hours is None else (f"{1000 * found:.2f}", f"{hours:.2f}")
        lines.append(f"| {row.name} | {row.trainings} | {row.steps:,} | {cells[0]} | {cells[1]} |")
    return (
        lines if None in seconds else [*lines, "", f"{total:.2f} hours in all, one after the other, no early stopping."]
    )


def save_random_adm(folder: Path, *, preset: str, train: PatchDataset) -> Path:
    """An ADM of random weights to fine-tune: the published network for 64 pixels, or the one of a small preset."""
    scratch = GENERATORS[preset](train.images.shape[-1])["adm-scratch"]
    if scratch.network:
        at_size = train if scratch.size is None else train.resized(scratch.size)
        scratch.untrained(at_size).save_pretrained(folder)
    else:
        channels, _, side = train.images.shape[1:]
        ADM(classes=train.classes, channels=channels, resolution=side, configuration="64").save_pretrained(folder)
    return folder


def known_rows(seconds: dict[str, str], *, preset: str, side: int, folds: int) -> list[tuple[Row, float]]:
    """Rows whose step was timed elsewhere.

    Args:
        seconds: of a step, by the recipe's name.
        preset: of the recipes.
        side: of the patches, in pixels.
        folds: how often each is trained.
    """
    rows = []
    for name, text in seconds.items():
        recipe = GENERATORS[preset](side).get(name)
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if recipe is None or value <= 0:
            raise InputError(f"--step-seconds: expected a recipe and seconds, such as dcgan=0.01, got {name}={text}")

        def never(steps: int, name: str = name) -> None:
            raise AssertionError(f"{name} was timed elsewhere")

        steps = int(recipe.training["steps"])
        rows.append((Row(name=f"{name} (timed elsewhere)", trainings=folds, steps=steps, train=never), value))
    return rows


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(options, presets=GENERATORS, preset="paper")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--generators", default="dcgan,stylegan,textual-inversion,adm")
    options.add_argument("--weights", action="append", default=[], metavar="NAME=FOLDER")
    options.add_argument("--classifier-weights", help="a file, where ImageNet's cannot be downloaded")
    options.add_argument("--random-weights", action="store_true", help="for the ADM and the classifier; no download")
    options.add_argument(
        "--step-seconds", action="append", default=[], metavar="NAME=SECONDS", help="of a generator timed elsewhere"
    )
    options.add_argument("--steps", default="20,120", help="of the short training and of the longer one")
    instead = options.add_mutually_exclusive_group()
    instead.add_argument("--counts", action="store_true", help="count the steps, time nothing")
    instead.add_argument("--operations", action="store_true", help="count each step's floating-point operations")
    options.add_argument("--device")
    add_json_option(options)
    return options


def make_rows(given: argparse.Namespace, scratch: Path, where: torch.device) -> tuple[list[Row], dict[str, str], str]:
    """The rows to time, why others are missing, and what the data are; weights made here go into ``scratch``."""
    patches = given_patches(given)
    splits = given_folds(given, patches)[0]
    elsewhere = pairs(given.step_seconds)
    names = [name.strip() for name in given.generators.split(",") if name.strip() and name.strip() not in elsewhere]
    weights = pairs(given.weights)
    if given.random_weights and "adm" in names and "adm" not in weights:
        weights["adm"] = str(save_random_adm(scratch / "adm", preset=given.preset, train=splits[0]))
    recipes, missing = choose_recipes(names, preset=given.preset, side=patches.images.shape[-1], weights=weights)
    protocol = protocol_of(given.preset)
    if given.classifier_weights is not None:
        protocol = replace(protocol, weights=given.classifier_weights)
    elif (given.operations or given.random_weights) and protocol.classifier != LITE0:
        # Random weights take as many operations, and no download; LITE0's are in a package.
        protocol = replace(protocol, weights=None)
    arms = len(PLAIN) + (len(ARMS) - len(PLAIN)) * (len(recipes) + len(elsewhere))
    rows = [
        generator_row(name, recipe, splits[0], folds=given.folds, device=given.device)
        for name, recipe in recipes.items()
    ]
    trainings = arms * given.folds * (given.seeds + protocol.tune)
    rows.append(classifier_row(splits, protocol, trainings=trainings, device=where))
    return rows, missing, f"{len(splits[0])} training images, {given.folds} fold(s), {given.seeds} seeds"


def timed(
    rows: Sequence[Row],
    known: Sequence[tuple[Row, float]],
    findings: Findings,
    *,
    few: int,
    many: int,
    device: torch.device,
) -> list[str]:
    """The table of seconds; each row's are written down as soon as they are known."""
    seconds = []
    every = [*known, *((row, None) for row in rows)]
    for row, found in every:
        taken = seconds_a_step(row, few=few, many=many, device=device) if found is None else found
        seconds.append(taken)
        findings.add(f"{row.name}: ms a step", 1e3 * taken, "ms")
        findings.add(f"{row.name}: hours in all", row.trainings * row.steps * taken / 3600, "h")
    total = sum(row.trainings * row.steps * taken / 3600 for (row, _), taken in zip(every, seconds, strict=True))
    findings.add("hours of the whole table", total, "h")
    return report([row for row, _ in every], seconds)


def main() -> None:
    given = parser().parse_args()
    few, _, many = given.steps.partition(",")
    if not (few.isdigit() and many.isdigit() and 0 < int(few) < int(many)):
        raise InputError(f"--steps: expected two numbers, the second larger, such as 20,120, got {given.steps!r}")
    where = own_device(given.device)
    counts = {"few": int(few), "many": int(many)}
    with tempfile.TemporaryDirectory() as scratch:
        rows, missing, what = make_rows(given, Path(scratch), where)
        print(f"{what}; {machine(where)}")
        if given.operations:
            print(f"A step is {many} less {few} of them.\n")
            lines = report_operations(rows, [operations_a_step(row, **counts) for row in rows])
        elif given.counts:
            print("Nothing was timed.\n")
            lines = report(rows, [None for _ in rows])
        else:
            print(f"A step is timed as {many} less {few} of them.\n", flush=True)
            side = given_patches(given).images.shape[-1] if given.step_seconds else 0
            known = known_rows(pairs(given.step_seconds), preset=given.preset, side=side, folds=given.folds)
            findings = Findings(given.json, device=where)
            lines = timed(rows, known, findings, **counts, device=where)
            for name in missing:
                findings.add(f"not counted: {name}", NEEDS_WEIGHTS[name])
    print("\n".join(lines))
    for name in missing:
        print(f"\n{name} is not counted: {NEEDS_WEIGHTS[name]}.")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"table1_cost: {error}")
