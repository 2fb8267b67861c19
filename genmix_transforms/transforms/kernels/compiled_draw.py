"""The draw and the labels of a batch on the CPU, compiled by Numba; the images are :mod:`.compiled`'s."""

from functools import cache

import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import COLUMNS, Classes, Draw, Options
from genmix_transforms.transforms.kernels.native import Function, Layout, address
from genmix_transforms.transforms.labels import refuse_out_of_range


@cache
def loop(*, soft_bank: bool) -> tuple[Function, Layout]:
    """The compiled loop, and how its task is packed. Numba is imported here."""
    from genmix_transforms.transforms.kernels import numba_draw

    return numba_draw.drawing(soft_bank=soft_bank), numba_draw.TASK


def draw_and_mix_labels(
    uniform: Tensor,
    labels: Tensor,
    bank_labels: Tensor,
    classes: Classes | None,
    *,
    bank_size: int,
    num_classes: int,
    options: Options,
) -> tuple[Draw, Tensor]:
    """What :func:`genmix_transforms.transforms.drawing.draw` draws, and the labels mixed by it.

    Args:
        uniform: float64 ``(N, COLUMNS)``; like all tensors here contiguous and on the CPU, but for the labels.
        labels: class indices int64 ``(N,)``, or float32 rows ``(N, K)``.
        bank_labels: likewise, of the bank.
        classes: tensors; None: every image of the bank equally often.
        bank_size: how many images the bank has.
        num_classes: K.
        options: of the GenMix.

    Returns:
        The draw, and float32 ``(N, K)`` in memory of its own.

    Raises:
        InputError: an index out of range.
    """
    count = uniform.shape[0]
    lam = torch.empty(count, dtype=torch.float32, device="cpu")
    index = torch.empty(count, dtype=torch.int64, device="cpu")
    from_batch = torch.empty(count, dtype=torch.bool, device="cpu") if options.real_partner else None
    if labels.ndim == 1:
        labels = labels.contiguous()
        rows = torch.empty((count, num_classes), dtype=torch.float32, device="cpu")
    else:
        rows = labels.clone(memory_format=torch.contiguous_format)
    if count == 0:
        return Draw(lam, index, from_batch), rows
    own = None if from_batch is None else torch.empty_like(rows)
    label_dtype = torch.int64 if bank_labels.ndim == 1 else torch.float32
    function, layout = loop(soft_bank=bank_labels.ndim == 2)
    task = layout.pack(
        address(uniform, torch.float64), COLUMNS, count, num_classes,
        address(labels, torch.int64) if labels.ndim == 1 else 0, address(rows, torch.float32),
        0 if own is None else address(own, torch.float32),
        address(bank_labels, label_dtype), bank_size,
        *((0, 0, 0) if classes is None else map(address, classes, (torch.float32, torch.int64, torch.int64))),
        address(lam, torch.float32), address(index, torch.int64),
        0 if from_batch is None else address(from_batch, torch.bool),
        options.alpha, options.p, options.real_partner, options.per_sample, options.some_have_no_partner,
    )  # fmt: skip
    if not function(task):
        refuse_out_of_range(labels, num_classes)
    return Draw(lam, index, from_batch), rows
