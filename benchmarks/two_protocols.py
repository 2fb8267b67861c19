"""The same arms under two protocols: how much each score changes, paired by seed and test case.

    python benchmarks/ablations.py --data busi_128.npz --preset scratch --folds 3 --table results/table1_busi \\
        --bank dcgan --only plain --out results/float32
    python benchmarks/ablations.py ... --classifier-precision bf16 --out results/bf16
    python benchmarks/two_protocols.py results/float32 results/bf16

Two folders of results on the same data, folds and test cases, such as those of another arithmetic, or of a longer
training. For each arm that both have: the second's macro F1 less the first's.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Results
from genmix_transforms.evaluation.statistics import Difference, differences
from genmix_transforms.evaluation.tables import difference_rows, markdown_table


def changed(first: Results, second: Results) -> dict[str, tuple[object, object]]:
    """The fields of the protocol that differ, with both values."""
    names = {**first.protocol, **second.protocol}
    both = {name: (first.protocol.get(name), second.protocol.get(name)) for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def apart(first: Results, second: Results, *, metric: str = "macro_f1") -> dict[str, Difference]:
    """By arm, its score in the second results less that in the first; p values are corrected for all arms.

    Raises:
        InputError: results of other test cases, or without an arm in common.
    """
    if (first.classes, first.labels, first.groups) != (second.classes, second.labels, second.groups):
        raise InputError("the two results are of different test cases: they need the same data, folds and split seed")
    arms = [arm for arm in first.arms if arm in second.arms]
    if not arms:
        raise InputError(f"no arm in common: {', '.join(first.arms)} and {', '.join(second.arms)}")
    resampled = {
        f"{which} {arm}": results.resampled[arm]
        for which, results in (("first", first), ("second", second))
        for arm in arms
    }
    found = differences(resampled, [(f"second {arm}", f"first {arm}") for arm in arms], metric=metric)
    return dict(zip(arms, found, strict=True))


def table(first: Results, second: Results, found: Mapping[str, Difference]) -> str:
    """Markdown, a line for each arm; points of macro F1."""
    heading, *rows = difference_rows(list(found.values()))
    means = [[f"{100 * results.summary()[arm]['macro_f1'].mean:.1f}" for results in (first, second)] for arm in found]
    return markdown_table(
        [
            ["arm", "first", "second", *heading[2:]],
            *([arm, *both, *row[2:]] for arm, both, row in zip(found, means, rows, strict=True)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="a folder with results.json")
    parser.add_argument("second", type=Path, help="another")
    given = parser.parse_args()
    first, second = Results.load(given.first), Results.load(given.second)
    found = apart(first, second)
    for name, values in changed(first, second).items():
        print(f"{name}: {values[0]}, then {values[1]}")
    print(f"\n{table(first, second, found)}")
    print(f"\nMean of {', '.join(sorted({str(one.seeds) for one in found.values()}))} seeds that both have.")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"two_protocols: {error}")
