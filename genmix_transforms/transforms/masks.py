"""Segmentation masks beside the images: which tensors of a sample they are, their forms, and what suits the bank."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError

Masks = Literal["soft"]
"""What becomes of masks: "soft": a weight for each mask class and pixel."""


def check_masks_option(masks: Masks | None, bank: SyntheticBank) -> Masks | None:
    """Return the option, if the bank has what it asks for.

    Raises:
        InputError: no such option, or a bank without masks.
    """
    if masks is None:
        return None
    if masks not in get_args(Masks):
        raise InputError(f"GenMix: masks must be {' or '.join(map(repr, get_args(Masks)))}, or None, got {masks!r}")
    if bank.mask_classes is None:
        raise InputError(
            f"GenMix: masks={masks!r} mixes the masks of real images with those of their partners, and this bank has "
            "none; give it some with SyntheticBank(images, labels, masks=...)"
        )
    return masks


def find_masks(flat: list[Any], *, images: int) -> list[int]:
    """Find the places of the masks in a flattened sample: every ``tv_tensors.Mask``, as many as there are images.

    Raises:
        InputError: another number of them.
    """
    places = [place for place, item in enumerate(flat) if isinstance(item, tv_tensors.Mask)]
    if len(places) != images:
        raise InputError(
            f"GenMix: masks='soft' takes one mask for each image of the sample, found {len(places)} for {images}; wrap "
            "the batch of masks with tv_tensors.Mask, for a DataLoader gives plain tensors; or leave masks='soft' out"
        )
    return places


def soft_masks(masks: Tensor, *, num_classes: int, dimensions: int = 2) -> Tensor:
    """Bring segmentation masks of any form into weights of the mask classes, float32 ``(N, M, *spatial)``.

    Args:
        masks: ``(N, *spatial)`` or ``(N, 1, *spatial)`` of whole numbers or booleans, the mask class of each pixel; or
            ``(N, M, *spatial)``, one-hot or soft.
        num_classes: M, at least 2.
        dimensions: of ``spatial``: 2 for images, 3 for volumes.

    Returns:
        float32 ``(N, M, *spatial)``. Where a look at the masks would make the host wait (CUDA), or cannot be had (under
        ``torch.compile``), a pixel of no mask class becomes NaN, which no loss overlooks.

    Raises:
        InputError: another shape, floats as class numbers, or, on the CPU, a number that is no mask class.

    Example:
        >>> soft_masks(torch.tensor([[[0, 1]]]), num_classes=2).tolist()
        [[[[1.0, 0.0]], [[0.0, 1.0]]]]
    """
    if masks.ndim == dimensions + 2 and masks.shape[1] == num_classes:
        return masks.float()
    is_float = masks.is_floating_point() or masks.is_complex()
    if masks.ndim == dimensions + 2 and masks.shape[1] == 1 and not is_float:
        masks = masks.squeeze(1)
    if masks.ndim != dimensions + 1 or is_float:
        raise InputError(
            f"GenMix: masks must be whole numbers (N, *spatial), or weights (N, {num_classes}, *spatial) of the "
            f"{num_classes} mask classes, got {masks.dtype} of shape {tuple(masks.shape)}"
        )
    masks = masks if masks.dtype in (torch.uint8, torch.int64) else masks.long()
    classes = torch.arange(num_classes, device=masks.device).view(-1, *[1] * dimensions)
    rows = (masks.unsqueeze(1) == classes).float()
    if not masks.is_cpu or torch.compiler.is_compiling():
        return rows.masked_fill_(((masks < 0) | (masks >= num_classes)).unsqueeze(1), torch.nan)
    low, high = (int(value) for value in masks.aminmax()) if masks.numel() else (0, 0)
    if low < 0 or high >= num_classes:
        raise InputError(
            f"GenMix: masks run from {low} to {high}, but there are {num_classes} mask classes (0 to "
            f"{num_classes - 1}); give pixels to ignore a class of their own"
        )
    return rows


def check_masks(masks: Tensor, labels: Tensor, bank: SyntheticBank) -> None:
    """Check that masks suit labels and bank. Values are not read.

    Args:
        masks: class numbers ``(N, *spatial)`` or ``(N, 1, *spatial)``, or weights ``(N, M, *spatial)``.
        labels: or anything else with a row an image.
        bank: with masks.

    Raises:
        InputError: another shape, another number of masks than images, or another device.
    """
    spatial, classes = bank.image_shape[1:], bank.mask_classes or ()
    if masks.shape[:1] != labels.shape[:1] or masks.shape[-len(spatial) :] != spatial:
        shape = ", ".join(map(str, spatial))
        raise InputError(
            f"GenMix: masks of {labels.shape[0]} images must be of shape (N, {shape}), (N, 1, {shape}) or "
            f"(N, {len(classes)}, {shape}), got {tuple(masks.shape)}"
        )
    if masks.device != bank.device:
        raise InputError(
            f"GenMix: the batch's masks are on {masks.device}, the bank on {bank.device}: bring them together"
        )


def soft_masks_like(masks: Tensor, labels: Tensor, bank: SyntheticBank) -> Tensor:
    """Bring a batch of masks into float32 ``(N, M, *spatial)``; see :func:`check_masks` and :func:`soft_masks`."""
    check_masks(masks, labels, bank)
    return soft_masks(masks, num_classes=len(bank.mask_classes or ()), dimensions=len(bank.image_shape) - 1)


def check_partner_masks(masks: Tensor, bank: SyntheticBank, count: int) -> None:
    """Check that these are masks of the bank, one a sample.

    Raises:
        InputError: another shape, type or device.
    """
    expected = (count, *bank.image_shape[1:])
    if not isinstance(masks, Tensor) or tuple(masks.shape) != expected or masks.device != bank.device:
        got = f"{tuple(masks.shape)} on {masks.device}" if isinstance(masks, Tensor) else repr(masks)
        raise InputError(
            f"GenMix: params' partner_masks must be the bank's masks, {expected} on {bank.device}, got {got}; take "
            "them from bank.mask_rows(params['index'])"
        )
