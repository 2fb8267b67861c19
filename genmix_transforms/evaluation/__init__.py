"""The paper's experiment: classifiers trained with and without synthetic images, their scores and figures.

Names load on first use, and torchmetrics only when something is scored.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genmix_transforms.evaluation.arms import ARMS
    from genmix_transforms.evaluation.bank_making import Recipe, make_banks
    from genmix_transforms.evaluation.checks import Fold
    from genmix_transforms.evaluation.comparison import evaluate, evaluate_folds
    from genmix_transforms.evaluation.figures import (
        confusion_figure,
        evolution_figure,
        examples_figure,
        feature_points,
        forest_figure,
        mixing_figure,
        save_figures,
        scores_figure,
        tsne_figure,
    )
    from genmix_transforms.evaluation.memorisation import Nearness, measure_nearness
    from genmix_transforms.evaluation.protocol import Protocol, preset
    from genmix_transforms.evaluation.results import Results

_HOME = {
    "ARMS": "genmix_transforms.evaluation.arms",
    "Nearness": "genmix_transforms.evaluation.memorisation",
    "Fold": "genmix_transforms.evaluation.checks",
    "Protocol": "genmix_transforms.evaluation.protocol",
    "Recipe": "genmix_transforms.evaluation.bank_making",
    "Results": "genmix_transforms.evaluation.results",
    "evaluate": "genmix_transforms.evaluation.comparison",
    "measure_nearness": "genmix_transforms.evaluation.memorisation",
    "evaluate_folds": "genmix_transforms.evaluation.comparison",
    "make_banks": "genmix_transforms.evaluation.bank_making",
    "confusion_figure": "genmix_transforms.evaluation.figures",
    "evolution_figure": "genmix_transforms.evaluation.figures",
    "examples_figure": "genmix_transforms.evaluation.figures",
    "feature_points": "genmix_transforms.evaluation.figures",
    "forest_figure": "genmix_transforms.evaluation.figures",
    "mixing_figure": "genmix_transforms.evaluation.figures",
    "save_figures": "genmix_transforms.evaluation.figures",
    "scores_figure": "genmix_transforms.evaluation.figures",
    "tsne_figure": "genmix_transforms.evaluation.figures",
    "preset": "genmix_transforms.evaluation.protocol",
}

__all__ = [
    "ARMS",
    "Fold",
    "Nearness",
    "Protocol",
    "Recipe",
    "Results",
    "confusion_figure",
    "evaluate",
    "evaluate_folds",
    "evolution_figure",
    "examples_figure",
    "feature_points",
    "forest_figure",
    "make_banks",
    "measure_nearness",
    "mixing_figure",
    "preset",
    "save_figures",
    "scores_figure",
    "tsne_figure",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
