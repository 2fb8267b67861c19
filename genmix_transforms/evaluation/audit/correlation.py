"""The exhaustive search: every synthetic against every training image, in every coarse position, by matrix products."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.evaluation.audit.transformations import (
    FLIPS_AND_QUARTERS,
    WARPS,
    box,
    flip_and_turn,
    margin,
    warp,
)

UPRIGHT = WARPS[:1]
"""No turn but quarters, and no zoom."""
EVERY_TURN = tuple(range(FLIPS_AND_QUARTERS))

_ANY_GROUP = 3
"""Of the most alike references so many are kept whatever their group: of a patient's images the right one is to be
found."""
_TOGETHER = 2048
"""References whose correlations with the queries are in memory at a time."""
_PLACED = 1024
"""Pairs whose positions are looked up at a time."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of a query and a reference that may be copies, ``P`` of them, and how they lie best in the coarse search.

    Args:
        query: int64 ``(P,)``.
        reference: int64 ``(P,)``.
        rank: int64 ``(P,)``: the reference is the best of the group that comes so far down among all groups, from 0;
            -1 where another reference of its group is better.
        turned: int64 ``(P,)``: of the eight flips and quarter turns.
        warped: int64 ``(P,)``: index into the warps.
        part: int64 ``(P,)``: index into the parts.
        score: float32 ``(P,)``: the correlation's absolute value.
    """

    query: Tensor
    reference: Tensor
    rank: Tensor
    turned: Tensor
    warped: Tensor
    part: Tensor
    score: Tensor

    def take(self, index: Tensor) -> "Candidates":
        """Some of the pairs."""
        return Candidates(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def normalized(rows: Tensor) -> Tensor:
    """Rows ``(N, D)`` with their mean taken away and their length made 1; what is flat becomes 0."""
    rows = rows - rows.mean(dim=1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3, rows / length.clamp_min(1e-3), torch.zeros_like(rows))


def find_candidates(
    queries: Tensor,
    references: Tensor,
    *,
    parts: Sequence[int],
    keep: int,
    groups: Tensor | None = None,
    barred: Tensor | None = None,
    turns: Sequence[int] = EVERY_TURN,
    warps: Sequence[tuple[float, float]] = WARPS,
) -> Candidates:
    """The references that correlate best with each query in any coarse position.

    Args:
        queries: float32 ``(N, C, S, S)``.
        references: to look among, float32 ``(M, C, S, S)``.
        parts: numbers of the parts to compare; of several the best counts.
        keep: so many groups for each query, of each the best reference.
        groups: int64 ``(M,)``: the references' groups (patients); None: each is one.
        barred: bool ``(N, M)``: True where a reference must not be found (the same patient).
        turns: flips and quarter turns to try.
        warps: turns and zooms to try; all shifts are.

    Returns:
        Those of a query together, the best group first; fewer than ``keep`` where fewer are left.
    """
    best = queries.new_full((len(queries), len(references)), -1)
    which = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for part in parts:
        templates = [rows for _, _, rows in _templates(queries, part, turns, warps)]
        for start in range(0, len(references), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            alike = _most_alike_anywhere(templates, references[some], part)
            which[:, some].masked_fill_(alike > best[:, some], part)
            torch.maximum(best[:, some], alike, out=best[:, some])
    if barred is not None:
        best.masked_fill_(barred, -1)
    query, reference, rank = best_of_groups(best, keep, groups)
    return _placed(queries, references, (query, reference, rank), which[query, reference].long(), turns, warps)


def _most_alike_anywhere(templates: Sequence[Tensor], references: Tensor, part: int) -> Tensor:
    """The largest correlation of each query with each reference in any position, ``(N, M)``."""
    best = templates[0].new_zeros(len(templates[0]), len(references))
    found = torch.empty_like(best)
    for cut in _cuts(references, part):
        for rows in templates:
            torch.mm(rows, cut.T, out=found).abs_()
            torch.maximum(best, found, out=best)
    return best


def best_of_groups(best: Tensor, keep: int, groups: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The best reference of each of a query's best groups, and the best references of all.

    Args:
        best: ``(N, M)``; below 0: must not be found.
        keep: groups of each query.
        groups: int64 ``(M,)``; None: each reference is one.

    Returns:
        Query, reference, and rank of its group (-1: another reference of the group is better), int64 ``(P,)`` each.
    """
    count, device = len(best), best.device
    members = None if groups is None else groups.to(device).unique(return_inverse=True)[1]
    if members is None or len(members) == int(members.max()) + 1:
        score, reference = best.topk(min(keep, best.shape[1]), dim=1)
        rank = torch.arange(reference.shape[1], device=device).expand_as(reference)
    else:
        number = int(members.max()) + 1
        of_group = best.new_full((count, number), -1).scatter_reduce(1, members.expand_as(best), best, "amax")
        score, group = of_group.topk(min(keep, number), dim=1)
        reference = torch.stack(
            [best.masked_fill(members[None] != one[:, None], -2).argmax(dim=1) for one in group.unbind(1)], dim=1
        )
        rank = torch.arange(reference.shape[1], device=device).expand_as(reference)
        others_score, others = best.topk(min(_ANY_GROUP, best.shape[1]), dim=1)
        known = (others[:, :, None] == reference[:, None]).any(dim=2)
        reference = torch.cat([reference, others], dim=1)
        score = torch.cat([score, others_score.masked_fill(known, -1)], dim=1)
        rank = torch.cat([rank, torch.full_like(others, -1)], dim=1)
    allowed = (score >= 0).flatten()
    query = torch.arange(count, device=device)[:, None].expand_as(reference)
    return query.flatten()[allowed], reference.flatten()[allowed], rank.flatten()[allowed]


