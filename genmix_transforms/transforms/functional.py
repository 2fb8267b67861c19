"""GenMix without a class and without random numbers: Eq. (1) of the paper, and the law of its lambda."""

import torch
from torch import Tensor

from genmix_transforms.errors import InputError


def draw_lambda(
    count: int, *, alpha: float, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """Draw lambda ~ Beta(alpha, 1), whose inverse distribution function is ``u ** (1 / alpha)``.

    Args:
        count: how many.
        alpha: 0.3 in the paper; then the mean is 0.231, and the synthetic image is the weaker part.
        device: where to draw.
        generator: of the draws, on that device; None: torch's global one.

    Returns:
        float32 ``(count,)`` in [0, 1].
    """
    return torch.rand(count, device=device, generator=generator).pow_(1 / alpha)


def genmix(
    images: Tensor, labels: Tensor, partners: Tensor, partner_labels: Tensor, lam: Tensor
) -> tuple[Tensor, Tensor]:
    """Mix, Eq. (1): ``x_T = lam * x_S + (1 - lam) * x_R``, and the labels likewise. ``lam`` weights the partner.

    Args:
        images: ``(N, C, *spatial)``, float.
        labels: ``(N, K)``, float32.
        partners: like ``images``.
        partner_labels: like ``labels``.
        lam: ``(N,)``, float32, in [0, 1].

    Returns:
        The mixed images, of the images' dtype, and the mixed labels, float32 ``(N, K)``.

    Source: Lee, Lee, Hong (arXiv 2405.20650), Eq. (1).

    Example:
        >>> x, y = genmix(torch.zeros(1, 1, 2, 2), torch.tensor([[1.0, 0.0]]),
        ...               torch.ones(1, 1, 2, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([0.25]))
        >>> x.flatten().tolist(), y.tolist()
        ([0.25, 0.25, 0.25, 0.25], [[0.75, 0.25]])
    """
    return mix_images(images, partners, lam), mix_labels(labels, partner_labels, lam)


def mix_images(images: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """``lam * partners + (1 - lam) * images``, a lambda an image; computed in float32 at least, dtype kept.

    float16 and bfloat16 images are rounded once, at the end, so that they are mixed by the same lambda as their labels.
    """
    weight = lam.view(-1, *[1] * (images.ndim - 1))
    if images.dtype in (torch.float32, torch.float64):
        return torch.lerp(images, partners.to(images.dtype), weight.to(images.dtype))
    return torch.lerp(images.float(), partners.float(), weight).to(images.dtype)


def mix_labels(labels: Tensor, partner_labels: Tensor, lam: Tensor) -> Tensor:
    """``lam * partner_labels + (1 - lam) * labels``, float32 ``(N, K)``."""
    return torch.lerp(labels, partner_labels, lam[:, None])


def soft_labels(labels: Tensor, *, num_classes: int) -> Tensor:
    """Labels of any form as float32 ``(N, K)``.

    Args:
        labels: ``(N,)`` or ``(N, 1)`` of whole numbers, or ``(N, K)`` one-hot, soft, multi-hot or boolean.
        num_classes: K.

    Raises:
        InputError: another shape, floats ``(N,)``, or (on the CPU, where looking costs nothing; not under
            ``torch.compile``, which cannot branch on values) an index out of range.
    """
    if labels.ndim == 2 and labels.shape[1] == 1 and not labels.is_floating_point() and num_classes != 1:
        labels = labels.squeeze(1)
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise InputError(
                f"labels of shape (N, K) must have a column a class, got {tuple(labels.shape)} "
                f"for {num_classes} classes"
            )
        return labels.float()
    if labels.ndim != 1:
        raise InputError(f"labels must be of shape (N,) or (N, {num_classes}), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"labels of shape (N,) must be class indices, whole numbers, got {labels.dtype}; "
            f"give probabilities as (N, {num_classes})"
        )
    labels = labels.long()
    # On CUDA a look would make the host wait for the device; there the comparison below leaves an empty row.
    if labels.device.type == "cpu" and not torch.compiler.is_compiling() and labels.numel():
        low, high = labels.aminmax()
        if low < 0 or high >= num_classes:
            raise InputError(f"labels run from {int(low)} to {int(high)}, but there are {num_classes} classes")
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


def dequantise(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Integer pixels ``(N, C, *spatial)`` to float32 ``pixel * scale + shift``; scale and shift are ``(C, 1, ...)``."""
    return pixels.float().mul_(scale).add_(shift)


def row_of(labels: Tensor, matrix: Tensor) -> Tensor:
    """The partner-class probabilities of each sample: its labels' weighted mean of the matrix's rows, ``(N, K)``.

    Args:
        labels: float32 ``(N, K)``; rows need not sum to 1 (multi-hot).
        matrix: row-stochastic ``(K, K)``.
    """
    return labels @ matrix


def draw_partner(
    probabilities: Tensor, class_start: Tensor, class_count: Tensor, *, class_draw: Tensor, image_draw: Tensor
) -> Tensor:
    """From uniform numbers to rows of the bank: first the class, then an image of it, uniformly.

    Args:
        probabilities: ``(N, K)``, weights of the classes; rows need not sum to 1. A row of zeros (a sample that has
            none of the labels) draws from the whole bank.
        class_start: int64 ``(K,)``, where each class begins in the bank.
        class_count: int64 ``(K,)``, how many images it has.
        class_draw: ``(N,)``, uniform in [0, 1).
        image_draw: likewise.

    Returns:
        int64 ``(N,)``.
    """
    weights = torch.where((probabilities > 0).any(dim=1, keepdim=True), probabilities.clamp(min=0), class_count)
    cumulative = weights.double().cumsum(dim=1)
    target = class_draw.double() * cumulative[:, -1]
    # The first class whose cumulated weight passes the target: a class of weight 0 is never the first to pass it.
    chosen = (cumulative <= target[:, None]).sum(dim=1).clamp_(max=probabilities.shape[1] - 1)
    count = class_count[chosen]
    # The product may round up to the count itself.
    offset = torch.minimum((image_draw.double() * count).long(), count - 1).clamp_(min=0)
    return class_start[chosen] + offset
