"""The mix on the CPU in one pass, compiled by Numba: batch and bank are read once, the output is written once.

Numba is an extra. Without it the mix is :mod:`genmix_transforms.transforms.kernels.cpu`'s, in several passes.
"""

import os
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels.units import Units

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.uint16)
_NONE = np.empty(0, dtype=np.int64)


@cache
def numba_is_there() -> bool:
    """Whether Numba (the extra ``cpu``) is installed, works, and was not told to leave code uncompiled."""
    if find_spec("numba") is None or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return False
    try:
        import numba  # noqa: F401
    except ImportError as error:  # it has not caught up with this NumPy
        warnings.warn(f"GenMix: Numba is installed and does not work ({error}): mixing goes without it", stacklevel=2)
        return False
    return True


@cache
def kernels() -> tuple[Any, Any]:
    """Into other memory, and in place. Numba is imported here."""
    from genmix_transforms.transforms.kernels.numba_kernel import mix_in_place, mix_into

    return mix_into, mix_in_place


def can_mix(images: Tensor, pixels: Tensor, out: Tensor) -> bool:
    """Whether these layouts and dtypes are compiled for: contiguous, and anything but float16."""
    return (
        numba_is_there()
        and images.dtype in _DTYPES
        and images.is_contiguous()
        and pixels.is_contiguous()
        and (out is images or out.is_contiguous())
    )


def mix_compiled(
    images: Tensor,
    pixels: Tensor,
    drawn: Draw,
    units: Units,
    *,
    out: Tensor,
) -> Tensor:
    """See :func:`genmix_transforms.transforms.kernels.mix_with_bank`; ``out`` may be ``images``."""
    if images.numel() == 0:
        return out
    lam, index, from_batch = drawn.arrays()
    scale, shift = units.host
    if images.dtype == torch.float64:
        lam, scale, shift = (array.astype(np.float64) for array in (lam, scale, shift))
    batch = _array(images)
    own, own_row = batch, _NONE
    if from_batch is not None:
        # Before anything is written: in place, a partner may be an image that has been mixed already.
        chosen = images.index_select(0, torch.from_numpy(index[from_batch]))
        own = _array(chosen.float() if chosen.dtype == torch.bfloat16 else chosen)
        own_row = np.where(from_batch, from_batch.cumsum() - 1, -1)
    read = (batch, _array(pixels), index, lam, scale, shift, own, own_row)
    into, in_place = kernels()
    same = out is images or out.data_ptr() == images.data_ptr()
    kernel, written = (in_place, ()) if same else (into, (_array(out),))
    # On one core: a second one would first have to fetch the batch from the cache of this one, and is no faster.
    kernel(*read, *written)
    return out


def _array(tensor: Tensor) -> NDArray[Any]:
    """A NumPy array over the same memory; bfloat16 as its bits."""
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
