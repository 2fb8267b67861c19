"""Who is who among patches: a hash of each image as its source has it, and what a training set is recorded by."""

import base64
import binascii
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.errors import InputError

MOST_RECORDED = 100_000
"""Training sets of more images are recorded without their images: 8 characters each would fill a bank's manifest."""

_RECORDED_BYTES = 6
"""48 bits of each hash: two different images of a million share them with a probability of 0.002."""

_DROPPED_BITS = 63 - 8 * _RECORDED_BYTES


def pixel_hashes(images: Tensor) -> Tensor:
    """The identity of each image: 63 bits of the sha256 of its shape, dtype and pixels.

    Args:
        images: ``(N, C, *spatial)``, uint8 or uint16.

    Returns:
        ``(N,)``, int64, 0 or more: the same on every machine, and for equal images alone.

    Example:
        >>> first, second, third = pixel_hashes(torch.tensor([1, 1, 2], dtype=torch.uint8).view(3, 1, 1, 1)).tolist()
        >>> first == second, first == third
        (True, False)
    """
    pixels = images.contiguous().numpy()
    pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    rows = pixels.reshape(len(pixels), math.prod(pixels.shape[1:])).view(np.uint8)
    kind = hashlib.sha256(f"{tuple(images.shape[1:])} {pixels.dtype.name}".encode())
    hashes = np.empty(len(rows), dtype=np.int64)
    for number, row in enumerate(rows):
        digest = kind.copy()
        digest.update(row.data)
        hashes[number] = _number(digest.digest())
    return torch.from_numpy(hashes)


def text_hashes(texts: Iterable[str]) -> Tensor:
    """The identity, int64 ``(N,)``, of images that are drawn and not read, by texts that say which they are."""
    return torch.tensor([_number(hashlib.sha256(text.encode()).digest()) for text in texts], dtype=torch.int64)


def _number(digest: bytes) -> int:
    """The first 63 bits of a digest."""
    return int.from_bytes(digest[:8], "big") >> 1


def record_images(origins: Tensor) -> str | None:
    """The images of a training set as a text: 8 characters of base64 for each different one, sorted.

    Args:
        origins: ``(N,)``, int64, as :attr:`PatchDataset.origins` gives them.

    Returns:
        The text, or None for more than :data:`MOST_RECORDED` patches.
    """
    if len(origins) > MOST_RECORDED:
        return None
    numbers = np.unique(origins.numpy() >> _DROPPED_BITS)
    # The last six of the eight bytes of each number, the highest first.
    packed = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - _RECORDED_BYTES :]
    return base64.b64encode(packed.tobytes()).decode("ascii")


def recorded_images(training_set: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """Decode the images that a training set's record names.

    Args:
        training_set: as :meth:`PatchDataset.training_set` returns it, or as a bank or a generator has kept it.

    Returns:
        ``(n,)``, int64, sorted: the highest 48 of the 63 bits of each image's origin. None where the record has no
        images: it is older than they are, or of too large a set.

    Raises:
        InputError: images that are no such text.
    """
    text = training_set.get("images")
    if text is None:
        return None
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(f"the training set's record is damaged: its images are no base64 ({error})") from error
    if len(packed) % _RECORDED_BYTES:
        raise InputError(
            f"the training set's record is damaged: its images have {len(packed)} bytes, expected "
            f"{_RECORDED_BYTES} for each"
        )
    numbers = np.zeros((len(packed) // _RECORDED_BYTES, 8), dtype=np.uint8)
    numbers[:, 8 - _RECORDED_BYTES :] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, _RECORDED_BYTES)
    return np.sort(numbers.view(">u8")[:, 0].astype(np.int64))


def find_recorded(origins: Tensor, training_set: Mapping[str, Any]) -> Tensor | None:
    """Which patches a training set's record names: how many is ``find_recorded(...).sum()``.

    Args:
        origins: ``(N,)``, int64: :attr:`PatchDataset.origins` of the patches that are asked about.
        training_set: the record.

    Returns:
        bool ``(N,)``. None where the record has no images, so that nobody can tell.

    Raises:
        InputError: images in the record that are damaged.
    """
    recorded = recorded_images(training_set)
    if recorded is None:
        return None
    return torch.from_numpy(np.isin(origins.numpy() >> _DROPPED_BITS, recorded))


def recorded_within(origins: Tensor, training_set: Mapping[str, Any]) -> bool:
    """Whether every image that a training set's record names is among some patches.

    Args:
        origins: ``(N,)``, int64: :attr:`PatchDataset.origins` of the patches.
        training_set: the record. False for a record without images, because nobody can tell.

    Raises:
        InputError: images in the record that are damaged.
    """
    recorded = recorded_images(training_set)
    return recorded is not None and bool(np.isin(recorded, origins.numpy() >> _DROPPED_BITS).all())


def join_training_sets(first: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The record of weights that were trained on one set, and then on another: both have been seen.

    Args:
        first: the record of the training set that the weights come from.
        now: that of the set they are trained on further.

    Returns:
        The fingerprints of both, joined by "+" (one, if they are the same); the class counts of ``now``; the images of
        both, left out where one of the two records has none.
    """
    joined = dict(now)
    if first.get("fingerprint") not in (None, now["fingerprint"]):
        joined["fingerprint"] = f"{first['fingerprint']}+{now['fingerprint']}"
    joined.pop("images", None)
    both = [recorded_images(first), recorded_images(now)]
    if all(images is not None for images in both):
        images = record_images(
            torch.from_numpy(np.concatenate([found for found in both if found is not None])) << _DROPPED_BITS
        )
        if images is not None:
            joined["images"] = images
    return joined
