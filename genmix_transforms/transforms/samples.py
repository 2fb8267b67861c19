"""What a sample holds: which of its tensors are images, which are the labels, and whether they suit the bank."""

from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError

_REFUSED = (PIL.Image.Image, tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.uint16)


def find_images(flat: list[Any], labels: Tensor, image_shape: tuple[int, ...]) -> list[int]:
    """The places of the images in a flattened sample.

    They are every ``tv_tensors.Image`` and ``Video``; in a sample without those, every plain tensor with as many
    dimensions as a batch of the bank's images has. Other tensors (ages, identifiers) pass through.

    Raises:
        InputError: no images, something that cannot be mixed (a mask, boxes, a PIL image), or images that are not of
            the bank's shape, as many as the labels, or of a dtype that can be mixed.
    """
    for item in flat:
        if isinstance(item, _REFUSED):
            raise InputError(
                f"GenMix: takes batches of images and class labels, got a {type(item).__name__}: masks, boxes, "
                "keypoints and PIL images cannot be mixed; leave them out of the sample"
            )
    places = [place for place, item in enumerate(flat) if isinstance(item, (tv_tensors.Image, tv_tensors.Video))]
    others: list[Tensor] = []
    if not places:
        others = [item for item in flat if isinstance(item, Tensor) and item is not labels]
        dimensions = len(image_shape) + 1
        places = [
            place
            for place, item in enumerate(flat)
            if isinstance(item, Tensor) and item is not labels and item.ndim == dimensions
        ]
    if not places and not others:
        raise InputError("GenMix: the sample holds labels but no images")
    if not places:
        check_images(others[0], labels, image_shape)  # which says what is wrong with it
    return places


def check_images(images: Tensor, labels: Tensor, image_shape: tuple[int, ...]) -> None:
    """Whether these images can be mixed with the bank's.

    Raises:
        InputError: see :func:`find_images`.
    """
    if images.shape[1:] != image_shape:
        shape = ", ".join(map(str, image_shape))
        raise InputError(
            f"GenMix: the bank's images are {' x '.join(map(str, image_shape))} (C x spatial), the batch has shape "
            f"{tuple(images.shape)}; expected (N, {shape}): resize one to the other"
        )
    if images.shape[0] != labels.shape[0]:
        raise InputError(f"GenMix: one label for each image, got {images.shape[0]} images and {labels.shape[0]} labels")
    if images.dtype not in _DTYPES:
        raise InputError(
            f"GenMix: images must be float16, bfloat16, float32, float64, uint8 or uint16, got {images.dtype}: "
            "put v2.ToDtype(torch.float32, scale=True) before, or leave a mask out of the sample"
        )


def check_partners(partners: Tensor, bank: SyntheticBank, count: int) -> None:
    """Whether these are images of the bank, one a sample.

    Raises:
        InputError: of another shape, type or device.
    """
    expected = ((count, *bank.image_shape), bank.pixel_dtype, bank.device)
    got = (tuple(partners.shape), partners.dtype, partners.device) if isinstance(partners, Tensor) else partners
    if got != expected:
        raise InputError(
            f"GenMix: params' partners must be the bank's images, {expected[0]} {expected[1]} on {expected[2]}, "
            f"got {got}; take them from bank.rows(params['index'])"
        )
