"""Compiled loops as plain functions of C: one address in, which everything they need lies at, and torch's own threads.

A call through Numba's dispatcher looks at every argument, and each tensor must first become a NumPy array: on a small
batch that takes longer than the mix. Here a call packs addresses and sizes into a few bytes and jumps.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

GRAIN = 1 << 15
"""Values a thread has at least: the grain size of torch's own loops."""

Function = Callable[[Any], int]
"""A compiled loop: takes a packed task, returns a number of its own."""

_BODY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)


class Layout:
    """The fields of a task, in their order: how they are packed here, and read in compiled code.

    Args:
        fields: of each name "q" (an address or a whole number) or "d" (a float64).
    """

    def __init__(self, **fields: str) -> None:
        self.fields: Mapping[str, str] = fields
        self.pack = struct.Struct("=" + "".join(fields.values())).pack


def callable_at(address: int) -> Function:
    """The compiled loop at an address; while it runs, other threads of Python do too."""
    function: Function = _BODY(address)
    return function


def run(function: Function, task: bytes, values: int) -> None:
    """Call a loop that splits its own work by the number of its thread, on as many threads as torch would take."""
    threads = min(torch.get_num_threads(), values // GRAIN)
    if threads > 1 and not _pool_was_left and (parallel := parallel_region()) is not None:
        # The threads that wrote the batch just now: its parts are in their caches, and they are awake.
        parallel(function, task, threads, 0)
    else:
        function(task)


@cache
def parallel_region() -> Callable[..., None] | None:
    """``GOMP_parallel(function, data, threads, flags)`` of the OpenMP whose threads torch itself works on, or None.

    Another pool would sit beside torch's, and the two wait for each other's cores. OpenMP's entry points are found
    among the process's global symbols, where torch puts them on Linux; elsewhere there is one thread.
    """
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        symbols = ctypes.CDLL(None)
        parallel = symbols.GOMP_parallel
        _ = symbols.omp_get_thread_num, symbols.omp_get_num_threads  # which compiled code asks
    except (AttributeError, OSError, TypeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


_pool_was_left = False


def _after_fork() -> None:
    """Threads do not come along: a forked process that called upon a pool its parent has made would wait for ever."""
    global _pool_was_left
    _pool_was_left = torch.get_num_threads() > 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
