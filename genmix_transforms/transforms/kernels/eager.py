"""The mix by plain tensor operations: differentiable, on any device, in one graph under ``torch.compile``."""

import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.functional import mix_images
from genmix_transforms.transforms.kernels.units import Units


def mix_plainly(
    images: Tensor,
    pixels: Tensor,
    drawn: Draw,
    units: Units,
) -> Tensor:
    """See :func:`genmix_transforms.transforms.kernels.mix_with_bank`."""
    lam, index, from_batch = drawn.tensors()
    # Rows that are not meant for the bank (or the batch) look up row 0 there; what they find is not used.
    bank_index = index if from_batch is None else torch.where(from_batch, 0, index)
    compute = torch.float64 if images.dtype == torch.float64 else torch.float32
    partners = pixels.index_select(0, bank_index).to(compute).mul_(units.scale).add_(units.shift)
    if from_batch is not None:
        own = images.index_select(0, torch.where(from_batch, index, 0))
        choose = from_batch.view(-1, *[1] * (images.ndim - 1))
        partners = torch.where(choose, own.to(torch.promote_types(own.dtype, torch.float32)), partners)
    return mix_images(images, partners, lam)
