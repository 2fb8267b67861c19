"""How varied a bank's images are: their likeness in pairs (MS-SSIM), and how many different ones there are (Vendi)."""

import math
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.evaluation.audit.halving import Halving
from genmix_transforms.evaluation.audit.measured import Measured, bootstrap_mean, from_draws
from genmix_transforms.files.images import HIGHEST_PIXEL

VENDI_IMAGES = 300
"""Of a draw: eigenvalues of a larger matrix take too long for their use."""

PAIRS = 200
"""At most, of each class."""

# Of Wang, Simoncelli, Bovik (2003), from the finest scale to the coarsest.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11
_BATCH = 64


def vendi_score(features: Tensor) -> float:
    """The effective number of different images: 1 if all are alike, N if none has anything in common with another.

    It is the exponential of the entropy of the eigenvalues of K / N, K the cosines between the features.

    Args:
        features: ``(N, D)``, at least one image.

    Raises:
        InputError: no images.

    Source: Friedman, Dieng, arXiv 2210.02410, Eq. 1 and 2.

    Example:
        >>> round(vendi_score(torch.eye(4)), 6), round(vendi_score(torch.ones(4, 3)), 6)
        (4.0, 1.0)
    """
    if features.ndim != 2 or not len(features):
        raise InputError(f"vendi_score: features must be (N, D), at least one image, got {tuple(features.shape)}")
    rows = features.double()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    # A row of zeros is like others of zeros, and like nothing else: a direction of its own.
    rows = torch.cat([rows, (rows.norm(dim=1, keepdim=True) < 0.5).double()], dim=1)
    small = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows  # the same eigenvalues but for zeros
    values = torch.linalg.eigvalsh(small / len(rows)).clamp_min(0)
    values = values[values > 0]
    return math.exp(-(values * values.log()).sum().item())


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """How alike images are in pairs, at several scales: 1 the same, 0 nothing in common.

    Patches of 64 pixels have no five scales of windows of 11 pixels: of so many as there are, the weights are made to
    add up to 1.

    Args:
        first: integers ``(N, C, H, W)``, at least 11 pixels high and wide.
        second: likewise.

    Returns:
        float64 ``(N,)``.

    Raises:
        InputError: smaller images, or of different shapes or dtypes.
        MissingExtraError: torchmetrics is not installed.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity" (2003), as torchmetrics computes it.

    Example:
        >>> image = torch.randint(0, 255, (1, 1, 32, 32), dtype=torch.uint8)
        >>> round(ms_ssim(image, image).item(), 4)
        1.0
    """
    try:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
    except ImportError as error:
        raise MissingExtraError.naming("torchmetrics", extra="evaluate", needed_by="MS-SSIM") from error

    if first.shape != second.shape or first.dtype != second.dtype or first.dtype not in HIGHEST_PIXEL:
        raise InputError(f"ms_ssim: images must be of one shape and dtype, got {first.dtype} and {second.dtype}")
    scales = ssim_scales(min(first.shape[-2:]))
    if not scales:
        raise InputError(f"ms_ssim: images must have at least {_WINDOW} pixels a side, got {tuple(first.shape[-2:])}")
    weights = tuple(weight / sum(_WEIGHTS[:scales]) for weight in _WEIGHTS[:scales])
    highest = HIGHEST_PIXEL[first.dtype]
    found = [torch.empty(0, dtype=torch.float64)]
    for ours, theirs in zip(first.split(_BATCH), second.split(_BATCH), strict=True) if len(first) else ():
        values = multiscale_structural_similarity_index_measure(
            ours.float() / highest,
            theirs.float() / highest,
            kernel_size=_WINDOW,
            betas=weights,
            data_range=1.0,
            normalize="relu",
            reduction="none",
        )
        found.append(values.flatten().double())
    return torch.cat(found)


