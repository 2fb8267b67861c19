"""The mix of a batch with rows of the bank: one function, and which way it takes.

Fused on CUDA (:mod:`.mix_triton`), in one compiled pass on the CPU (:mod:`.mix_numba`), in pieces on a CPU without
Numba, and by plain operations everywhere else (both :mod:`.mix_eager`). The environment variable
``GENMIX_KERNELS=eager`` leaves only the last.
"""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.functional import mix_images
from genmix_transforms.transforms.mix_eager import mix_in_pieces, mix_plainly
from genmix_transforms.transforms.sample import check_images

GRAIN = 1 << 15
"""Values a thread has at least: the grain size of torch's own loops."""

_DRAWN = (torch.float32, torch.int64, torch.bool)
_COMPILED_FOR = (torch.float32, torch.bfloat16, torch.float64, torch.uint8, torch.uint16)


class Units(NamedTuple):
    """From the bank's pixels to the batch's values: ``value = pixel * scale + shift``, for each channel its own."""

    scale: Tensor
    """float32 ``(C, 1, ...)``, on the images' device."""
    shift: Tensor
    """Likewise."""

    @classmethod
    def between_integers(cls, like: Tensor, levels: float) -> "Units":
        """Make the units of integer batches, ``pixel * levels``; ``like`` is the scale of the floating-point ones."""
        return cls(like.new_full(like.shape, levels), like.new_zeros(like.shape))


def mix(images: Tensor, pixels: Tensor, draw: Draw, units: Units, out: Tensor | None = None) -> Tensor:
    """Compute ``(1 - lam) * images + lam * (pixels[index] * scale + shift)``, with a lambda an image.

    All ways compute in float32 (float64 for float64 images) and round once, to the images' dtype; they differ by how
    the last bit of an intermediate is rounded.

    Args:
        images: ``(N, C, *spatial)``, floating-point, uint8 or uint16; any memory format.
        pixels: ``(B, C, *spatial)``, uint8 or uint16: the bank.
        draw: lambdas and partners, tensors; ``from_batch`` says which of these are rows of ``images``.
        units: of the bank's pixels in the images' values.
        out: where to write; may be ``images`` itself. None: new memory.

    Returns:
        ``out``, or a tensor like ``images``. With gradients if the images require them; then ``out`` must be None.

    Raises:
        InputError: tensors that do not fit together, or are on several devices. Partners beyond the bank or the batch,
            which are looked for on the CPU; on other devices they are the caller's to exclude
            (:func:`~genmix_transforms.transforms.drawing.draw_of` does).
    """
    _check(images, pixels, draw, units, out)
    # The fast ways write into memory of their own choice, which neither a compiler, nor autograd, nor a subclass that
    # watches every operation (a FakeTensor, MONAI's MetaTensor) can follow; some tensors (functionalize's) have none.
    if (
        type(images) is Tensor
        and not torch.compiler.is_compiling()
        and _has_memory(images)
        and not (images.requires_grad and torch.is_grad_enabled())
    ):
        if fast_ways():
            if images.is_cpu:
                return _mix_on_cpu(images, pixels, draw, units, torch.empty_like(images) if out is None else out)
            fused = _fused_mix() if images.is_cuda else None
            if fused is not None:
                return fused(images, pixels, draw, *units, out=torch.empty_like(images) if out is None else out)
        elif images.is_cpu:
            _check_rows(draw, images.shape[0], pixels.shape[0])
    mixed = mix_plainly(images, pixels, draw, *units)
    if out is None:
        return mixed
    out.copy_(mixed)
    return out


@cache
def fast_ways() -> bool:
    """Return whether the fast ways may be taken, by the environment variable ``GENMIX_KERNELS``; it is read once.

    Raises:
        InputError: it says neither "auto" (the default) nor "eager".
    """
    asked = os.environ.get("GENMIX_KERNELS", "auto")
    if asked not in ("auto", "eager"):
        raise InputError(
            f"GenMix: the environment variable GENMIX_KERNELS must be auto or eager, got {asked!r}; "
            "leave it out for the fast ways"
        )
    return asked == "auto"


# What is checked


def _check(images: Tensor, pixels: Tensor, draw: Draw, units: Units, out: Tensor | None) -> None:
    """Check that shapes, dtypes and devices fit together: compiled code looks at none of them."""
    check_images(images, draw.lam, pixels.shape[1:])
    count, channels, device = images.shape[0], images.shape[1], images.device
    for values, dtype in zip(draw, _DRAWN, strict=True):
        if values is not None and (values.dtype != dtype or values.shape != (count,) or values.device != device):
            raise InputError(
                f"mix: a draw for {count} images must have {dtype} ({count},) on {device}, got {values.dtype} "
                f"{tuple(values.shape)} on {values.device}"
            )
    if pixels.dtype not in (torch.uint8, torch.uint16) or pixels.device != device:
        raise InputError(
            f"mix: pixels must be uint8 or uint16 on {device} as the images are, got {pixels.dtype} on {pixels.device}"
        )
    for values in units:
        if values.dtype != torch.float32 or values.numel() != channels or values.device != device:
            raise InputError(
                f"mix: units must be float32 for {channels} channels on {device}, got {values.dtype} "
                f"{tuple(values.shape)} on {values.device}; move a GenMix and its bank together, with genmix.to(device)"
            )
    if out is not None and (out.shape != images.shape or out.dtype != images.dtype or out.device != device):
        raise InputError(
            f"mix: out must be like the images, {tuple(images.shape)} {images.dtype} on {device}, "
            f"got {tuple(out.shape)} {out.dtype} on {out.device}"
        )


