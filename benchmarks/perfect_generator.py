"""What would a perfect generator give? GenMix with a bank of real images that the classifier has not seen.

    python benchmarks/perfect_generator.py --data busi_128.npz --folds 3 --out results/perfect_busi

The best that a generator can do is to draw new images from where the training images came from. Here the data do it:
each fold's training part is parted into two halves, groups whole. The classifier is trained on the first half, and the
second is the bank ``unseen``. On these data no generator can be expected to do better than that bank, so that what
GenMix gains with it bounds what it gains with any bank of as many images.

Arms: ``genmix:unseen`` beside ``genmix-real``, which mixes the first half with itself: what the mixing does alone; and
``blend:unseen`` beside ``repeat``. In ``blend:unseen`` either half makes up half of what is seen: it is the baseline on
twice the data. Nothing is tuned. It goes on where it stopped.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ablations import differences_from
from table1 import add_work_options, in_several_processes, protocol_of
from table1_data import LARGEST, add_data_options, given_folds, given_patches

from genmix_transforms import SyntheticBank
from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Fold, evaluate_folds
from genmix_transforms.evaluation.figures import forest_figure, save_figure
from genmix_transforms.evaluation.leakage import Splits

BANK = "unseen"
ARMS = ("baseline", "repeat", "genmix-real", f"blend:{BANK}", f"genmix:{BANK}", f"genmix-union:{BANK}")
CONTROLS = ("genmix-real", "repeat")
"""What each way of using the bank does with the classifier's own images in its place."""


def halves(train: PatchDataset, *, seed: int) -> tuple[PatchDataset, PatchDataset]:
    """Two parts with the same share of each class, no group in both."""
    (_, _, first), (_, _, second) = train.folds(2, seed=seed)
    return replace(first, name=f"{train.name}, first half"), replace(second, name=f"{train.name}, second half")


def half_of_it_unseen(splits: Splits, *, seed: int) -> Fold:
    """The fold with the first half of its training part to train on, and the second for a bank."""
    train, validation, test = splits
    first, second = halves(train, seed=seed)
    bank = SyntheticBank(second.images, second.labels, classes=second.classes)
    return Fold(splits=(first, validation, test), banks={BANK: bank})


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(options, presets=LARGEST)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--steps", type=int, help="of every classifier; left out, the preset's")
    add_work_options(options, figures="the differences")
    return options


def main() -> None:
    given = parser().parse_args()
    if given.processes > 1:
        sys.exit(in_several_processes(given.processes))
    folds = [half_of_it_unseen(splits, seed=given.split_seed) for splits in given_folds(given, given_patches(given))]
    for number, fold in enumerate(folds):
        print(f"fold {number}: {fold.splits[0]}; bank {BANK}: {fold.banks[BANK].extra_repr()}")
    steps = {} if given.steps is None else {"steps": given.steps}
    results = evaluate_folds(
        folds,
        arms=ARMS,
        seeds=given.seeds,
        protocol=replace(protocol_of(given.preset), tune=0, **steps),
        out=given.out,
        device=given.device,
        progress=not given.no_progress,
    )
    print(results.table())
    found = {control: results.against(control) for control in CONTROLS}
    for control, differences in found.items():
        print(f"\n{differences_from(control, differences)}")
    if given.figures:
        save_figure(forest_figure(found), given.out / "figures" / "forest.png")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"perfect_generator: {error}")
