"""How good the banks of a table are: their distance to real images, and the copies in them.

    pip install '.[bench]'
    python benchmarks/bank_quality.py --data busi_128.npz --folds 3 --table results/table1_busi

A row for each generator, over all folds of table1.py's ``--out``. KID (Binkowski et al., arXiv 1801.01401, on the 1280
features of EfficientNet-Lite0, as adm_quality.py has it) is measured to the test part of the bank's own fold, which its
generator has not seen; the training part's own distance to it is what a perfect generator would have. Near copies and
duplicates are those of ``genmix bank check``.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import torch
from adm_quality import Lite0Features, features_of, kid, thousandths
from table1_data import LARGEST, add_data_options, given_folds, given_patches
from torch import Tensor

from genmix_transforms import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit import find_copies
from genmix_transforms.evaluation.bank_making import resized_bank
from genmix_transforms.evaluation.leakage import Splits

CPU = torch.device("cpu")


def banks_of(table: Path, folds: int) -> dict[str, list[SyntheticBank]]:
    """The banks that every fold of a table has, by name, fold by fold."""
    folders = [table / f"fold-{number}" / "banks" for number in range(folds)]
    found = [{path.name for path in folder.glob("*") if path.is_dir()} for folder in folders]
    names = sorted(set.intersection(*found))
    if not names:
        raise InputError(f"{table} has no bank for each of {folds} folds: run table1.py with --only-generators first")
    return {name: [SyntheticBank.load(folder / name) for folder in folders] for name in names}


def share(marks: Sequence[Tensor]) -> str:
    """Per cent of all images that are marked."""
    together = torch.cat(list(marks))
    return f"{100 * together.float().mean().item():.1f}"


def rows(
    folds: Sequence[Splits],
    banks: dict[str, list[SyntheticBank]],
    *,
    features: Callable[[Tensor], Tensor],
    subsets: int,
    subset_size: int,
) -> list[list[str]]:
    """Name, images, KID, near copies, duplicates; of the real images first."""

    def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> str:
        pairs = [kid(b, a, subsets=subsets, subset_size=subset_size) for a, b in zip(ours, theirs, strict=True)]
        return thousandths((mean(first for first, _ in pairs), mean(second for _, second in pairs)))

    tests = [features(test.images) for _, _, test in folds]
    trains = [features(train.images) for train, _, _ in folds]
    count = sum(len(train) for train, _, _ in folds)
    found = [["real training patches", str(count), distance(trains, tests), "", ""]]
    for name, made in banks.items():
        shown = [resized_bank(bank, folds[0][0].images.shape[-1]) for bank in made]
        near = [
            find_copies(bank, train, any_training_set=True) for bank, (train, _, _) in zip(shown, folds, strict=True)
        ]
        found.append([
            name,
            str(sum(len(bank) for bank in shown)),
            distance([features(bank.images) for bank in shown], tests),
            share([one.near_copy for one in near]),
            share([one.duplicate for one in near]),
        ])  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(parser, presets=LARGEST)
    parser.add_argument("--table", type=Path, required=True, help="--out of table1.py")
    parser.add_argument("--feature-size", type=int, default=224, help="side that EfficientNet-Lite0 sees images at")
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--subset-size", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folds = given_folds(given, given_patches(given))
    banks = banks_of(given.table, given.folds)
    network = Lite0Features(side=given.feature_size)
    print("| bank | images | KID x 1000 to test patches | near copies, % | duplicates, % |\n" + "| --- " * 5 + "|")
    for row in rows(
        folds,
        banks,
        features=lambda images: features_of(network, images, device=CPU),
        subsets=given.subsets,
        subset_size=given.subset_size,
    ):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"bank_quality: {error}")
