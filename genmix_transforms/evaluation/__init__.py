"""The paper's experiment: classifiers trained with and without synthetic images, their scores and figures.

Names load on first use, and torchmetrics only when something is scored.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genmix_transforms.evaluation.arms import ARMS
    from genmix_transforms.evaluation.comparison import evaluate
    from genmix_transforms.evaluation.figures import mixing_figure
    from genmix_transforms.evaluation.memorisation import Nearness, measure_nearness
    from genmix_transforms.evaluation.protocol import Protocol
    from genmix_transforms.evaluation.results import Results

_HOME = {
    "ARMS": "genmix_transforms.evaluation.arms",
    "Nearness": "genmix_transforms.evaluation.memorisation",
    "Protocol": "genmix_transforms.evaluation.protocol",
    "Results": "genmix_transforms.evaluation.results",
    "evaluate": "genmix_transforms.evaluation.comparison",
    "measure_nearness": "genmix_transforms.evaluation.memorisation",
    "mixing_figure": "genmix_transforms.evaluation.figures",
}

__all__ = ["ARMS", "Nearness", "Protocol", "Results", "evaluate", "measure_nearness", "mixing_figure"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
