"""Segmentation masks in files: in a folder beside that of the images, listed, or in an ``.npz``; and their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.images import Fit, fit_masks, image_size, is_image_file, open_image
from genmix_transforms.files.strict_json import parse_json

IMAGES, MASKS = "images", "masks"
"""The folders of a data set with masks: ``masks`` has a file for each file of ``images``, at the same path in it."""

INFO = "dataset_info.json"
"""Beside these folders, or beside a CSV: a file whose ``mask_classes`` lists what the pixel values of masks mean."""

_MOST_CLASSES = 256
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")


def folder_of_images(folder: Path) -> Path:
    """Where the images of a folder are: in ``images``, if ``masks`` lies beside it; else in the folder itself."""
    beside = (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()
    return folder / IMAGES if beside else folder


def masks_beside(folder: Path, images: Sequence[Path]) -> list[Path]:
    """Find the mask files of the images of a folder with ``images`` and ``masks`` in it.

    Args:
        folder: with both.
        images: files in ``folder/images``.

    Returns:
        For each image the file at the same path in ``folder/masks``; its suffix may be another.

    Raises:
        InputError: no such folders, or several files that could be an image's mask.
        MissingPathError: images without a mask; the message counts them and names the first.
    """
    if folder_of_images(folder) == folder:
        raise InputError(
            f"{folder}: no masks in it; expected the folders {IMAGES} and {MASKS}, with a file in {MASKS} for each in "
            f"{IMAGES}, at the same path; or list the files in a .csv with a column mask"
        )
    files = [path for path in (folder / MASKS).rglob("*") if is_image_file(path) and path.is_file()]
    exact = set(files)
    by_stem: dict[Path, list[Path]] = {}
    for path in sorted(files):
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    found, missing = [], []
    for image in images:
        mask = folder / MASKS / image.relative_to(folder / IMAGES)
        candidates = [mask] if mask in exact else by_stem.get(mask.with_suffix(""), [])
        if len(candidates) > 1:
            raise InputError(
                f"{image}: several files could be its mask: {', '.join(path.name for path in candidates)} in "
                f"{mask.parent}; leave one"
            )
        found += candidates
        missing += [] if candidates else [mask]
    if missing:
        raise MissingPathError(
            f"{folder}: {len(missing)} of {len(images)} images have no mask; expected such a file as {missing[0]}"
        )
    return found


def read_mask_files(masks: Sequence[Path], images: Sequence[Path], *, size: int | None, fit: Fit) -> Tensor:
    """Read the masks of images: 8-bit gray or palette files whose pixels are class numbers, or 1-bit ones.

    Args:
        masks: the files.
        images: the files of the images, one for each mask.
        size: side of the square patches in pixels; None: as the files are.
        fit: how a size is reached, see :func:`~genmix_transforms.files.images.fit_masks`.

    Returns:
        uint8 ``(N, H, W)``, see :func:`as_class_numbers`.

    Raises:
        MissingPathError: a file that does not exist.
        InputError: a mask that cannot be read, in color, of 16 bits, in a lossy format, or of another size than its
            image; the message names it.
    """
    read: list[Tensor] = []
    for path, image in zip(masks, images, strict=True):
        mask, expected = _read_mask(path), image_size(image)
        if tuple(mask.shape) != expected:
            raise InputError(
                f"{path}: a mask of {mask.shape[0]}x{mask.shape[1]} pixels, but its image {image} has "
                f"{expected[0]}x{expected[1]}; expected the same"
            )
        read.append(mask if size is None else fit_masks(mask.unsqueeze(0), size, fit=fit).squeeze(0))
    return as_class_numbers(torch.stack(read))


def _read_mask(path: Path) -> Tensor:
    if path.suffix.lower() in _LOSSY:
        raise InputError(f"{path}: JPEG files do not keep class numbers to the digit; save masks as PNG")
    with open_image(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path}: {image.n_frames} images in one file, and a mask is one: save each as a file")  # type: ignore[attr-defined]
        if image.mode not in ("1", "L", "P"):
            raise InputError(
                f"{path}: a mask must be gray, 8 bits or 1, its pixels class numbers from 0 on (a palette's places are "
                f"such too); this image is {_described(image)}"
            )
        pixels = np.array(image, dtype=np.uint8)
    return torch.from_numpy(pixels)


def _described(image: Image.Image) -> str:
    return {"RGB": "in color", "RGBA": "in color", "LA": "gray with transparency"}.get(
        image.mode, f"of Pillow's mode {image.mode!r}"
    )


def read_mask_array(path: Path, raw: NDArray[Any] | None, *, shape: tuple[int, ...]) -> Tensor:
    """Check the array ``masks`` of an ``.npz`` and return it as uint8 ``(N, H, W)``.

    Args:
        path: of the file, for messages.
        raw: the array; None: the file has none.
        shape: ``(N, H, W)`` of the images.

    Raises:
        InputError: no such array, or another shape or dtype.
    """
    if raw is None:
        raise InputError(f"{path}: no array masks in it; expected uint8 of shape {shape}, the class of each pixel")
    if raw.shape != shape or raw.dtype not in (np.dtype(np.uint8), np.dtype(np.bool_)):
        raise InputError(
            f"{path}: masks are {raw.dtype} of shape {raw.shape}; expected uint8 (or bool) of shape {shape}, class "
            "numbers from 0 on, one mask an image and without channels"
        )
    return as_class_numbers(torch.from_numpy(raw.astype(np.uint8, copy=False)))


def as_class_numbers(masks: Tensor) -> Tensor:
    """Masks as they are; where all pixels are 0 or 255, 255 becomes 1.

    Example:
        >>> as_class_numbers(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist()
        [[0, 1]]
    """
    lit = masks == 255
    if bool(lit.any()) and bool((lit | (masks == 0)).all()):
        return lit.to(torch.uint8)
    return masks


def mask_class_names(where: str, masks: Tensor, names: Sequence[Any] | None) -> tuple[str, ...]:
    """The names of the mask classes, from 0 on; without names their numbers, at least two.

    Args:
        where: what the masks are of, for messages.
        masks: uint8, class numbers.
        names: of the classes; None: none are known.

    Raises:
        InputError: no list of 2 to 256 different names, or pixels without a name.
    """
    highest = int(masks.max()) if masks.numel() else 0
    if names is None:
        return tuple(str(number) for number in range(max(2, highest + 1)))
    texts = tuple(names)
    if not all(isinstance(name, str) and name for name in texts) or len(set(texts)) != len(texts):
        raise InputError(f"{where}: mask_classes must be different names, got {', '.join(map(repr, texts))}")
    if not max(2, highest + 1) <= len(texts) <= _MOST_CLASSES:
        raise InputError(
            f"{where}: masks run up to {highest}, but mask_classes has {len(texts)} names ({', '.join(texts)}); "
            f"expected a name for each value from 0 on, 2 to {_MOST_CLASSES}"
        )
    return texts


def names_of_array(raw: NDArray[Any] | None) -> list[str] | None:
    """The array ``mask_classes`` of an ``.npz`` as texts; None: there is none."""
    if raw is None:
        return None
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in raw.reshape(-1)]


def read_mask_names(folder: Path) -> list[Any] | None:
    """The ``mask_classes`` of a folder's :data:`INFO`; None: there is no such file, or it names none.

    Raises:
        InputError: a file that is no JSON object, or whose ``mask_classes`` are no list.
    """
    file = folder / INFO
    if not file.is_file():
        return None
    try:
        content = parse_json(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file}: not readable ({error}); expected JSON with mask_classes, a list of names") from error
    names = content.get("mask_classes") if isinstance(content, dict) else content
    if names is not None and not (isinstance(content, dict) and isinstance(names, list)):
        raise InputError(f"{file}: expected an object with mask_classes, a list of names; got {str(names)[:80]}")
    return names
