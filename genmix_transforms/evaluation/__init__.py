"""The paper's experiment: classifiers trained with and without synthetic images, their scores and figures.

Names load on first use.
"""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.evaluation.arms import ARMS as ARMS
    from genmix_transforms.evaluation.bank_making import Recipe as Recipe
    from genmix_transforms.evaluation.bank_making import make_banks as make_banks
    from genmix_transforms.evaluation.checks import Fold as Fold
    from genmix_transforms.evaluation.comparison import evaluate as evaluate
    from genmix_transforms.evaluation.comparison import evaluate_folds as evaluate_folds
    from genmix_transforms.evaluation.figures import confusion_figure as confusion_figure
    from genmix_transforms.evaluation.figures import evolution_figure as evolution_figure
    from genmix_transforms.evaluation.figures import examples_figure as examples_figure
    from genmix_transforms.evaluation.figures import feature_points as feature_points
    from genmix_transforms.evaluation.figures import forest_figure as forest_figure
    from genmix_transforms.evaluation.figures import mixing_figure as mixing_figure
    from genmix_transforms.evaluation.figures import save_figures as save_figures
    from genmix_transforms.evaluation.figures import scores_figure as scores_figure
    from genmix_transforms.evaluation.figures import tsne_figure as tsne_figure
    from genmix_transforms.evaluation.labelling import label_bank as label_bank
    from genmix_transforms.evaluation.protocol import Protocol as Protocol
    from genmix_transforms.evaluation.protocol import preset as preset
    from genmix_transforms.evaluation.recipe import choose_recipe as choose_recipe
    from genmix_transforms.evaluation.recipe_choice import ChosenRecipe as ChosenRecipe
    from genmix_transforms.evaluation.results import Results as Results
    from genmix_transforms.evaluation.self_supervised import pretrain_classifier as pretrain_classifier

_DRAWN = ("confusion", "evolution", "examples", "forest", "mixing", "scores", "tsne")
_HOME = {
    "ARMS": "arms",
    "ChosenRecipe": "recipe_choice",
    "Fold": "checks",
    "Protocol": "protocol",
    "Recipe": "bank_making",
    "Results": "results",
    "choose_recipe": "recipe",
    "evaluate": "comparison",
    "evaluate_folds": "comparison",
    "feature_points": "figures",
    "label_bank": "labelling",
    "make_banks": "bank_making",
    "preset": "protocol",
    "pretrain_classifier": "self_supervised",
    "save_figures": "figures",
    **{f"{drawn}_figure": "figures" for drawn in _DRAWN},
}

__all__ = sorted(_HOME)  # noqa: PLE0605

__getattr__, __dir__ = load_lazily(__name__, {name: f"{__name__}.{home}" for name, home in _HOME.items()})
