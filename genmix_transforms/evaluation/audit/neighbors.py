"""Exact nearest neighbors, by matrix products over a part of the points at a time."""

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number

_PART = 512
"""Queries whose distances to all references are in memory at a time: 20 MB for 10,000 references."""

_SPARE = 4
"""Neighbors beyond k that are measured again, by differences: products round, and near ties may change places."""


def nearest_neighbors(
    queries: Tensor,
    references: Tensor,
    *,
    k: int = 1,
    query_groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k nearest references of each query, by Euclidean distance, nearest first.

    Candidates come from matrix products in float32; their distances are then measured by differences in float64, so
    that equal points are at 0.

    Args:
        queries: float ``(N, D)``, finite.
        references: float ``(M, D)``, finite.
        k: how many neighbors, from 1 to M.
        query_groups: int64 ``(N,)``: the group (patient) of each query; references of the same are left out.
        reference_groups: int64 ``(M,)``: that of each reference. Both or neither.

    Returns:
        ``distance``, float32 ``(N, k)``, and ``index``, int64 ``(N, k)``, into the references. Where fewer than k are
        left of other groups, infinite and -1.

    Raises:
        InputError: other shapes, values that are not finite, or more neighbors than references.

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> distance, index = nearest_neighbors(points[:1], points, k=3)
        >>> distance.tolist(), index.tolist()
        ([[0.0, 1.0, 5.0]], [[0, 2, 1]])
        >>> group = torch.arange(3)
        >>> nearest_neighbors(points, points, query_groups=group, reference_groups=group)[1].tolist()
        [[2], [2], [0]]
    """
    _check(queries, references, k, query_groups, reference_groups)
    queries, references = queries.float(), references.float()
    # About the common center the squares are small, and so is what their differences lose.
    center = references.mean(dim=0)
    references_there = references - center
    squares = references_there.square().sum(dim=1)
    taken = min(k + _SPARE, len(references))
    distances, indices = [], []
    for part in torch.arange(len(queries), device=queries.device).split(_PART):
        here = queries[part]
        # |q - r|^2 without |q|^2, which changes no order.
        apart = torch.addmm(squares, here - center, references_there.T, alpha=-2)
        if query_groups is not None and reference_groups is not None:
            apart.masked_fill_(query_groups[part, None] == reference_groups[None], torch.inf)
        rough, index = _smallest(apart, taken)
        exact = (here[:, None].double() - references[index].double()).square().sum(dim=2)
        exact = exact.masked_fill(rough.isinf(), torch.inf)
        exact, order = exact.sort(dim=1, stable=True)
        index = index.gather(1, order).masked_fill(exact.isinf(), -1)
        distances.append(exact[:, :k].sqrt().float())
        indices.append(index[:, :k])
    return torch.cat(distances), torch.cat(indices)


def _smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row. Chosen among the least of stretches first: a row is then read once, not sorted."""
    stretch = 32
    rows, columns = values.shape
    if columns < 4 * stretch * k:
        found = values.topk(k, dim=1, largest=False)
        return found.values, found.indices
    whole = columns // stretch * stretch
    # The k smallest of a row lie in the k stretches whose least values are smallest.
    least = values[:, :whole].view(rows, stretch, -1).amin(dim=1)
    columns_of = least.topk(k, dim=1, largest=False).indices
    steps = torch.arange(stretch, device=values.device) * (whole // stretch)
    candidates = (columns_of[:, :, None] + steps).flatten(1)
    rest = torch.arange(whole, columns, device=values.device).expand(rows, -1)
    candidates = torch.cat([candidates, rest], dim=1)
    found = values.gather(1, candidates).topk(k, dim=1, largest=False)
    return found.values, candidates.gather(1, found.indices)


def _check(
    queries: Tensor, references: Tensor, k: int, query_groups: Tensor | None, reference_groups: Tensor | None
) -> None:
    for name, points in (("queries", queries), ("references", references)):
        if points.ndim != 2 or not points.dtype.is_floating_point:
            raise InputError(
                f"nearest_neighbors: {name} must be floats of shape (N, D), got {points.dtype} of {tuple(points.shape)}"
            )
        if not bool(points.isfinite().all()):
            raise InputError(f"nearest_neighbors: {name} must be finite; {name} has values that are not")
    if queries.shape[1] != references.shape[1]:
        raise InputError(
            f"nearest_neighbors: queries have {queries.shape[1]} dimensions and references {references.shape[1]}"
        )
    whole_number(k, name="nearest_neighbors: k", least=1, most=len(references))
    if (query_groups is None) != (reference_groups is None):
        raise InputError("nearest_neighbors: give the groups of queries and of references, or neither")
    for name, groups, points in (
        ("query_groups", query_groups, queries),
        ("reference_groups", reference_groups, references),
    ):
        if groups is not None and groups.shape != (len(points),):
            raise InputError(f"nearest_neighbors: {name} must have shape ({len(points)},), got {tuple(groups.shape)}")
