"""Rows that lie in several arrays, gathered as if they lay in one."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Index = NDArray[np.int64]

_LARGEST = 2**62
"""NumPy's limit on the bytes of an array is at 2**63."""


class ScatteredRows:
    """Rows of one shape in arrays that lie anywhere in memory.

    NumPy gathers the rows of one array in a loop of its own; over several, a loop of Python would find each row first,
    which takes as long as the copy. So the arrays are looked at through a window from the lowest address to the
    highest, in which an item begins every few bytes, and a row is the item at its address. What lies between the
    arrays is in the window, and is never touched.

    Args:
        arrays: C-contiguous, of one dtype, ``(n, ...)`` with the same ``...``; at least one.

    Attributes:
        addresses: int64: where each array begins.
        row_bytes: of a row.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        first = self._arrays[0]
        self._dtype, self._shape = first.dtype, first.shape[1:]
        self.row_bytes = math.prod(self._shape) * first.itemsize
        self.addresses: Index = np.array([one.__array_interface__["data"][0] for one in arrays], dtype=np.int64)
        self._lowest = int(self.addresses.min())
        self._unit = math.gcd(self.row_bytes, *(self.addresses - self._lowest).tolist())
        self._window = self._look()

    def _look(self) -> NDArray[np.void] | None:
        """Items of a row's size, one every ``_unit`` bytes; None: more than NumPy can count."""
        ends = self.addresses + [one.nbytes for one in self._arrays]
        count = (int(ends.max()) - self._lowest - self.row_bytes) // self._unit + 1
        if count * self.row_bytes >= _LARGEST:
            return None
        item = (ctypes.c_uint8 * self.row_bytes).from_address(self._lowest)
        first: NDArray[np.void] = np.ndarray((1,), dtype=np.dtype((np.void, self.row_bytes)), buffer=memoryview(item))
        return as_strided(first, shape=(count,), strides=(self._unit,))

    def address(self, array: Index, row: Index) -> Index:
        """Where rows begin: ``row[i]`` of the array with the number ``array[i]``."""
        return self.addresses[array] + row * self.row_bytes

    def take(self, array: Index, row: Index, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Copy rows: ``row[i]`` of the array with the number ``array[i]``. Numbers are not checked.

        Args:
            array: int64 ``(n,)``.
            row: int64 ``(n,)``.
            out: memory to copy to, C-contiguous, ``(n, ...)``; None: new.
        """
        if self._window is not None and out is None:
            rows = self._window[(self.address(array, row) - self._lowest) // self._unit]
            return rows.view(self._dtype).reshape(len(row), *self._shape)
        if out is None:
            out = np.empty((len(row), *self._shape), dtype=self._dtype)
        if len(row):
            views = [self._arrays[number][at] for number, at in zip(array.tolist(), row.tolist(), strict=True)]
            np.concatenate(views, out=out.reshape(-1, *out.shape[2:]))
        return out
