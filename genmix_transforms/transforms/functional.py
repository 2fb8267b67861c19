"""GenMix as pure functions: Eq. (1) of the paper, and the distribution of lambda."""

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.transforms.sample import index_or_rows, one_hot, one_hot_table


def draw_lambda(
    count: int, *, alpha: float, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """Draw lambda ~ Beta(alpha, 1), whose inverse distribution function is ``u ** (1 / alpha)``.

    Args:
        count: the number of draws.
        alpha: 0.3 in the paper. The mean is then 0.231, so the synthetic image has the smaller weight.
        device: where to draw.
        generator: the random generator, on that device; None: torch's global one.

    Returns:
        float32 ``(count,)`` in [0, 1].
    """
    return torch.rand(count, dtype=torch.float32, device=device, generator=generator).pow_(1 / alpha)


def genmix(
    images: Tensor, labels: Tensor, partners: Tensor, partner_labels: Tensor, lam: Tensor
) -> tuple[Tensor, Tensor]:
    """Mix by Eq. (1), ``x_T = lam * x_S + (1 - lam) * x_R``, and mix the labels in the same way. ``lam`` weights the
    partner.

    Args:
        images: ``(N, C, *spatial)``: floating-point, in any range; or uint8 or uint16.
        labels: ``(N, K)``, any dtype; indices become rows by :func:`soft_labels`.
        partners: like ``images``, with the same range, and with the same dtype if it is an integer.
        partner_labels: like ``labels``.
        lam: ``(N,)``, float32, in [0, 1].

    Returns:
        The mixed images, of the images' dtype (rounded if that is an integer); the mixed labels, float32 ``(N, K)``.

    Raises:
        InputError: shapes that do not match, or integer images with partners of a different dtype.

    Source: Lee, Lee, Hong (arXiv 2405.20650), Eq. (1).

    Example:
        >>> x, y = genmix(torch.zeros(1, 1, 2, 2), torch.tensor([[1.0, 0.0]]),
        ...               torch.ones(1, 1, 2, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([0.25]))
        >>> x.flatten().tolist(), y.tolist()
        ([0.25, 0.25, 0.25, 0.25], [[0.75, 0.25]])
    """
    if images.shape != partners.shape or lam.shape != images.shape[:1]:
        raise InputError(
            f"genmix: images and partners must be of one shape, and lam (N,), got {tuple(images.shape)}, "
            f"{tuple(partners.shape)} and {tuple(lam.shape)}"
        )
    if labels.ndim != 2 or labels.shape != partner_labels.shape or len(labels) != len(images):
        raise InputError(
            f"genmix: labels and partner_labels must be ({len(images)}, K), got {tuple(labels.shape)} and "
            f"{tuple(partner_labels.shape)}; soft_labels(labels, num_classes=K) makes rows of class indices"
        )
    if not images.is_floating_point() and images.dtype != partners.dtype:
        raise InputError(
            f"genmix: images of {images.dtype} are mixed with partners of the same dtype, got {partners.dtype}"
        )
    return mix_images(images, partners, lam), mix_labels(labels.float(), partner_labels.float(), lam)


def mix_images(images: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """Compute ``lam * partners + (1 - lam) * images``, with one lambda per image, at least in float32; the dtype is
    kept.

    float16, bfloat16 and integer images are rounded once, at the end, so that they are mixed by the same lambda as
    their labels.
    """
    weight = lam.view(-1, *[1] * (images.ndim - 1))
    if images.dtype in (torch.float32, torch.float64):
        return torch.lerp(images, partners.to(images.dtype), weight.to(images.dtype))
    mixed = torch.lerp(images.float(), partners.float(), weight)
    return mixed.to(images.dtype) if images.is_floating_point() else mixed.round_().to(images.dtype)


def mix_labels(labels: Tensor, partner_labels: Tensor, lam: Tensor) -> Tensor:
    """Compute ``lam * partner_labels + (1 - lam) * labels``, float32 ``(N, K)``."""
    return torch.lerp(labels, partner_labels, lam.unsqueeze(1))


def soft_labels(labels: Tensor, *, num_classes: int) -> Tensor:
    """Convert labels of any form to float32 ``(N, K)``.

    Args:
        labels: integers ``(N,)`` or ``(N, 1)`` (for two classes, also booleans), or ``(N, K)`` one-hot, soft, multi-hot
            or boolean.
        num_classes: K.

    Returns:
        float32 ``(N, K)``. If reading the labels would make the host wait (CUDA) or is not possible (under
        ``torch.compile``), an index out of range becomes a row of NaN, so that the loss becomes NaN.

    Raises:
        InputError: a different shape, floats ``(N,)``, or, on the CPU, an index out of range.
    """
    labels = index_or_rows(labels, num_classes=num_classes)
    if labels.ndim == 2:
        return labels
    table = one_hot_table(num_classes, device=labels.device)  # made there: a copy would wait for the device
    return one_hot(labels, table, table[:-1])


def mix_masks(masks: Tensor, partner_masks: Tensor, lam: Tensor) -> Tensor:
    """Compute ``lam * partner_masks + (1 - lam) * masks``, float32 ``(N, M, *spatial)``, with one lambda per image."""
    return torch.lerp(masks, partner_masks, lam.view(-1, *[1] * (masks.ndim - 1)))


def dequantise(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute ``pixels * scale + shift`` in float32; scale and shift are ``(C, 1, ...)``."""
    return pixels.float().mul_(scale).add_(shift)