def _placed(
    queries: Tensor,
    references: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    part: Tensor,
    turns: Sequence[int],
    warps: Sequence[tuple[float, float]],
) -> Candidates:
    """In which position each of the kept pairs correlates best: of so few it costs little to look again."""
    query, reference, rank = pairs
    score = queries.new_full((len(query),), -1.0)
    where = torch.zeros(2, len(query), dtype=torch.int64, device=queries.device)
    for number in part.unique().tolist():
        templates = list(_templates(queries, number, turns, warps))
        for some in (part == number).nonzero().flatten().split(_PLACED):
            kept = torch.stack(list(_cuts(references[reference[some]], number)), dim=1)
            for turned, warped, rows in templates:
                found = torch.bmm(kept, rows[query[some], :, None])[:, :, 0].abs().amax(dim=1)
                better = found > score[some]
                score[some] = torch.where(better, found, score[some])
                here = torch.tensor([[turned], [warped]], device=queries.device)
                where[:, some] = torch.where(better, here, where[:, some])
    return Candidates(query, reference, rank, where[0], where[1], part, score)


def _cuts(images: Tensor, part: int) -> Iterator[Tensor]:
    """A part of images at every shift: ``(M, D)`` each, of length 1."""
    side = images.shape[-1]
    border = margin(side)
    rows, columns = box(part, side, border)
    down = _shifts(rows, side, border)
    right = _shifts(columns, side, border)
    for y in down:
        for x in right:
            yield normalized(
                images[..., rows.start + y : rows.stop + y, columns.start + x : columns.stop + x].flatten(1)
            )


def _shifts(extent: slice, side: int, border: int) -> range:
    return range(-min(border, extent.start), min(border, side - extent.stop) + 1)


def _templates(
    queries: Tensor, part: int, turns: Sequence[int], warps: Sequence[tuple[float, float]]
) -> Iterator[tuple[int, int, Tensor]]:
    """The number of the turn, that of the warp, and the queries' part so turned and warped, ``(N, D)``."""
    side = queries.shape[-1]
    rows, columns = box(part, side, margin(side))
    for turned in turns:
        lying = flip_and_turn(queries, turned)
        for warped, (angle, zoom) in enumerate(warps):
            there = lying if (angle, zoom) == (0.0, 1.0) else warp(lying, angle, zoom)
            yield turned, warped, normalized(there[..., rows, columns].flatten(1))
