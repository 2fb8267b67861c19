"""The loops over images that Numba compiles. Imported where they run: Numba is an extra.

A row is a channel of an image, so that scale and shift are constant in the inner loop and the compiler turns it into
vector instructions. bfloat16 travels as its bits, int16: NumPy has no such type.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from genmix_transforms.transforms.kernels.native import Function, Layout, parallel_region
from genmix_transforms.transforms.kernels.numba_code import FASTMATH, array_at, compiled, entry_point, task_at

TASK = Layout(
    batch="q", out="q", samples="q", channels="q", values="q",  # values: of a channel of an image
    pixels="q", pixels_size="q",
    own="q", own_size="q", own_row="q",  # partners of the batch; for each sample its row among these, or -1
    index="q", lam="q", scale="q", shift="q",
    threads="q",  # that share the work
)  # fmt: skip

_ONE_F32, _HALF_F32 = np.float32(1), np.float32(0.5)
_WHOLE = np.float32(12582912.0)  # adding it and taking it away rounds to a whole number, halves to even
_ROUND = np.uint32(0x7FFF)
_ONE, _SIXTEEN = np.uint32(1), np.uint32(16)

SEVERAL_THREADS = parallel_region() is not None

_thread_number = types.ExternalFunction("omp_get_thread_num", types.int32())
_threads = types.ExternalFunction("omp_get_num_threads", types.int32())


@cache
def mixing(real: str, of_bank: str, *, in_place: bool) -> Function:
    """The loop for a batch and a bank of these dtypes, by their names; bfloat16 is "int16"."""
    real_type, pixel_type = np.dtype(real).type, np.dtype(of_bank).type
    weight_type = np.float64 if real == "float64" else np.float32
    own_type = np.float32 if real == "int16" else real_type
    one, zero = weight_type(1), weight_type(0)
    # A variable of this function, so that code compiled with OpenMP is never taken from the cache where there is none.
    several_threads = SEVERAL_THREADS

    @entry_point(TASK)
    def mix(tasks):  # type: ignore[no-untyped-def]
        task = task_at(tasks)
        samples, channels, values = task.samples, task.channels, task.values
        size = samples * channels * values
        batch = array_at(task.batch, size, real_type)
        out = array_at(task.out, size, real_type)
        pixels = array_at(task.pixels, task.pixels_size, pixel_type)
        own = array_at(task.own, task.own_size, own_type)
        own_row = array_at(task.own_row, samples, np.int64)
        index = array_at(task.index, samples, np.int64)
        lam = array_at(task.lam, samples, weight_type)
        scale = array_at(task.scale, channels, weight_type)
        shift = array_at(task.shift, channels, weight_type)
        here, end = 0, size
        if several_threads and task.threads > 1:
            here, end = _of_this_thread(size, task.threads)
        while here < end:
            row, place = here // values, here % values
            count = min(values - place, end - here)
            number, channel = row // channels, row % channels
            read, written = batch[here : here + count], out[here : here + count]
            if task.own_row and own_row[number] >= 0:
                start = (own_row[number] * channels + channel) * values + place
                partner = own[start : start + count]
                if in_place:
                    _mix_row_in_place(read, partner, lam[number], one, zero)
                else:
                    _mix_row(read, partner, lam[number], one, zero, written)
            else:
                start = (index[number] * channels + channel) * values + place
                pixel = pixels[start : start + count]
                if in_place:
                    _mix_row_in_place(read, pixel, lam[number], scale[channel], shift[channel])
                else:
                    _mix_row(read, pixel, lam[number], scale[channel], shift[channel], written)
            here += count
        return 0

    return mix


@compiled
def _of_this_thread(size, threads):  # type: ignore[no-untyped-def]
    """The part of a loop that is this thread's: where it begins and ends. Nothing for those beyond ``threads``."""
    thread, threads = _thread_number(), min(threads, _threads())
    if thread >= threads:
        return 0, 0
    return size * thread // threads, size * (thread + 1) // threads


@compiled
def _mix_row(real, partner, weight, scale, shift, out):  # type: ignore[no-untyped-def]
    for place in range(real.size):
        out[place] = _mix(real[place], partner[place], weight, scale, shift)


@compiled
def _mix_row_in_place(real, partner, weight, scale, shift):  # type: ignore[no-untyped-def]
    """As :func:`_mix_row`, into ``real``.

    A function of its own: one loop for both would not use vectors in place, as it would first ask whether what it
    writes is what it reads.
    """
    for place in range(real.size):
        real[place] = _mix(real[place], partner[place], weight, scale, shift)


@compiled
def _mix_float32(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    # Every constant is a float32, or Numba would compute in float64. As torch.lerp: exact at both ends.
    partner = scale * np.float32(pixel) + shift
    if weight < _HALF_F32:
        return real + weight * (partner - real)
    return partner - (_ONE_F32 - weight) * (partner - real)


@compiled
def _mix_float64(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    partner = scale * np.float64(pixel) + shift
    if weight < 0.5:
        return real + weight * (partner - real)
    return partner - (1.0 - weight) * (partner - real)


@compiled
def _mix_bfloat16(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    value = np.uint32(np.uint32(np.uint16(real)) << _SIXTEEN).view(np.float32)
    mixed = np.float32(_mix_float32(value, pixel, weight, scale, shift)).view(np.uint32)
    # To nearest, halves to even; an overflow carries into the exponent, as it should.
    return np.int16(np.uint32(mixed + _ROUND + np.uint32(np.uint32(mixed >> _SIXTEEN) & _ONE)) >> _SIXTEEN)


@compiled
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
    """One value of the batch and one of its partner, mixed: by the type of the batch's."""
    raise NotImplementedError("compiled code only")


@overload(_mix, jit_options={"fastmath": FASTMATH})
def _mix_by_type(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    mix = _MIX[real]
    return lambda real, pixel, weight, scale, shift: mix(real, pixel, weight, scale, shift)
