"""What few_labels.py's classifiers lose because classes are equally frequent in the test, and not in the training.

    python benchmarks/few_labels_priors.py results/few_labels_phantom results/few_labels_liver

Reads the finished runs with the paper's counts; trains nothing. Each classifier's probabilities are divided by the
shares of the classes in the training part, which is Bayes' rule for a test in which all classes are equally frequent
(Saerens et al., Neural Computation 14(1), 2002, Eq. 2.4). Intervals are over draws alone (Student's t, 95 %).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from few_labels import PRETRAINED, SCRATCH
from few_labels_data import PAPER
from scipy.stats import t

from genmix_transforms.data import open_dataset
from genmix_transforms.evaluation import Results
from genmix_transforms.evaluation.metrics import score

Scores = tuple[float, float, float]
"""Macro F1, the same after the correction, and the AUC."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("results", type=Path, nargs="+", help="folders that few_labels.py has written")
    for folder in options.parse_args().results:
        print(f"\n{folder.name}, the paper's counts\n\n{table(dict(scores(folder)))}")


def scores(folder: Path) -> Iterator[tuple[str, list[Scores]]]:
    """Of each arm, for each draw."""
    test = open_dataset(folder / "data" / "test.npz")
    found = defaultdict(list)
    for draw in sorted((folder / f"labels-{PAPER}").glob("draw-*")):
        for family in (SCRATCH, PRETRAINED):
            results = Results.load(draw / family)
            assert results.data is not None
            counts = np.array(list(results.data["counts"]["train"].values()), dtype=float)
            for run in results.runs:
                given = np.array(run.probabilities)
                corrected = for_equal_classes(given, counts)
                name = run.arm if family == SCRATCH else f"{family} {run.arm}"
                again = score(torch.from_numpy(corrected.argmax(1)), test.labels, num_classes=len(counts))
                found[name].append((run.scores.macro_f1, again.macro_f1, float(run.scores.auc)))
    yield from found.items()


def for_equal_classes(probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The probabilities ``(n, classes)``, learned where classes have these counts, for a place with equal classes."""
    weights = probabilities / counts
    return weights / weights.sum(1, keepdims=True)


def table(found: dict[str, list[Scores]], *, reference: str = "baseline") -> str:
    """A Markdown table: scores, and what is gained over the reference on the same draws."""
    rows = [
        "| arm | macro F1 | less the baseline | corrected | less the baseline, corrected | AUC |",
        "| --- |" + " ---: |" * 5,
    ]
    beside = np.array(found[reference])
    for arm, each in found.items():
        values = 100 * np.array(each)
        means = values.mean(0)
        gains = ["" if arm == reference else interval(values[:, k] - 100 * beside[:, k]) for k in (0, 1)]
        cells = (arm, f"{means[0]:.1f}", gains[0], f"{means[1]:.1f}", gains[1], f"{means[2]:.1f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def interval(differences: np.ndarray) -> str:
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = differences.mean()
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


if __name__ == "__main__":
    main()