def ssim_scales(side: int) -> int:
    """How many times images of this side can be halved and still hold a window, the first time counted; at most 5.

    Example:
        >>> ssim_scales(10), ssim_scales(28), ssim_scales(64), ssim_scales(256)
        (0, 2, 3, 5)
    """
    return sum(side // 2**halved >= _WINDOW for halved in range(len(_WEIGHTS)))


def draw_pairs(count: int, groups: Tensor | None, *, seed: int, most: int = PAIRS) -> Tensor:
    """Pairs of images of different groups at random, int64 ``(n, 2)``; no image is in two: they are independent.

    Example:
        >>> len(draw_pairs(6, None, seed=0)), len(draw_pairs(6, torch.zeros(6, dtype=torch.int64), seed=0))
        (3, 0)
    """
    order = np.random.default_rng(seed).permutation(count)
    of = np.arange(count) if groups is None else groups.numpy()
    waiting: list[int] = []
    pairs = []
    for one in order.tolist():
        partner = next((other for other in waiting if of[other] != of[one]), None)
        if partner is None:
            waiting.append(one)
        else:
            waiting.remove(partner)
            pairs.append((partner, one))
    return torch.tensor(pairs[:most], dtype=torch.int64).view(-1, 2)


def measure_likeness(real: Tensor, groups: Tensor | None, bank: Tensor, *, seed: int) -> Measured:
    """MS-SSIM of pairs of a bank's images of one class, beside that of pairs of real ones of different groups.

    Args:
        real: integers ``(N, C, H, W)``, of one class.
        groups: int64 ``(N,)``, or None.
        bank: integers ``(M, C, H, W)``, of that class.
        seed: of the pairs, and of the bootstrap over them.
    """
    name = "MS-SSIM of pairs"
    if not ssim_scales(min(real.shape[-2:])):
        return Measured(name=name, better="like real", refused=f"images have fewer than {_WINDOW} pixels a side")
    if find_spec("torchmetrics") is None:
        reason = "torchmetrics is not installed: pip install 'genmix-transforms[evaluate]'"
        return Measured(name=name, better="like real", refused=reason)
    found: list[float] = []
    for images, of in ((bank, None), (real, groups)):
        pairs = draw_pairs(len(images), of, seed=seed)
        found += bootstrap_mean(ms_ssim(images[pairs[:, 0]], images[pairs[:, 1]]), seed=seed)
    if math.isnan(found[0]):
        return Measured(name=name, better="like real", refused="fewer than two images")
    return _of(name, found)


def mean_likeness(classes: Sequence[Measured]) -> Measured:
    """MS-SSIM over all classes, each counting the same; the interval is as wide as independent classes make it."""
    known = [one for one in classes if not one.refused and not math.isnan(one.real)]
    if not known:
        return Measured(name="MS-SSIM of pairs", better="like real", refused="no class has it")
    found: list[float] = []
    for value, low, high in (("value", "low", "high"), ("real", "real_low", "real_high")):
        mean = sum(getattr(one, value) for one in known) / len(known)
        down, up = (
            math.sqrt(sum((getattr(one, end) - getattr(one, value)) ** 2 for one in known)) / len(known)
            for end in (low, high)
        )
        found += [mean, mean - down, mean + up]
    return _of(known[0].name, found)


def _of(name: str, numbers: Sequence[float]) -> Measured:
    value, low, high, real, real_low, real_high = numbers
    return Measured(
        name=name, value=value, low=low, high=high, real=real, real_low=real_low, real_high=real_high,
        better="like real",
    )  # fmt: skip


def measure_vendi(real: Tensor, bank: Tensor, halves: Sequence[Halving], *, seed: int) -> Measured:
    """The Vendi score of a bank, beside that of as many real images.

    Args:
        real: features ``(N, D)``.
        bank: features ``(M, D)``.
        halves: whose parts are measured: at most 300 images of each.
        seed: of the choice of those.
    """
    if min((len(half.bank) for half in halves), default=0) < 2:
        return Measured(name="Vendi score", better="like real", refused="a half has fewer than 2 images")
    ours, theirs = [], []
    for number, half in enumerate(halves):
        some = np.random.default_rng([seed, number]).permutation(len(half.bank))[:VENDI_IMAGES]
        ours.append(vendi_score(bank[half.bank[some]]))
        theirs.append(vendi_score(real[half.real[some]]))
    return from_draws("Vendi score", ours, theirs, better="like real")
