"""The figures of a comparison, one file each; matplotlib (the extra ``figures``) loads when the first is drawn."""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.evaluation.figures.confusion import confusion_figure as confusion_figure
    from genmix_transforms.evaluation.figures.evolution import evolution_figure as evolution_figure
    from genmix_transforms.evaluation.figures.examples import examples_figure as examples_figure
    from genmix_transforms.evaluation.figures.forest import forest_figure as forest_figure
    from genmix_transforms.evaluation.figures.mixing import mixing_figure as mixing_figure
    from genmix_transforms.evaluation.figures.points import FeaturePoints as FeaturePoints
    from genmix_transforms.evaluation.figures.points import feature_points as feature_points
    from genmix_transforms.evaluation.figures.points import features as features
    from genmix_transforms.evaluation.figures.saving import save_figures as save_figures
    from genmix_transforms.evaluation.figures.scores import scores_figure as scores_figure
    from genmix_transforms.evaluation.figures.style import save_figure as save_figure
    from genmix_transforms.evaluation.figures.tsne import tsne_figure as tsne_figure

_DRAWN = ("confusion", "evolution", "examples", "forest", "mixing", "scores", "tsne")
_HOME = {
    **{f"{name}_figure": name for name in _DRAWN},
    "FeaturePoints": "points",
    "feature_points": "points",
    "features": "points",
    "save_figure": "style",
    "save_figures": "saving",
}

__all__ = sorted(_HOME)  # noqa: PLE0605

__getattr__, __dir__ = load_lazily(__name__, {name: f"{__name__}.{home}" for name, home in _HOME.items()})
