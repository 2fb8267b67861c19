"""Results made from chosen predictions, for the tests of what is computed from them and of how it is shown."""

import torch

from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.results import Results
from genmix_transforms.evaluation.runs import Run

CLASSES = ("cyst", "metastasis")
LABELS = ((0, 0, 0, 0), (1, 1))
PREDICTIONS = {
    ("baseline", 0): ([0, 0, 0, 1], [1, 1]),
    ("baseline", 1): ([0, 0, 1, 1], [1, 0]),
    ("genmix", 0): ([0, 0, 0, 0], [1, 1]),
    ("genmix", 1): ([0, 0, 0, 0], [1, 0]),
}


def make_runs(arm, seed, parts, *, classes=2, labels=LABELS, knobs=(None, None), sure=None):
    for fold, (predictions, true) in enumerate(zip(parts, labels, strict=True)):
        probabilities = None
        if sure is not None:
            probabilities = torch.full((len(predictions), classes), (1 - sure) / (classes - 1), dtype=torch.float64)
            probabilities[range(len(predictions)), predictions] = sure
        yield Run(
            arm=arm,
            fold=fold,
            seed=seed,
            steps=100,
            best_step=50 + seed,
            validation_macro_f1=0.5,
            scores=score(
                torch.tensor(predictions), torch.tensor(true), num_classes=classes, probabilities=probabilities
            ),
            predictions=tuple(predictions),
            probabilities=() if probabilities is None else tuple(map(tuple, probabilities.tolist())),
            knob=knobs[fold],
            seconds=1.25,
        )


def make_results(pairs=tuple(PREDICTIONS), *, classes=CLASSES, runs=None, **options):
    if runs is None:
        runs = [run for pair in pairs for run in make_runs(*pair, PREDICTIONS[pair], classes=len(classes))]
    return Results(classes=classes, runs=tuple(runs), **{"labels": LABELS, **options})


def make_many(arms, *, seeds=3, cases=60, **options):
    """Arms by name with the share of their errors."""
    generator = torch.Generator().manual_seed(0)
    labels = (tuple(number % 2 for number in range(cases)),)
    runs = []
    for arm, share in arms.items():
        for seed in range(seeds):
            wrong = torch.rand(cases, generator=generator) < share
            parts = [[label ^ int(miss) for label, miss in zip(labels[0], wrong, strict=True)]]
            runs += make_runs(arm, seed, parts, labels=labels, sure=0.75)
    return make_results(runs=runs, labels=labels, **options)
