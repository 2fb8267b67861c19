"""Why GenMix helps or does not: on the folds and banks of table1.py, one thing changed at a time.

    python benchmarks/table1.py --data busi_128.npz --folds 3 --generators dcgan --out results/table1_busi
    python benchmarks/ablations.py --data busi_128.npz --folds 3 --table results/table1_busi --bank dcgan

Every row is an arm of one comparison, with the same steps, seeds and folds, and nothing is tuned: alpha 0.3, any class
for a partner, every sample mixed, unless its name says otherwise. What is changed:

* alpha, pairing, the share of real partners, the share of samples that are mixed;
* the schedule: only the first or only the second half of the steps mixes;
* the size of the bank: an eighth of it, and four times as many images of the same generator;
* the generator: one trained an eighth as long, one that was never trained (patches of noise), and the real training
  images for a bank (the arm genmix-real): the range that any generator lies in;
* nothing but the bank's images: "only" trains on them alone, which tells whether they show what their labels say;
* "plain": nothing of GenMix. MixUp, repeated images and the bank blended in, as the table has them, for ``--steps``.

It goes on where it stopped. ``--only`` takes some of these groups, ``--only ''`` none (the baseline, GenMix as it is,
and genmix-real), ``--steps`` another length of training.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from table1 import add_work_options, choose_recipes, in_several_processes, protocol_of
from table1_data import LARGEST, add_data_options, given_folds, given_patches
from table1_generators import add_precision_option
from torch import Tensor

from genmix_transforms import SyntheticBank
from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Fold, Recipe, evaluate_folds, make_banks
from genmix_transforms.evaluation.arms import KINDS, Arm, ArmKind, Batch, Setting
from genmix_transforms.evaluation.bank_making import resized_bank
from genmix_transforms.evaluation.figures import forest_figure, save_figure
from genmix_transforms.evaluation.sharing import take_turns
from genmix_transforms.evaluation.statistics import Difference
from genmix_transforms.evaluation.tables import aligned, difference_rows
from genmix_transforms.generators import fill_bank, load_generator
from genmix_transforms.generators.processes import own_device

PART = 8
"""An eighth of the bank, of the generator's training."""
MANY = 4
"""So many times the bank."""

GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "alpha": {f"genmix-alpha-{alpha:g}": {"alpha": alpha} for alpha in (0.1, 1.0)},
    "pairing": {f"genmix-{pairing}": {"pairing": pairing} for pairing in ("same", "other", "balanced", "inverse")},
    "pool": {f"genmix-pool-{share:g}": {"real_partner": share} for share in (0.5, 1.0)},
    "p": {"genmix-p-0.5": {"p": 0.5}},
    "schedule": {"genmix-first-half": {"mixing": "first"}, "genmix-second-half": {"mixing": "second"}},
}
"""The arms of each group, and what they change; "only", "size" and "generator" have banks of their own."""
BANKS = ("size", "generator")
ONLY = "only"
PLAIN = "plain"


def variant(*, mixing: str | None = None, **changes: Any) -> ArmKind:
    """The arm "genmix" with other options; ``mixing`` "first" or "second": in that half of the steps alone."""

    def build(setting: Setting, bank: SyntheticBank | None) -> Arm:
        changed = replace(setting, protocol=replace(setting.protocol, **changes))
        mixed = KINDS["genmix"].build(changed, bank)
        return mixed if mixing is None else half(mixed, KINDS["baseline"].build(setting, None), setting, mixing)

    return replace(KINDS["genmix"], build=build)


def half(mixed: Arm, plain: Arm, setting: Setting, which: str) -> Arm:
    """An arm that is called once a step: ``mixed`` in one half of them, ``plain`` in the other."""
    if setting.protocol.epochs is not None:
        raise InputError("half of the steps: the protocol must count steps, not epochs (--preset small)")
    middle, step = setting.protocol.steps // 2, 0

    def arm(images: Tensor, labels: Tensor) -> Batch:
        nonlocal step
        step += 1
        return (mixed if (step <= middle) == (which == "first") else plain)(images, labels)

    return arm


def only() -> ArmKind:
    """The arm "blend" with nothing but synthetic images."""

    def build(setting: Setting, bank: SyntheticBank | None) -> Arm:
        return KINDS["blend"].build(replace(setting, protocol=replace(setting.protocol, blend_share=1.0)), bank)

    return replace(KINDS["blend"], build=build)


