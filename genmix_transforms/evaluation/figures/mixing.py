"""Which patches figures show, what a transform makes of them, and a picture of both that needs no plotting library."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.files.images import HIGHEST_PIXEL
from genmix_transforms.files.sheet import draw_sheet
from genmix_transforms.transforms import GenMix, functional

_CELL = 96
"""About how many pixels wide a patch is shown."""


def mixing_figure(
    train: PatchDataset, bank: SyntheticBank, *, genmix: GenMix, per_class: int = 4, seed: int = 0
) -> Image.Image:
    """Real, synthetic and mixed patches, a row for each class: the paper's Fig. 3.

    The mixed patches are what ``genmix`` makes of the real patches beside them, in their order. A class with fewer than
    ``per_class`` images leaves its places white. Volumes show their middle slices.

    Args:
        train: the real patches.
        bank: the synthetic ones; with the same classes, in any order.
        genmix: the transform, in whatever normalization it was built for; it is left as it was, and so are torch's
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
    per_class, seed = whole_number(per_class, name="per_class", least=1), check_seed(seed)
    bank = bank.with_classes(train.classes)
    check_alike(train, bank, what="the bank")
    check_alike(train, genmix.bank, what="genmix")
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


def check_alike(train: PatchDataset, bank: SyntheticBank, *, what: str) -> None:
    """Check that a bank has the classes and the shape of the data.

    Args:
        train: the data.
        bank: of a figure, or of a transform in it.
        what: the bank is of, for the message.
    """
    if bank.classes != train.classes:
        raise InputError(
            f"{what}: the data's classes are {', '.join(train.classes)}, the bank's {', '.join(bank.classes)}: "
            "build GenMix with bank.with_classes(train.classes)"
        )
    if bank.image_shape != tuple(train.images.shape[1:]):
        raise InputError(
            f"{what}: the patches are {' x '.join(map(str, train.images.shape[1:]))} (C x H x W), the bank's "
            f"{' x '.join(map(str, bank.image_shape))}: resize one to the other"
        )


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What GenMix made of some patches, on the CPU.

    Args:
        values: float32 ``(N, C, *spatial)`` in [0, 1], whatever normalization the transform was built for.
        labels: float32 ``(N, K)``.
        lam: float32 ``(N,)``, the weight of the partner.
        index: int64 ``(N,)``, the partner's row in the bank or, where ``from_batch``, among the patches.
        from_batch: bool ``(N,)``.
    """

    values: Tensor
    labels: Tensor
    lam: Tensor
    index: Tensor
    from_batch: Tensor


def choose(of_class: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """At most ``count`` places, int64, where ``of_class`` is true, each once."""
    places = np.flatnonzero(of_class.cpu().numpy())
    return torch.from_numpy(random.permutation(places)[:count].astype(np.int64))


def mix(pixels: Tensor, labels: Tensor, genmix: GenMix, *, seed: int) -> Mixed:
    """Integer patches ``(N, C, *spatial)`` through ``genmix``, which stays as it was."""
    device = genmix.bank.device
    # A copy that shares the bank: the caller's transform keeps its mode, and its generator its place.
    transform = copy.copy(genmix)
    transform.training, transform.inplace = True, False
    transform.generator = torch.Generator(device).manual_seed(seed)
    # genmix.scale is of its bank's pixels; the patches may have another depth.
    highest = HIGHEST_PIXEL[genmix.bank.pixel_dtype]
    scale = genmix.scale * highest
    values = functional.dequantise(pixels.to(device), scale / HIGHEST_PIXEL[pixels.dtype], genmix.shift)
    mixed, soft = transform(values, labels.to(device))
    unit = ((mixed - genmix.shift) / scale).clamp(0, 1)
    drawn = transform.params
    assert drawn is not None  # it was called
    return Mixed(
        values=unit.cpu(),
        labels=soft.cpu(),
        lam=drawn["lam"].cpu(),
        index=drawn["index"].cpu(),
        from_batch=drawn["from_batch"].cpu(),
    )


def hard_labels(bank: SyntheticBank) -> Tensor:
    """The class of each image of a bank, int64 ``(N,)`` on the CPU: of soft labels, the largest."""
    labels = bank.labels.cpu()
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


def rows_of(bank: SyntheticBank, index: Tensor) -> Tensor:
    """Images of a bank by number, on the CPU; of one larger than memory, only these are read."""
    images: Tensor = bank.rows(index.to(bank.device))
    return images.cpu()


def in_eight_bits(pixels: Tensor) -> Tensor:
    """Integer patches as uint8: black and white stay black and white."""
    return to_pixels(in_unit(pixels))


def to_pixels(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return (values * 255).round().to(torch.uint8)


def in_unit(pixels: Tensor) -> Tensor:
    """Integer patches as float32 in [0, 1]."""
    return pixels.float() / HIGHEST_PIXEL[pixels.dtype]


def _filled_up(images: Tensor, count: int) -> Tensor:
    white = torch.full((count - len(images), *images.shape[1:]), 255, dtype=torch.uint8)
    return torch.cat([images, white])
