"""The search for copies: an exhaustive stage that keeps candidates, and an exact one that measures them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.evaluation.audit.alignment import Aligned, align
from genmix_transforms.evaluation.audit.correlation import EVERY_TURN, UPRIGHT, Candidates, find_candidates
from genmix_transforms.evaluation.audit.detail import reliability, structure, texture
from genmix_transforms.evaluation.audit.transformations import (
    FAMILIES,
    IN_PLACE,
    PARTS,
    WARPS,
    WHOLE,
    Transformation,
)

COARSE_SIDE = 16
FINE_SIDE = 48
PART_SIDE = 40
_SMOOTH = 1.0

KEPT = 8
"""Patients whose most alike image is aligned with each query."""

_TURNED = 3
"""The best of those: of these turns and zooms between the coarse ones are tried."""

PART = 512
"""Queries whose correlations with all references are in memory at a time."""

_IDENTICAL = 0.9999
_ALMOST = 0.998
"""Correlations above which two images are the same, and to which noise corrects one at most."""
BEYOND = 20.0
"""Fisher's z of the same image; of a correlation of 1 it would be infinite."""


@dataclass(frozen=True)
class Prepared:
    """Images as the two stages see them.

    Args:
        coarse: structure, float32 ``(N, C, 16, 16)``.
        fine: structure, float32 ``(N, C, 48, 48)``.
        local: texture, float32 ``(N, C, 40, 40)``; all no larger than the images.
        reliable: float32 ``(N,)``: see :func:`~genmix_transforms.evaluation.audit.detail.reliability`.
    """

    coarse: Tensor
    fine: Tensor
    local: Tensor
    reliable: Tensor

    @classmethod
    def of(cls, images: Tensor, *, device: str | torch.device = "cpu") -> "Prepared":
        """Prepare images, uint8 or uint16 ``(N, C, H, W)``."""
        least = min(images.shape[-2:])
        fine = min(FINE_SIDE, least)
        return cls(
            structure(images, side=min(COARSE_SIDE, least), device=device),
            structure(images, side=fine, smooth=_SMOOTH, device=device),
            texture(images, side=min(PART_SIDE, least), device=device),
            reliability(images, side=fine, smooth=_SMOOTH, device=device),
        )

    @classmethod
    def together(cls, several: Sequence["Prepared"]) -> "Prepared":
        """One after the other."""
        return cls(*(torch.cat([getattr(one, name) for one in several]) for name in cls.__dataclass_fields__))

    def take(self, index: Tensor) -> "Prepared":
        """Some of the images."""
        return Prepared(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Found:
    """The most alike reference of each query, of one family of parts.

    Args:
        likeness: float64 ``(N,)``: Fisher's z of the absolute correlation; -1 where there was nothing to compare with.
        usual: float64 ``(N,)``: the same of references that are alike by chance: the mean of the later half of the
            groups that were aligned; 0 where there was but one group.
        reference: int64 ``(N,)``; -1 where there was none.
        candidates: the winning pairs ``(N,)`` as the coarse stage found them; None: not by pixels.
        aligned: how they lie; None likewise.
        distance: float32 ``(N,)``: of features; None: not by features.
    """

    likeness: Tensor
    usual: Tensor
    reference: Tensor
    candidates: Candidates | None = None
    aligned: Aligned | None = None
    distance: Tensor | None = None

    def transformation(self, query: int) -> Transformation:
        """What lays a query over its reference."""
        if self.candidates is None or self.aligned is None or self.reference[query] < 0:
            return Transformation()
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
    *,
    family: int,
    groups: Tensor | None = None,
    barred: Tensor | None = None,
    warps: Sequence[tuple[float, float]] = WARPS,
) -> Found:
    """The most alike reference of each query under every transformation of one family of parts.

    Args:
        queries: ``N`` images.
        references: ``M`` images, at least one.
        family: whole, halves or quarters: index into
            :data:`~genmix_transforms.evaluation.audit.transformations.FAMILIES`.
        groups: int64 ``(M,)``: patients of the references; None: each image is of its own.
        barred: bool ``(N, M)``: pairs that do not count.
        warps: turns and zooms of the exhaustive stage. Parts are compared upright.
    """
    parts = FAMILIES[family]
    whole = list(PARTS)[parts[0]] == WHOLE
    coarse, fine = ("coarse", "fine") if whole else ("local", "local")
    candidates = find_candidates(
        getattr(queries, coarse),
        getattr(references, coarse),
        parts=parts,
        keep=KEPT,
        groups=groups,
        barred=barred,
        turns=EVERY_TURN if whole else IN_PLACE,
        warps=warps if whole else UPRIGHT,
    )
    seen = getattr(queries, fine), getattr(references, fine)
    aligned = align(*seen, candidates, warped=False)
    if whole and len(warps) > 1:
        best = _best_of_each(aligned.correlation.abs(), candidates.query, len(queries.coarse), keep=_TURNED)
        better = best[best >= 0]
        aligned = aligned.replaced(better, align(*seen, candidates.take(better), warped=True))
    count, device = len(queries.coarse), queries.coarse.device
    alike = aligned.correlation.abs()
    likeness = _fisher(alike, queries.reliable[candidates.query] if whole else None)
    table = torch.full((count, KEPT), -1.0, dtype=torch.float64, device=device)
    ranked = candidates.rank >= 0
    table[candidates.query[ranked], candidates.rank[ranked]] = likeness[ranked]
    best = _best_of_each(likeness, candidates.query, count, keep=1)[:, 0]
    none, taken = best < 0, best.clamp_min(0)
    if not len(likeness):
        empty = torch.full((count,), -1.0, dtype=torch.float64, device=device)
        return Found(empty, torch.zeros_like(empty), empty.long())
    chosen = candidates.take(taken)
    placed = aligned.take(taken)
    return Found(
        likeness[taken].masked_fill(none, -1.0),
        usual_of(table),
        chosen.reference.masked_fill(none, -1),
        chosen,
        placed,
    )


