"""The mix on the CPU in one pass, compiled by Numba: batch and bank are read once, the output is written once.

Numba is an extra. Without it the mix is :mod:`genmix_transforms.transforms.kernels.cpu`'s, in several passes.
"""

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels.native import Function, Layout, address, run, threads_for
from genmix_transforms.transforms.kernels.units import Units

_DTYPES = {
    torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "int16", torch.uint8: "uint8",
    torch.uint16: "uint16",
}  # fmt: skip
"""As NumPy calls them; bfloat16 goes by its bits."""


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
def loop(real: torch.dtype, pixel: torch.dtype, *, in_place: bool) -> tuple[Function, Layout]:
    """The compiled loop for these dtypes, and how its task is packed. Numba is imported here."""
    from genmix_transforms.transforms.kernels import numba_kernel

    return numba_kernel.mixing(_DTYPES[real], _DTYPES[pixel], in_place=in_place), numba_kernel.TASK


def can_mix(images: Tensor, pixels: Tensor, out: Tensor) -> bool:
    """Whether these layouts and dtypes are compiled for: contiguous, and anything but float16. All are on the CPU."""
    return (
        numba_is_there()
        and images.dtype in _DTYPES
        and not images.is_neg()
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
    size = images.numel()
    if size == 0:
        return out
    lam, index, from_batch = drawn.tensors()
    scale, shift = units
    if images.dtype == torch.float64:
        lam, scale, shift = lam.double(), scale.double(), shift.double()
    lam, index, scale, shift = lam.contiguous(), index.contiguous(), scale.contiguous(), shift.contiguous()
    own = own_row = None
    if from_batch is not None:
        # Before anything is written: in place, a partner may be an image that has been mixed already.
        own = images.index_select(0, index[from_batch])
        own = own.float() if own.dtype == torch.bfloat16 else own
        own_row = torch.where(from_batch, from_batch.cumsum(0) - 1, -1)
    batch, written = address(images, images.dtype), address(out, images.dtype)
    function, layout = loop(images.dtype, pixels.dtype, in_place=batch == written)
    samples, channels = images.shape[0], images.shape[1]
    threads = threads_for(size)
    task = layout.pack(
        batch, written, samples, channels, size // (samples * channels),
        address(pixels, pixels.dtype), pixels.numel(),
        *((0, 0, 0) if own is None or own_row is None else
          (address(own, own.dtype), own.numel(), address(own_row, torch.int64))),
        address(index, torch.int64), address(lam, scale.dtype), address(scale, scale.dtype),
        address(shift, scale.dtype), threads,
    )  # fmt: skip
    run(function, task, threads)
    return out
