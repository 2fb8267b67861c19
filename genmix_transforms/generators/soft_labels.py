"""Soft labels drawn for a bank's images, each from its image's class and seed alone."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.errors import InputError

STREAM = 2**40
"""Of an image's random numbers: beyond all that a network's noise takes. Each class has a stream of its own, since the
images of all classes have the same seeds."""

MOST = 1_000_000
"""Beyond it the other classes have no weight that a float32 row would show."""


def check_concentration(alpha: float, *, name: str) -> float:
    """The concentration as a float.

    Raises:
        InputError: no number from 1 to a million.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 1 <= alpha <= MOST:
        raise InputError(
            f"{name} must be a number from 1 to {MOST:,}, got {alpha!r}: 1 draws uniformly from all labels with most "
            "weight on the class, 2 is GeMix's, and the larger, the less weight the other classes get"
        )
    return float(alpha)


def draw_soft_labels(labels: Iterable[int], seeds: Iterable[int], *, classes: int, alpha: float) -> Tensor:
    """Draw a soft label for each image, in which its own class has the most weight.

    A Dirichlet distribution with the concentration ``alpha`` for the image's class and 1 for the others, given that the
    class comes out largest: what does not is drawn again.

    Args:
        labels: the image's class, a number below ``classes``.
        seeds: of each image, non-negative, below 2**63.
        classes: how many there are.
        alpha: at least 1.

    Returns:
        float32 ``(n, classes)``; each row sums to 1, but for rounding, and depends on its own label and seed alone.

    Source: Carlesso et al., "GeMix" (arXiv 2507.15577): "soft labels sampled from a Dirichlet distribution biased
    toward a specific class". The authors' code draws a class uniformly and takes concentrations of 2 for it and 1 for
    the others, without the condition: there the class counts of a bank are left to chance.

    Example:
        >>> rows = draw_soft_labels([0, 2], [7, 7], classes=3, alpha=2.0)
        >>> rows.argmax(dim=1).tolist(), rows.sum(dim=1).round(decimals=5).tolist()
        ([0, 2], [1.0, 1.0])
    """
    rows = [_draw(label, seed, classes=classes, alpha=alpha) for label, seed in zip(labels, seeds, strict=True)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, classes)


def _draw(label: int, seed: int, *, classes: int, alpha: float) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=[seed, STREAM + label]))
    concentration = np.ones(classes)
    concentration[label] = alpha
    while True:  # at least one of ``classes`` draws does, on average
        row = random.dirichlet(concentration).astype(np.float32)
        if int(row.argmax()) == label:
            return row
