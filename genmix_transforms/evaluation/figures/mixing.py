"""Real, synthetic and mixed patches of one bank, as a picture of pixels: it needs no plotting library."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures.patches import choose, hard_labels, in_eight_bits, mix, rows_of, to_pixels
from genmix_transforms.files.sheet import draw_sheet
from genmix_transforms.transforms import GenMix

_CELL = 96
"""About how many pixels wide a patch is shown."""


def mixing_figure(
    train: PatchDataset, bank: SyntheticBank, *, genmix: GenMix, per_class: int = 4, seed: int = 0
) -> Image.Image:
    """Real, synthetic and mixed patches, a row for each class: the paper's Fig. 3.

    The mixed patches are what ``genmix`` makes of the real patches beside them, in their order. A class with fewer than
    ``per_class`` images leaves its places white.

    Args:
        train: the real patches.
        bank: the synthetic ones; with the same classes, in any order.
        genmix: the transform, in whatever normalisation it was built for; it is left as it was, and so are torch's
            random numbers.
        per_class: patches of each kind.
        seed: which patches are shown, and the draw of the mix.

    Returns:
        An RGB picture.

    Raises:
        InputError: classes or shapes that do not fit together, or ``per_class`` below 1.

    Source: Lee, Lee, Hong (arXiv 2405.20650), Fig. 3.

    Example:
        >>> train = PatchDataset(images=torch.zeros(2, 1, 16, 16, dtype=torch.uint8), labels=torch.tensor([0, 1]),
        ...                      classes=("cyst", "metastasis"))
        >>> bank = SyntheticBank(train.images, train.labels, classes=train.classes)
        >>> mixing_figure(train, bank, genmix=GenMix(bank), per_class=1).mode
        'RGB'
    """
    if per_class < 1:
        raise InputError(f"per_class must be at least 1, got {per_class}")
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    bank = bank.with_classes(train.classes)
    if genmix.bank.classes != train.classes:
        raise InputError(
            f"the data's classes are {', '.join(train.classes)}, those of genmix's bank "
            f"{', '.join(genmix.bank.classes)}: build GenMix with bank.with_classes(train.classes)"
        )
    for what, shape in (("bank's", bank.image_shape), ("images of genmix's bank", genmix.bank.image_shape)):
        if shape != tuple(train.images.shape[1:]):
            raise InputError(
                f"the patches are {' x '.join(map(str, train.images.shape[1:]))} (C x H x W), the {what} "
                f"{' x '.join(map(str, shape))}: resize one to the other"
            )
    random = np.random.default_rng(seed)
    chosen = [choose(train.labels == number, per_class, random) for number in range(len(train.classes))]
    bank_labels = hard_labels(bank)
    drawn = [choose(bank_labels == number, per_class, random) for number in range(len(train.classes))]
    # All classes in one batch: a partner from the batch is then not always of the same class.
    everything = torch.cat(chosen)
    mixed = mix(train.images[everything], train.labels[everything], genmix, seed=seed).values
    rows, start = [], 0
    for real, synthetic in zip(chosen, drawn, strict=True):
        parts = (
            in_eight_bits(train.images[real]),
            in_eight_bits(rows_of(bank, synthetic)),
            to_pixels(mixed[start : start + len(real)]),
        )
        real_part, synthetic_part, mixed_part = (_filled_up(part, per_class) for part in parts)
        gap = _filled_up(real_part[:0], 1)
        rows.append(torch.cat([real_part, gap, synthetic_part, gap, mixed_part]))
        start += len(real)
    headings = [("real", per_class), ("", 1), ("synthetic", per_class), ("", 1), ("GenMix", per_class)]
    magnify = max(1, round(_CELL / max(train.images.shape[-2:])))
    return draw_sheet(rows, list(train.classes), headings=headings, magnify=magnify)


def _filled_up(images: Tensor, count: int) -> Tensor:
    white = torch.full((count - len(images), *images.shape[1:]), 255, dtype=torch.uint8)
    return torch.cat([images, white])
