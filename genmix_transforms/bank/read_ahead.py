"""Rows of a mapped file that the disk has to bring first: asked for all at once, not one after the other."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from functools import cache
from typing import Any

_SLOW_START = 10e-6
_SLOW_BYTES_PER_SECOND = 1e9
"""A row from memory takes less than this: some microseconds, and a copy at several gigabytes a second."""


class ReadAhead:
    """Tells the system which rows are read next, for as long as reading them is slow.

    The first touch of a page that is not in memory waits for the disk, and the system reads some megabytes around it in
    the belief that they will follow: with 8 MiB read ahead (128 KiB are usual) 256 rows from a cold disk took 3 s, and
    0.02 s when the system was told beforehand. To tell it costs more than to copy a row that is there (1.5 against 1.0
    microseconds), so it is told only as long as rows come slowly. What is read does not depend on it.

    Args:
        row_bytes: of an image.

    Attributes:
        on: whether rows are asked for. At first they are.
    """

    def __init__(self, row_bytes: int) -> None:
        self.on = _madvise() is not None
        self._row_bytes = row_bytes
        self._slow = _SLOW_START + row_bytes / _SLOW_BYTES_PER_SECOND

    def ask(self, addresses: Iterable[int]) -> None:
        """Ask for the rows that begin at these addresses of the mapping."""
        advise = _madvise()
        if advise is None:
            return
        page, size = mmap.PAGESIZE, self._row_bytes
        for address in addresses:
            first = address - address % page
            advise(first, address + size - first, mmap.MADV_WILLNEED)  # a hint: a refusal changes nothing

    def learn(self, seconds: float, rows: int) -> None:
        """Take note of how long it took to ask for rows and to copy them."""
        self.on = _madvise() is not None and seconds > rows * self._slow


@cache
def _madvise() -> Any:
    """The system's call, or None where there is none."""
    if os.name != "posix" or not hasattr(mmap, "MADV_WILLNEED"):
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call
