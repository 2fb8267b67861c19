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


@dataclass(frozen=True)
class Candidates:
    """Pairs of a query and a reference that may be copies, ``P`` of them, and how they lie best in the coarse search.

    Args:
        query: int64 ``(P,)``.
        reference: int64 ``(P,)``.
        turned: int64 ``(P,)``: of the eight flips and quarter turns.
        warped: int64 ``(P,)``: index into the warps.
        part: int64 ``(P,)``: index into the parts.
        score: float32 ``(P,)``: the correlation's absolute value.
    """

    query: Tensor
    reference: Tensor
    turned: Tensor
    warped: Tensor
    part: Tensor
    score: Tensor

    def take(self, index: Tensor) -> "Candidates":
        """Some of the pairs."""
        return Candidates(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def together(cls, several: Sequence["Candidates"]) -> "Candidates":
        """One after the other."""
        return cls(*(torch.cat([getattr(one, name) for one in several]) for name in cls.__dataclass_fields__))


class References:
    """Training images cut out at every shift, and brought to length 1.

    Args:
        images: their detail, float32 ``(M, C, S, S)``.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.side = images.shape[-1]
        self.border = margin(self.side)
        self._cut: dict[int, list[Tensor]] = {}

    def cut(self, part: int) -> list[Tensor]:
        """A part at every shift: ``(M, D)`` each."""
        if part not in self._cut:
            rows, columns = box(part, self.side, self.border)
            shifts = range(-self.border, self.border + 1)
            self._cut[part] = [
                normalized(
                    self.images[..., rows.start + y : rows.stop + y, columns.start + x : columns.stop + x].flatten(1)
                )
                for y in shifts
                for x in shifts
            ]
        return self._cut[part]


def normalized(rows: Tensor) -> Tensor:
    """Rows ``(N, D)`` with their mean taken away and their length made 1; what is flat becomes 0."""
    rows = rows - rows.mean(dim=1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3, rows / length.clamp_min(1e-3), torch.zeros_like(rows))


def find_candidates(
    queries: Tensor,
    references: References,
    *,
    parts: Sequence[int],
    keep: int,
    barred: Tensor | None = None,
    warps: Sequence[tuple[float, float]] = WARPS,
) -> Candidates:
    """The references that correlate best with each query in any coarse position.

    Args:
        queries: detail, float32 ``(N, C, S, S)``, of the references' size.
        references: to look among.
        parts: numbers of the parts to compare; of several the best counts.
        keep: so many for each query, of different references.
        barred: bool ``(N, M)``: True where a reference must not be found (the same patient).
        warps: turns and zooms to try; all flips, quarter turns and shifts are.

    Returns:
        ``N * keep`` candidates, those of a query together, the best first; fewer where fewer references are left.
    """
    best = torch.zeros(len(queries), len(references.images), device=queries.device)
    for templates, _, _, part in _templates(queries, references, parts, warps):
        for cut in references.cut(part):
            torch.maximum(best, (templates @ cut.T).abs_(), out=best)
    if barred is not None:
        best.masked_fill_(barred, -1)
    score, reference = best.topk(min(keep, best.shape[1]), dim=1)
    query = torch.arange(len(queries), device=queries.device)[:, None].expand_as(reference)
    allowed = (score >= 0).flatten()
    query, reference = query.flatten()[allowed], reference.flatten()[allowed]
    return _placed(queries, references, query, reference, parts, warps)


def _placed(
    queries: Tensor,
    references: References,
    query: Tensor,
    reference: Tensor,
    parts: Sequence[int],
    warps: Sequence[tuple[float, float]],
) -> Candidates:
    """In which position each of the kept pairs correlates best: of so few it costs nothing to look again."""
    score = torch.full((len(query),), -1.0, device=queries.device)
    where = torch.zeros(3, len(query), dtype=torch.int64, device=queries.device)
    kept = {part: torch.stack([cut[reference] for cut in references.cut(part)]) for part in parts}
    for templates, turned, warped, part in _templates(queries, references, parts, warps):
        found = torch.einsum("pd,spd->sp", templates[query], kept[part]).abs().amax(dim=0)
        better = found > score
        score = torch.where(better, found, score)
        here = torch.tensor([[turned], [warped], [part]], device=queries.device)
        where = torch.where(better, here, where)
    return Candidates(query, reference, where[0], where[1], where[2], score)


def _templates(
    queries: Tensor, references: References, parts: Sequence[int], warps: Sequence[tuple[float, float]]
) -> Iterator[tuple[Tensor, int, int, int]]:
    for turned in range(FLIPS_AND_QUARTERS):
        lying = flip_and_turn(queries, turned)
        for warped, (angle, zoom) in enumerate(warps):
            there = lying if (angle, zoom) == (0.0, 1.0) else warp(lying, angle, zoom)
            for part in parts:
                rows, columns = box(part, references.side, references.border)
                yield normalized(there[..., rows, columns].flatten(1)), turned, warped, part
