"""The figures of a comparison, one file each; matplotlib (the extra ``figures``) loads when the first is drawn."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genmix_transforms.evaluation.figures.confusion import confusion_figure
    from genmix_transforms.evaluation.figures.evolution import evolution_figure
    from genmix_transforms.evaluation.figures.examples import examples_figure
    from genmix_transforms.evaluation.figures.forest import forest_figure
    from genmix_transforms.evaluation.figures.mixing import mixing_figure
    from genmix_transforms.evaluation.figures.points import FeaturePoints, feature_points, features
    from genmix_transforms.evaluation.figures.saving import save_figures
    from genmix_transforms.evaluation.figures.scores import scores_figure
    from genmix_transforms.evaluation.figures.style import save_figure
    from genmix_transforms.evaluation.figures.tsne import tsne_figure

_HOME = {
    "FeaturePoints": "points",
    "confusion_figure": "confusion",
    "evolution_figure": "evolution",
    "examples_figure": "examples",
    "feature_points": "points",
    "features": "points",
    "forest_figure": "forest",
    "mixing_figure": "mixing",
    "save_figure": "style",
    "save_figures": "saving",
    "scores_figure": "scores",
    "tsne_figure": "tsne",
}

__all__ = [
    "FeaturePoints",
    "confusion_figure",
    "evolution_figure",
    "examples_figure",
    "feature_points",
    "features",
    "forest_figure",
    "mixing_figure",
    "save_figure",
    "save_figures",
    "scores_figure",
    "tsne_figure",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"genmix_transforms.evaluation.figures.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
