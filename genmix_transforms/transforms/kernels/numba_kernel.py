"""The loops over images that Numba compiles. Imported where they run: Numba is an extra.

Images are seen as two-dimensional, a row a channel of an image, so that scale and shift are constant in the inner loop
and the compiler turns it into vector instructions. bfloat16 travels as its bits, int16: NumPy has no such type.

Compiled code is kept beside this file (or in Numba's cache folder), as Python keeps its own, for later processes.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

_ONE_F32, _HALF_F32 = np.float32(1), np.float32(0.5)
_WHOLE = np.float32(12582912.0)  # adding it and taking it away rounds to a whole number, halves to even
_ROUND = np.uint32(0x7FFF)
_ONE, _SIXTEEN = np.uint32(1), np.uint32(16)

# A multiplication and an addition may be fused, as in torch.lerp; nothing else is rearranged.
_FASTMATH = {"contract"}


def compiled(function: Any) -> Any:
    """Compile; keep the result if there is a folder that can be written to."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # "no locator available": a read-only installation and no cache folder
        return njit(function, **options)


@compiled
def mix_into(batch, pixels, index, lam, scale, shift, own, own_row, out):  # type: ignore[no-untyped-def]
    """Mix into ``out``. ``own_row`` is empty, or -1 where a partner is of the bank."""
    channels, one, zero = scale.size, scale.dtype.type(1), scale.dtype.type(0)
    batch, pixels, own, out = (
        _rows(batch, channels),
        _rows(pixels, channels),
        _rows(own, channels),
        _rows(out, channels),
    )
    for number in range(index.size):
        for channel in range(channels):
            row = number * channels + channel
            if own_row.size and own_row[number] >= 0:
                partner = own[own_row[number] * channels + channel]
                _mix_row_into(batch[row], partner, lam[number], one, zero, out[row])
            else:
                pixel = pixels[index[number] * channels + channel]
                _mix_row_into(batch[row], pixel, lam[number], scale[channel], shift[channel], out[row])


@compiled
def mix_in_place(batch, pixels, index, lam, scale, shift, own, own_row):  # type: ignore[no-untyped-def]
    """As :func:`mix_into`, into ``batch`` itself.

    A function of its own: one loop for both would not use vectors in place, as it would first ask whether what it
    writes is what it reads.
    """
    channels, one, zero = scale.size, scale.dtype.type(1), scale.dtype.type(0)
    batch, pixels, own = _rows(batch, channels), _rows(pixels, channels), _rows(own, channels)
    for number in range(index.size):
        for channel in range(channels):
            row = number * channels + channel
            if own_row.size and own_row[number] >= 0:
                partner = own[own_row[number] * channels + channel]
                _mix_row(batch[row], partner, lam[number], one, zero)
            else:
                pixel = pixels[index[number] * channels + channel]
                _mix_row(batch[row], pixel, lam[number], scale[channel], shift[channel])


@compiled
def _rows(images, channels):  # type: ignore[no-untyped-def]
    """``(N, C, *spatial)`` as ``(N * C, values)``."""
    return images.reshape((images.shape[0] * channels, images.size // max(1, images.shape[0] * channels)))


@compiled
def _mix_row_into(real, pixels, weight, scale, shift, out):  # type: ignore[no-untyped-def]
    for place in range(real.size):
        out[place] = _mix(real[place], pixels[place], weight, scale, shift)


@compiled
def _mix_row(real, pixels, weight, scale, shift):  # type: ignore[no-untyped-def]
    for place in range(real.size):
        real[place] = _mix(real[place], pixels[place], weight, scale, shift)


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


@overload(_mix, jit_options={"fastmath": _FASTMATH})
def _mix_by_type(real, pixel, weight, scale, shift):  # type: ignore[no-untyped-def]
    mix = _MIX[real]
    return lambda real, pixel, weight, scale, shift: mix(real, pixel, weight, scale, shift)
