"""Compiled loops as C functions. Each takes one address, of a task: the addresses and sizes of all it works on.

A call through Numba's dispatcher looks at every argument, and each tensor must first become a NumPy array: on a small
batch that takes longer than the mix. Here a call packs some twenty numbers and jumps. What is behind an address nobody
looks at any more, so :func:`address` looks before it gives one away.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.errors import InputError

GRAIN = 1 << 15
"""Values a thread has at least: the grain size of torch's own loops."""

Function = Callable[[Any], int]
"""A compiled loop: takes a packed task, returns a number of its own."""

_BODY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)


class Layout:
    """The fields of a task, in their order: how they are packed here, and read in compiled code.

    Args:
        fields: of each name "q" (an address, 0 for what is not there, or a whole number) or "d" (a float64).
    """

    def __init__(self, **fields: str) -> None:
        self.fields: Mapping[str, str] = fields
        self.pack = struct.Struct("=" + "".join(fields.values())).pack


def address(tensor: Tensor, dtype: torch.dtype) -> int:
    """Where the values of a tensor lie, one after the other.

    Raises:
        InputError: they lie elsewhere than in this process's memory, have gaps between them, or are of another dtype.
    """
    place = tensor.data_ptr()
    if tensor.dtype is not dtype or not (tensor.is_cpu and tensor.is_contiguous()) or (not place and tensor.numel()):
        raise InputError(
            f"GenMix: expected contiguous {dtype} on the CPU, got {tensor.dtype} on {tensor.device} with the strides "
            f"{tensor.stride()} at address {place}; move a GenMix and its bank together, with genmix.to(device)"
        )
    return place


def has_address(tensor: Tensor) -> bool:
    """Whether a tensor has memory of its own; those that functorch wraps have none."""
    try:
        return bool(tensor.data_ptr()) or not tensor.numel()
    except RuntimeError:
        return False


def callable_at(address: int) -> Function:
    """The compiled loop at an address; while it runs, other threads of Python do too."""
    function: Function = _BODY(address)
    return function


def threads_for(values: int) -> int:
    """How many threads share a loop over so many values: torch's, if there is enough to do for each."""
    if values < 2 * GRAIN or _is_forked or parallel_region() is None:
        return 1
    return min(torch.get_num_threads(), values // GRAIN)


def run(function: Function, task: bytes, threads: int) -> None:
    """Call a loop that divides its work by ``threads`` itself, as its task must say too."""
    parallel = parallel_region() if threads > 1 else None
    if parallel is None:
        function(task)
    else:
        # All of torch's threads, as in torch's own loops, whoever has nothing to do: with fewer, OpenMP would end the
        # others, and torch's next operation would have to start them again.
        parallel(function, task, torch.get_num_threads(), 0)


@cache
def parallel_region() -> Callable[..., None] | None:
    """``GOMP_parallel(function, data, threads, flags)`` of the OpenMP whose threads torch itself works on, or None.

    A pool of our own beside torch's would wait for the cores that torch's threads hold, still awake. OpenMP's entry
    points are found among the process's global symbols, where torch puts them on Linux; elsewhere there is one thread.
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


_is_forked = False


def _after_fork() -> None:
    """OpenMP's threads do not come along: a forked process that called upon its parent's would wait for ever."""
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
