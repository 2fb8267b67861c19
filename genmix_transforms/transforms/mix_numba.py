"""The mix on the CPU in one pass, compiled by Numba: batch and bank are read once, the output is written once.

Imported where it is called: Numba is an extra. All that it compiles stands in this file, because it keeps machine code
under the date of the file of the function that is called.

A row is a channel of an image, so that scale and shift are constant in the inner loop and the compiler turns it into
vector instructions. bfloat16 travels as its bits, int16: NumPy has no such type.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange, types
from numba.core import config, event
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
"""A multiplication and an addition may be fused, as in torch.lerp; nothing else is rearranged."""

_ONE_F32, _HALF_F32 = np.float32(1), np.float32(0.5)
_WHOLE = np.float32(12582912.0)  # adding it and taking it away rounds to a whole number, halves to even
_ROUND = np.uint32(0x7FFF)
_ONE, _SIXTEEN = np.uint32(1), np.uint32(16)


def mix_compiled(
    images: Tensor, pixels: Tensor, draw: Draw, scale: Tensor, shift: Tensor, *, out: Tensor, threads: int
) -> bool:
    """Mix on the CPU in one compiled pass. See :func:`genmix_transforms.transforms.mix.mix`, which has checked all.

    Args:
        images: contiguous; any of the dtypes but float16.
        pixels: contiguous.
        draw: lambdas and partners, of the bank all of them.
        scale: of the bank's pixels.
        shift: likewise.
        out: contiguous; may be ``images``.
        threads: that may share the work.

    Returns:
        Whether it was done. False: partners are outside the bank, and nothing was written.
    """
    if images.numel() == 0:
        return True
    channels = images.shape[1]
    batch = _array(images).reshape(-1)
    in_place = out is images or out.data_ptr() == images.data_ptr()
    lam, scale, shift = (
        values.double() if images.dtype == torch.float64 else values for values in (draw.lam, scale, shift)
    )
    arguments = (
        batch,
        pixels.numpy().reshape(-1),
        np.ascontiguousarray(draw.index.numpy()),
        np.ascontiguousarray(lam.numpy()),
        scale.numpy().reshape(-1),
        shift.numpy().reshape(-1),
        batch if in_place else _array(out).reshape(-1),
        channels,
        images.numel() // (images.shape[0] * channels),
        in_place,
    )
    inside = _mix_in_parallel(arguments, threads) if threads > 1 else None
    return _alone(*arguments) if inside is None else inside


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return the values as an array in the same memory."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


# Several threads

_one_at_a_time = threading.Lock()
_threads_work = True


def _mix_in_parallel(arguments: tuple[Any, ...], threads: int) -> bool | None:
    """Mix on several threads of Numba's, and return what the kernel does; None: there are none to be had.

    One call at a time: of Numba's pools of threads, "workqueue" ends the process when two call upon it at once.
    """
    global _threads_work
    shares = min(threads, config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if shares < 2 or not _threads_work or not _one_at_a_time.acquire(blocking=False):
        return None
    try:
        before = numba.get_num_threads()
        numba.set_num_threads(shares)
        try:
            return _shared(*arguments, shares)
        finally:
            numba.set_num_threads(before)
    except (ValueError, ImportError):  # there is no pool of threads on this machine
        _threads_work = False
        return None
    finally:
        _one_at_a_time.release()


# Compiled


class _Kernel:
    """A function that is compiled when it is first called with arrays of certain dtypes.

    Its machine code is kept beside the source, or in Numba's cache folder, for later processes. In a read-only
    installation without such a folder, or on a full disk, every process compiles anew.
    """

    def __init__(self, function: Callable[..., bool], **options: bool) -> None:
        self._function = function
        self._options = {**_OPTIONS, "nogil": True, **options}
        try:
            self._compile(cache=True)
        except RuntimeError:  # no folder that can be written
            self._compile(cache=False)

    def _compile(self, *, cache: bool) -> None:
        self._compiled = njit(self._function, cache=cache, **self._options)
        _announcement.functions.add(self._compiled)

    def __call__(self, *arguments: Any) -> bool:
        try:
            return bool(self._compiled(*arguments))
        except OSError:  # the folder could be written before
            self._compile(cache=False)
            return bool(self._compiled(*arguments))


class _Announcement(event.Listener):
    """Says why a first call takes seconds: when one of these functions is compiled, not when it is read from disk."""

    def __init__(self) -> None:
        self.functions: set[Any] = set()
        self._is_made = False

    def on_start(self, event: Any) -> None:
        """Write the line, once a process."""
        if not self._is_made and event.data.get("dispatcher") in self.functions and sys.stderr is not None:
            self._is_made = True
            sys.stderr.write("GenMix: compiling the mix, once (some seconds)\n")
            sys.stderr.flush()

    def on_end(self, event: Any) -> None:
        """Say nothing."""


_announcement = _Announcement()
event.register("numba:compile", _announcement)


def _compiled(function: Any) -> Any:
    """Compile what a kernel calls; it becomes a part of it."""
    return njit(function, **_OPTIONS)


@_compiled
def _mix_row(real, partner, weight, scale, shift, out):  # type: ignore[no-untyped-def]
    for place in range(real.size):
        out[place] = _mix(real[place], partner[place], weight, scale, shift)


@_compiled
def _mix_row_in_place(real, partner, weight, scale, shift):  # type: ignore[no-untyped-def]
    """Mix as :func:`_mix_row` does, into ``real``.

    A function of its own: one loop for both would not use vectors in place, as it would first ask whether what it
    writes is what it reads.
    """
    for place in range(real.size):
        real[place] = _mix(real[place], partner[place], weight, scale, shift)


@_compiled
def _mix_values(here, end, batch, pixels, index, lam, scale, shift, out, channels, values, in_place):  # type: ignore[no-untyped-def]
    """Mix the values ``here`` to ``end`` of a batch, counted in the order of memory."""
    while here < end:
        row, place = here // values, here % values
        count = min(values - place, end - here)
        number, channel = row // channels, row % channels
        read, written = batch[here : here + count], out[here : here + count]
        start = (index[number] * channels + channel) * values + place
        pixel = pixels[start : start + count]
        if in_place:
            _mix_row_in_place(read, pixel, lam[number], scale[channel], shift[channel])
        else:
            _mix_row(read, pixel, lam[number], scale[channel], shift[channel], written)
        here += count


@_compiled
def _are_inside(index, rows):  # type: ignore[no-untyped-def]
    return index.min() >= 0 and index.max() < rows


def _mix_alone(batch, pixels, index, lam, scale, shift, out, channels, values, in_place):  # type: ignore[no-untyped-def]
    inside = _are_inside(index, pixels.size // (channels * values))
    if inside:
        _mix_values(0, batch.size, batch, pixels, index, lam, scale, shift, out, channels, values, in_place)
    return inside


def _mix_shared(batch, pixels, index, lam, scale, shift, out, channels, values, in_place, shares):  # type: ignore[no-untyped-def]
    inside = _are_inside(index, pixels.size // (channels * values))
    if inside:
        for share in prange(shares):
            here, end = batch.size * share // shares, batch.size * (share + 1) // shares
            _mix_values(here, end, batch, pixels, index, lam, scale, shift, out, channels, values, in_place)
    return inside


_alone = _Kernel(_mix_alone)
_shared = _Kernel(_mix_shared, parallel=True)


@_compiled
def _mix_float32(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    # Every constant is a float32, or Numba would compute in float64. As torch.lerp: exact at both ends.
    partner = scale * np.float32(pixel) + shift
    if weight < _HALF_F32:
        return real + weight * (partner - real)
    return partner - (_ONE_F32 - weight) * (partner - real)


@_compiled
def _mix_float64(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    partner = scale * np.float64(pixel) + shift
    if weight < 0.5:
        return real + weight * (partner - real)
    return partner - (1.0 - weight) * (partner - real)


@_compiled
def _mix_bfloat16(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    value = np.uint32(np.uint32(np.uint16(real)) << _SIXTEEN).view(np.float32)
    mixed = np.float32(_mix_float32(value, pixel, weight, scale, shift)).view(np.uint32)
    # To nearest, halves to even; an overflow carries into the exponent, as it should.
    return np.int16(np.uint32(mixed + _ROUND + np.uint32(np.uint32(mixed >> _SIXTEEN) & _ONE)) >> _SIXTEEN)


@_compiled
def _mix_whole_number(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    mixed = _mix_float32(np.float32(real), pixel, weight, scale, shift)
    return np.int32(np.float32(mixed + _WHOLE) - _WHOLE)


_MIX = {
    types.float32: _mix_float32,
    types.float64: _mix_float64,
    types.int16: _mix_bfloat16,
    types.uint8: _mix_whole_number,
    types.uint16: _mix_whole_number,
}


def _mix(real: Any, pixel: Any, weight: Any, scale: Any, shift: Any) -> Any:
    """Mix one value of the batch with one of its partner, by the type of the batch's. Compiled code only."""
    raise NotImplementedError("compiled code only")


@overload(_mix, jit_options={"fastmath": _OPTIONS["fastmath"]})
def _mix_by_type(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    mix = _MIX[real]
    return lambda real, pixel, weight, scale, shift: mix(real, pixel, weight, scale, shift)
