"""The search for copies: an exhaustive stage that keeps candidates, and an exact one that measures them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.evaluation.audit.alignment import Aligned, align
from genmix_transforms.evaluation.audit.correlation import (
    UPRIGHT,
    Candidates,
    References,
    find_candidates,
)
from genmix_transforms.evaluation.audit.detail import blurred, detail
from genmix_transforms.evaluation.audit.transformations import FAMILIES, PARTS, WARPS, WHOLE, Transformation

COARSE_SIDE = 16
FINE_SIDE = 48
_SMOOTH = 0.7
"""Pixels of the blur of what is aligned: noise falls away, and half a pixel of shift costs little."""

_KEPT = (4, 3, 3)
"""Candidates of each family whose shift is found exactly."""

_ALIGNED = 2
"""The best of those: their turn and zoom are found as well."""

PART = 512
"""Queries whose correlations with all references are in memory at a time."""


@dataclass(frozen=True)
class Prepared:
    """Images as the two stages see them.

    Args:
        coarse: detail, float32 ``(N, C, 16, 16)``.
        fine: detail, float32 ``(N, C, 48, 48)``; both no larger than the images.
    """

    coarse: Tensor
    fine: Tensor

    @classmethod
    def of(cls, images: Tensor, *, device: str | torch.device = "cpu") -> "Prepared":
        """Prepare images, uint8 or uint16 ``(N, C, H, W)``."""
        least = min(images.shape[-2:])
        fine = detail(images, side=min(FINE_SIDE, least), device=device)
        return cls(detail(images, side=min(COARSE_SIDE, least), device=device), blurred(fine, sigma=_SMOOTH))

    def take(self, index: Tensor) -> "Prepared":
        """Some of the images."""
        return Prepared(self.coarse[index], self.fine[index])


@dataclass(frozen=True)
class Found:
    """The most alike reference of each query, of one family of parts.

    Args:
        similarity: float32 ``(N,)``: absolute correlation; -1 where there was no reference to compare with.
        reference: int64 ``(N,)``; -1 likewise.
        candidates: the winning pairs ``(N,)`` as the coarse stage found them.
        aligned: how they lie.
    """

    similarity: Tensor
    reference: Tensor
    candidates: Candidates
    aligned: Aligned

    def transformation(self, query: int) -> Transformation:
        """What lays a query over its reference."""
        turned = int(self.candidates.turned[query])
        down, right = self.aligned.shift[query].tolist()
        return Transformation(
            mirrored=turned >= 4,
            quarters=turned % 4,
            angle=round(float(self.aligned.angle[query]), 2),
            zoom=round(float(self.aligned.zoom[query]), 3),
            shift=(round(down, 4), round(right, 4)),
            inverted=bool(self.aligned.correlation[query] < 0),
            part=list(PARTS)[int(self.candidates.part[query])],
        )


def most_alike(
    queries: Prepared,
    references: Prepared,
    cut: References,
    *,
    family: int,
    barred: Tensor | None = None,
    warps: Sequence[tuple[float, float]] = WARPS,
) -> Found:
    """The most alike reference of each query under every transformation of one family of parts.

    Args:
        queries: ``N`` images.
        references: ``M`` images.
        cut: the same references' coarse detail.
        family: whole, halves or quarters: index into
            :data:`~genmix_transforms.evaluation.audit.transformations.FAMILIES`.
        barred: bool ``(N, M)``: pairs that do not count.
        warps: turns and zooms of the exhaustive stage. Parts are compared upright.
    """
    parts = FAMILIES[family]
    whole = list(PARTS)[parts[0]] == WHOLE
    tried = warps if whole else UPRIGHT
    candidates = find_candidates(queries.coarse, cut, parts=parts, keep=_KEPT[family], barred=barred, warps=tried)
    aligned = align(queries.fine, references.fine, candidates, warped=False)
    count = len(queries.coarse)
    if whole and len(tried) > 1:
        best = _best_of_each(aligned.correlation, candidates.query, count, keep=_ALIGNED)
        candidates = candidates.take(best[best >= 0])
        aligned = align(queries.fine, references.fine, candidates, warped=True)
    best = _best_of_each(aligned.correlation, candidates.query, count, keep=1)[:, 0]
    none, taken = best < 0, best.clamp_min(0)
    chosen = candidates.take(taken)
    placed = Aligned(*(getattr(aligned, name)[taken] for name in ("correlation", "angle", "zoom", "shift")))
    return Found(
        placed.correlation.abs().masked_fill(none, -1.0), chosen.reference.masked_fill(none, -1), chosen, placed
    )


def _best_of_each(correlation: Tensor, query: Tensor, count: int, *, keep: int) -> Tensor:
    """For each query the numbers of its best pairs, int64 ``(count, keep)``; -1 where it has no more."""
    order = correlation.abs().argsort(descending=True, stable=True)
    order = order[query[order].argsort(stable=True)]
    found = torch.bincount(query, minlength=count)
    rank = torch.arange(len(order), device=order.device) - (found.cumsum(0) - found)[query[order]]
    best = torch.full((count, keep), -1, dtype=torch.int64, device=order.device)
    wanted = rank < keep
    best[query[order][wanted], rank[wanted]] = order[wanted]
    return best