def part_of(bank: SyntheticBank) -> SyntheticBank:
    """Of each class the first eighth of its images, one at least."""
    places = [(bank.labels == label).nonzero().flatten() for label in bank.labels.unique().tolist()]
    return bank.take(torch.cat([of_class[: -(-len(of_class) // PART)] for of_class in places]))


def other_sizes(
    name: str, number: int, bank: SyntheticBank, train: PatchDataset, *, table: Path, out: Path, device: torch.device
) -> dict[str, SyntheticBank]:
    """A smaller bank of the same images, and a larger one of the same generator."""
    folder = out / f"fold-{number}"
    many = {label: MANY * count for label, count in train.class_counts.items()}
    for _ in take_turns([number], lock=lambda _: folder / "larger.lock"):
        generator = load_generator(table / f"fold-{number}" / "runs" / name, device=device)
        larger = fill_bank(generator, counts=many, out=folder / "banks" / f"{name}-fourfold", progress=False)
    side = train.images.shape[-1]
    return {f"{name}-eighth": part_of(bank), f"{name}-fourfold": resized_bank(larger, side)}


def noise(recipe: Recipe, train: PatchDataset, *, out: Path, device: torch.device) -> SyntheticBank:
    """The bank of a generator that was never trained."""
    at_size = train if recipe.size is None else train.resized(recipe.size)
    for _ in take_turns([0], lock=lambda _: out.with_suffix(".lock")):
        generator = recipe.untrained(at_size).to(device)
        bank = fill_bank(generator, counts=train.class_counts, out=out, progress=False)
    return resized_bank(bank, train.images.shape[-1])


def shorter(recipe: Recipe) -> Recipe:
    """The same generator, trained an eighth as long."""
    return replace(recipe, training={**recipe.training, "steps": max(1, recipe.training["steps"] // PART)})


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(options, presets=LARGEST)
    options.add_argument("--table", type=Path, required=True, help="--out of table1.py, with its generators")
    options.add_argument("--bank", required=True, help="the generator's name there, such as dcgan")
    add_precision_option(options)
    options.add_argument("--only", help=f"of {', '.join([*GROUPS, *BANKS, ONLY, PLAIN])}; left out, all")
    options.add_argument("--steps", type=int, help="of every classifier; left out, the preset's")
    options.add_argument("--classifier-precision", choices=("float32", "bf16"), help="left out, the preset's")
    options.add_argument("--out", type=Path, help="left out, ablations-BANK in the folder of the table")
    add_work_options(options, figures="the differences")
    return options


def chosen_groups(text: str | None) -> tuple[str, ...]:
    """Names of groups, all for None."""
    known = (*GROUPS, *BANKS, ONLY, PLAIN)
    names = known if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"no ablation {unknown[0]!r}; there are {', '.join(known)}")
    return names


def register(groups: tuple[str, ...]) -> list[str]:
    """The arms of the groups, made known to the package; their names."""
    arms: Mapping[str, Callable[[], ArmKind]] = {
        name: lambda changes=changes: variant(**changes)  # type: ignore[misc]
        for group in groups
        for name, changes in GROUPS.get(group, {}).items()
    }
    KINDS.update({name: make() for name, make in arms.items()})
    if ONLY in groups:
        KINDS[ONLY] = only()
    return list(arms)


def differences_from(reference: str, differences: Sequence[Difference]) -> str:
    """A line for each arm."""
    return "\n".join([f"Difference in F1 from {reference}, points:", *aligned(difference_rows(differences))])


def main() -> None:
    given = parser().parse_args()
    groups = chosen_groups(given.only)
    if given.processes > 1:
        sys.exit(in_several_processes(given.processes))
    out = given.out or given.table / f"ablations-{given.bank}"
    patches = given_patches(given)
    folds = given_folds(given, patches)
    trains = [train for train, _, _ in folds]
    recipes, missing = choose_recipes(
        [given.bank],
        preset=given.preset,
        side=patches.images.shape[-1],
        weights={},
        precision=given.mixed_precision,
    )
    if missing:
        raise InputError(f"{given.bank}: {missing[given.bank]}")
    where = own_device(given.device)
    shown: dict[str, Any] = {"device": given.device, "progress": not given.no_progress}
    banks = make_banks(trains, recipes, out=given.table, **shown)
    recipe = recipes[given.bank]
    if "generator" in groups:
        early = f"{given.bank}-early"
        for made, more in zip(banks, make_banks(trains, {early: shorter(recipe)}, out=out, **shown), strict=True):
            made.update(more)
        for number, made in enumerate(banks):
            folder = out / f"fold-{number}" / "banks" / "untrained"
            made[f"{given.bank}-untrained"] = noise(recipe, trains[number], out=folder, device=where)
    if "size" in groups:
        for number, made in enumerate(banks):
            train = trains[number]
            made.update(
                other_sizes(given.bank, number, made[given.bank], train, table=given.table, out=out, device=where)
            )
    arms = ["baseline", "genmix-real", f"genmix:{given.bank}"]
    if PLAIN in groups:
        arms += ["mixup", "repeat", f"blend:{given.bank}"]
    arms += [f"{name}:{given.bank}" for name in register(groups)]
    arms += [f"genmix:{name}" for name in banks[0] if name != given.bank]
    if ONLY in groups:
        arms += [f"{ONLY}:{name}" for name in banks[0] if not name.endswith(("-eighth", "-fourfold"))]
    protocol = protocol_of(given.preset)
    changes = {"steps": given.steps, "precision": given.classifier_precision}
    results = evaluate_folds(
        [Fold(splits=splits, banks=found) for splits, found in zip(folds, banks, strict=True)],
        arms=arms,
        seeds=given.seeds,
        protocol=replace(protocol, tune=0, **{name: value for name, value in changes.items() if value is not None}),
        out=out,
        **shown,
    )
    print(results.table())
    reference = f"genmix:{given.bank}"
    found = results.against(reference)
    print(f"\n{differences_from(reference, found)}")
    if given.figures:
        save_figure(forest_figure({reference: found}), out / "figures" / "forest.png")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"ablations: {error}")
