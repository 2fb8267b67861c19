"""The mix by torch's own operations: the plain way, on any device, and the way in pieces, on the CPU without Numba."""

import torch
from torch import Tensor

from genmix_transforms.bank.rows import take_rows
from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.functional import dequantise, mix_images

PIECE = 1 << 18
"""Values in a piece: its float32 buffer is then of the size of a core's second-level cache."""


def mix_plainly(images: Tensor, pixels: Tensor, draw: Draw, scale: Tensor, shift: Tensor) -> Tensor:
    """Mix by plain operations: differentiable, on any device, in one graph under ``torch.compile``.

    See :func:`genmix_transforms.transforms.mix.mix`.
    """
    lam, index, from_batch = draw
    # Rows that are not meant for the bank (or the batch) look up row 0 there; what they find is not used.
    bank_index = index if from_batch is None else torch.where(from_batch, 0, index)
    partners = take_rows(pixels, bank_index)
    if images.dtype == torch.float64:
        partners = partners.double().mul_(scale).add_(shift)
    else:
        partners = dequantise(partners, scale, shift)
    if from_batch is not None:
        own = take_rows(images, torch.where(from_batch, index, 0))
        choose = from_batch.view(-1, *[1] * (images.ndim - 1))
        partners = torch.where(choose, own.to(torch.promote_types(own.dtype, torch.float32)), partners)
    return mix_images(images, partners, lam)


def mix_in_pieces(images: Tensor, pixels: Tensor, draw: Draw, scale: Tensor, shift: Tensor, *, out: Tensor) -> Tensor:
    """Mix on the CPU with partners of the bank, a few images at a time; ``out`` may be ``images``.

    A piece is gathered, dequantized and mixed while it is in the cache. Whole-batch passes go through memory five to
    nine times. Here the batch is read once, the bank's bytes once, and the output is written once; everything between
    lives in a buffer of about a megabyte. See :func:`genmix_transforms.transforms.mix.mix`.
    """
    count = len(images)
    if images.numel() == 0:
        return out
    lam, index, _ = draw
    compute = torch.float64 if images.dtype == torch.float64 else torch.float32
    affine = list(zip(scale.flatten().tolist(), shift.flatten().tolist(), strict=True))
    several = min(count, max(1, PIECE // images[0].numel()))
    weight = lam.to(compute).view(-1, *[1] * (images.ndim - 1))
    buffer = torch.empty_like(images[:several], dtype=compute)
    direct = images.dtype == compute
    for start in range(0, count, several):
        piece = slice(start, min(count, start + several))
        real, partners = images[piece], buffer[: piece.stop - start]
        partners.copy_(pixels.index_select(0, index[piece]) if several > 1 else pixels[int(index[start])])
        _affine(partners, affine)
        if direct:
            torch.lerp(real, partners, weight[piece], out=out[piece])
        else:
            torch.lerp(real.to(compute), partners, weight[piece], out=partners)
            if not images.is_floating_point():
                partners.round_()
            out[piece].copy_(partners)
    return out


def _affine(values: Tensor, units: list[tuple[float, float]]) -> None:
    """Compute ``values * scale + shift``, in place, in one pass."""
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
