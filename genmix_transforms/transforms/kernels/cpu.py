"""The mix on the CPU, a few images at a time: a piece is gathered, dequantised and mixed while it is in the cache.

Whole-batch passes go through memory five to nine times. Here the batch is read once, the bank's bytes once, and the
output written once; everything between lives in a buffer of about a megabyte.
"""

import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels.units import Units

PIECE = 1 << 18
"""Values in a piece: its float32 buffer is then of the size of a core's second-level cache."""


def mix_in_pieces(
    images: Tensor,
    pixels: Tensor,
    drawn: Draw,
    units: Units,
    *,
    out: Tensor,
) -> Tensor:
    """See :func:`genmix_transforms.transforms.kernels.mix_with_bank`; ``out`` may be ``images``."""
    count = len(images)
    if images.numel() == 0:
        return out
    lam, index, from_batch = drawn.tensors()
    compute = torch.float64 if images.dtype == torch.float64 else torch.float32
    affine = list(zip(*(values.flatten().tolist() for values in units), strict=True))
    # Before anything is written: in place, a partner may be an image that has been mixed already.
    own = None if from_batch is None else images.index_select(0, index[from_batch])
    own_taken = 0
    several = min(count, max(1, PIECE // images[0].numel()))
    weight = lam.to(compute).view(-1, *[1] * (images.ndim - 1))
    buffer = torch.empty_like(images[:several], dtype=compute)
    direct = images.dtype == compute
    for start in range(0, count, several):
        piece = slice(start, min(count, start + several))
        real, partners = images[piece], buffer[: piece.stop - start]
        if from_batch is None:
            partners.copy_(pixels.index_select(0, index[piece]) if several > 1 else pixels[int(index[start])])
        else:
            chosen = from_batch[piece]
            partners.copy_(pixels.index_select(0, torch.where(chosen, 0, index[piece])))
        _affine(partners, affine)
        if own is not None:
            taken = int(chosen.sum())
            partners[chosen] = own[own_taken : own_taken + taken].to(compute)
            own_taken += taken
        if direct:
            torch.lerp(real, partners, weight[piece], out=out[piece])
        else:
            torch.lerp(real.to(compute), partners, weight[piece], out=partners)
            if not images.is_floating_point():
                partners.round_()
            out[piece].copy_(partners)
    return out


def _affine(values: Tensor, units: list[tuple[float, float]]) -> None:
    """``values * scale + shift``, in place, in one pass."""
    if units.count(units[0]) == len(units):
        _affine_of_one(values, *units[0])
        return
    for channel, (scale, shift) in enumerate(units):
        _affine_of_one(values[:, channel], scale, shift)


def _affine_of_one(values: Tensor, scale: float, shift: float) -> None:
    if shift == 0:
        if scale != 1:
            values.mul_(scale)
    else:
        torch.add(torch.tensor(shift, dtype=values.dtype, device="cpu"), values, alpha=scale, out=values)
