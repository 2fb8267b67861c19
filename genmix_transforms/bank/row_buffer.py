"""Rows that wait until there are enough of them for a shard."""

import torch

from genmix_transforms.bank.shards import Rows

_FIRST = 256


class RowBuffer:
    """Memory for a shard's rows, filled again and again: fresh memory costs more than what is done with it.

    Args:
        capacity: rows at most. The memory grows to that as rows come.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: Rows | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether no row more fits in."""
        return self._count == self._capacity

    @property
    def rows(self) -> Rows:
        """What is in it, until it is filled again."""
        assert self._held is not None  # asked for when there is something
        return self._held.take(slice(0, self._count))

    def add(self, rows: Rows) -> Rows:
        """Take as many rows as fit in, and return the rest."""
        some = min(len(rows.images), self._capacity - self._count)
        self._make_room(rows, self._count + some)
        for column, new in zip(self._held or (), rows, strict=True):
            column[self._count : self._count + some] = new[:some]
        self._count += some
        return rows.take(slice(some, None))

    def clear(self) -> None:
        """Forget what is in it; the memory stays."""
        self._count = 0

    def _make_room(self, like: Rows, needed: int) -> None:
        size = 0 if self._held is None else len(self._held.images)
        if self._held is not None and needed <= size:
            return
        size = min(self._capacity, max(_FIRST, needed, 2 * size))
        larger = Rows(*(torch.empty(size, *column.shape[1:], dtype=column.dtype) for column in like))
        if self._held is not None:
            for column, old in zip(larger, self._held, strict=True):
                column[: self._count] = old[: self._count]
        self._held = larger
