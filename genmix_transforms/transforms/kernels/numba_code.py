"""What all loops that Numba compiles share: how they are compiled, and how they read a task. Numba is an extra."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic

from genmix_transforms.transforms.kernels.native import Function, Layout, callable_at

# A multiplication and an addition may be fused, as in torch.lerp; nothing else is rearranged.
FASTMATH = {"contract"}
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": FASTMATH}
_TYPES = {"q": np.int64, "d": np.float64}

_kept: list[Any] = []
"""What owns the C functions."""


def compiled(function: Any) -> Any:
    """Compile what a loop calls; it becomes a part of it."""
    return njit(function, **_OPTIONS)


def entry_point(layout: Layout) -> Callable[[Any], Function]:
    """Compile ``function(tasks)`` into a C function; ``task_at(tasks)`` is the task.

    Compiled code is kept beside its source (or in Numba's cache folder) for later processes, as Python keeps its own:
    under the source file's date, and the values of the variables around ``function``, which must be plain ones.
    """
    record = from_dtype(np.dtype([(name, _TYPES[kind]) for name, kind in layout.fields.items()]))
    signature = types.int64(types.CPointer(record))

    def to_c(function: Any) -> Function:
        try:
            code = cfunc(signature, cache=True, **_OPTIONS)(function)
        except (RuntimeError, OSError):  # a read-only installation and no cache folder, or a full disk
            code = cfunc(signature, **_OPTIONS)(function)
        _kept.append(code)
        return callable_at(code.address)  # type: ignore[arg-type]

    return to_c


@compiled
def task_at(tasks):  # type: ignore[no-untyped-def]
    """The one task that lies there."""
    return carray(tasks, 1)[0]


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """A whole number as the address that it is."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@compiled
def array_at(address, shape, dtype):  # type: ignore[no-untyped-def]
    """The array that lies at an address."""
    return carray(_pointer(address), shape, dtype)
