"""The draw and the labels of a batch on the CPU, compiled by Numba; the images are :mod:`.compiled`'s."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import Classes, Draw, Options
from genmix_transforms.transforms.labels import refuse_out_of_range

_NO_CLASSES = Classes(np.empty((0, 0), dtype=np.float32), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
_NO_LABELS = np.empty(0, dtype=np.int64)
_NOT = np.empty(0, dtype=np.bool_)


@cache
def step() -> Any:
    """The loops. Numba is imported here."""
    from genmix_transforms.transforms.kernels import numba_draw

    return numba_draw.step


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
        uniform: float64 ``(N, COLUMNS)``.
        labels: class indices int64 ``(N,)``, or float32 rows ``(N, K)``.
        bank_labels: likewise, of the bank.
        classes: arrays; None: every image of the bank equally often.
        bank_size: how many images the bank has.
        num_classes: K.
        options: of the GenMix.

    Returns:
        The draw, and float32 ``(N, K)`` in memory of its own.

    Raises:
        InputError: an index out of range.
    """
    count = uniform.shape[0]
    lam, index = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.int64)
    from_batch = np.empty(count, dtype=np.bool_) if options.real_partner else _NOT
    cumulative, start, counts = _NO_CLASSES if classes is None else classes
    if labels.ndim == 1:
        indices, rows = labels.numpy(), np.empty((count, num_classes), dtype=np.float32)
    else:
        indices, rows = _NO_LABELS, np.array(labels.numpy(), order="C")
    in_range = step()(
        uniform.numpy(), indices, rows, bank_labels.numpy(), cumulative, start, counts, bank_size, options.alpha,
        options.p, options.real_partner, options.per_sample, classes is not None, options.some_have_no_partner,
        lam, index, from_batch,
    )  # fmt: skip
    if not in_range:
        refuse_out_of_range(labels, num_classes)
    return Draw(lam, index, from_batch if options.real_partner else None), torch.from_numpy(rows)