def _check_rows(draw: Draw, count: int, bank_size: int) -> None:
    """Check that every partner is in the bank or in the batch. All are on the CPU."""
    index, from_batch = draw.index.numpy(), draw.from_batch
    highest = bank_size if from_batch is None else np.where(from_batch.numpy(), count, bank_size)
    if ((index < 0) | (index >= highest)).any():
        raise InputError(f"mix: partners are outside the bank ({bank_size} images) or the batch ({count})")


def _has_memory(tensor: Tensor) -> bool:
    """Return whether a tensor has memory of its own; those that functorch wraps have none."""
    try:
        return bool(tensor.data_ptr()) or not tensor.numel()
    except RuntimeError:
        return False


def can_be_array(tensor: Tensor) -> bool:
    """Return whether a tensor can be read in this process's memory, and nobody follows what is done with it."""
    plain = tensor.is_cpu and type(tensor) is Tensor and not tensor.requires_grad and not tensor.is_neg()
    return plain and _has_memory(tensor)


# On the CPU

_is_forked = False
_numba_fails = False


def _mix_on_cpu(images: Tensor, pixels: Tensor, draw: Draw, units: Units, out: Tensor) -> Tensor:
    if draw.from_batch is None:
        return _mix_with_rows(images, pixels, draw, units, out)
    _check_rows(draw, images.shape[0], pixels.shape[0])
    lam, index, from_batch = draw.lam, draw.index, draw.from_batch
    own = from_batch.nonzero().flatten()
    # Before anything is written: in place, a partner may be an image that has been mixed already.
    mixed = mix_images(images[own], images[index[own]], lam[own])
    _mix_with_rows(images, pixels, Draw(lam, torch.where(from_batch, 0, index), None), units, out)
    bits = torch.int16 if out.dtype == torch.uint16 else out.dtype  # torch puts no uint16 in its place
    out.view(bits)[own] = mixed.view(bits)
    return out


def _mix_with_rows(images: Tensor, pixels: Tensor, draw: Draw, units: Units, out: Tensor) -> Tensor:
    """Mix with partners of the bank, all of them."""
    compiled = _compiled_mix() if _is_compiled_for(images, pixels, out) else None
    if compiled is not None:
        try:
            if compiled(images, pixels, draw, *units, out=out, threads=_threads_for(images.numel())):
                return out
        except Exception as error:  # of the compiler: compiled code itself raises nothing
            _leave_numba(error)
    _check_rows(draw, images.shape[0], pixels.shape[0])
    return mix_in_pieces(images, pixels, draw, *units, out=out)


def _is_compiled_for(images: Tensor, pixels: Tensor, out: Tensor) -> bool:
    """Return whether these layouts and dtypes are compiled for: contiguous, and anything but float16."""
    return (
        images.dtype in _COMPILED_FOR
        and not images.is_neg()
        and images.is_contiguous()
        and pixels.is_contiguous()
        and (out is images or out.is_contiguous())
    )


def _compiled_mix() -> Callable[..., bool] | None:
    """Return the way of Numba, which is an extra; None: it is not there, does not work, or is told not to compile."""
    return None if _numba_fails else _import_numba_way()


@cache
def _import_numba_way() -> Callable[..., bool] | None:
    if find_spec("numba") is None or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return None
    try:
        from genmix_transforms.transforms.mix_numba import mix_compiled
    except Exception as error:  # it has not caught up with this NumPy, or is broken in any other way
        _leave_numba(error)
        return None
    return mix_compiled


def _leave_numba(error: Exception) -> None:
    """Go on without Numba, in this process, and say so once."""
    global _numba_fails
    if not _numba_fails:
        _numba_fails = True
        warnings.warn(
            f"GenMix: Numba is installed and does not work ({type(error).__name__}: {error}): mixing goes without it",
            stacklevel=2,
        )


def _threads_for(values: int) -> int:
    """Return how many threads share so many values: torch's, if there is enough to do for each; one after a fork."""
    return 1 if _is_forked or values < 2 * GRAIN else min(torch.get_num_threads(), values // GRAIN)


def _after_fork() -> None:
    """Remember the fork: threads do not come along, and a process that called upon its parent's would wait for ever."""
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# On CUDA


@cache
def _fused_mix() -> Callable[..., Tensor] | None:
    """Return the way of Triton, which torch for Linux brings; None: it is not there."""
    if find_spec("triton") is None:
        return None
    from genmix_transforms.transforms.mix_triton import mix_fused

    return mix_fused