def usual_of(table: Tensor) -> Tensor:
    """What is alike by chance: the mean of the later half of each row's values, ``(N,)``.

    Args:
        table: ``(N, K)``: Fisher's z of the most alike reference of each of K groups; -1 where there are fewer.
    """
    ordered = table.sort(dim=1, descending=True).values
    there = (ordered >= 0).sum(dim=1, keepdim=True)
    rank = torch.arange(ordered.shape[1], device=table.device)[None]
    later = (rank >= ((there + 1) // 2).clamp_min(1)) & (rank < there)
    return (ordered * later).sum(dim=1) / later.sum(dim=1).clamp_min(1)


def _fisher(alike: Tensor, reliable: Tensor | None) -> Tensor:
    """Fisher's z, in which a correlation's chance scatter is even, corrected for the query's noise."""
    same = alike > _IDENTICAL
    values = alike.double()
    if reliable is not None:
        values = torch.maximum(values, (values / reliable.double()).clamp(max=_ALMOST))
    return torch.atanh(values.clamp(0, _IDENTICAL)).masked_fill(same, BEYOND)


def fisher(alike: Tensor) -> Tensor:
    """The same of similarities without noise, such as features'; below 0 they count as 0."""
    return _fisher(alike, None)


def _best_of_each(values: Tensor, query: Tensor, count: int, *, keep: int) -> Tensor:
    """For each query the numbers of its best pairs, int64 ``(count, keep)``; -1 where it has no more."""
    order = values.argsort(descending=True, stable=True)
    order = order[query[order].argsort(stable=True)]
    found = torch.bincount(query, minlength=count)
    rank = torch.arange(len(order), device=order.device) - (found.cumsum(0) - found)[query[order]]
    best = torch.full((count, keep), -1, dtype=torch.int64, device=order.device)
    wanted = rank < keep
    best[query[order][wanted], rank[wanted]] = order[wanted]
    return best
