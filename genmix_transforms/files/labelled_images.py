"""Labeled images that another program made: a folder of class folders, or an ``.npz``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.arrays import MOST_CHANNELS, channels_first, read_npz
from genmix_transforms.files.images import HIGHEST_PIXEL, Fit, class_folders, fit_images, fit_masks, read_images
from genmix_transforms.files.mask_files import (
    folder_of_images,
    mask_class_names,
    masks_beside,
    names_of_array,
    read_mask_array,
    read_mask_files,
    read_mask_names,
)

_PIXEL_TYPES = {str(dtype).removeprefix("torch.") for dtype in HIGHEST_PIXEL}


def images_from_folder(
    folder: Path, *, size: int | None, fit: Fit, channels: int | None, masks: bool = False
) -> dict[str, Any]:
    """What a bank is made of, from a folder of class folders with images that any tool made.

    Args:
        folder: holds one folder a class; its name is the class's. Or holds the folders ``images``, with the class
            folders in it, and ``masks``, as :func:`~genmix_transforms.bank.exporting.export_png` writes them.
        size: side of the square patches in pixels; None keeps the files' size, which must be one and the same.
        fit: "resize", "pad" or "crop", see :func:`genmix_transforms.files.images.fit_images`.
        channels: 1 for gray, 3 for color; None: as the files are.
        masks: read the mask of each image too: the file at the same path in ``masks``, 8-bit gray, its pixels class
            numbers (where all are 0 or 255, 255 is 1). Their names are the ``mask_classes`` of ``dataset_info.json``.

    Returns:
        Images, labels, classes and provenance, by the names that :class:`~genmix_transforms.bank.SyntheticBank` gives
        them; with ``masks`` also these and their classes.

    Raises:
        InputError: no such folder, no images, a corrupt image (named), or different sizes and no ``size``; masks that
            are missing, no class numbers, or of another size than their image.
    """
    files = class_folders(folder_of_images(folder))
    paths = [path for several in files.values() for path in several]
    found: dict[str, Any] = {}
    if masks:
        mask_files = masks_beside(folder, paths)
        found["masks"] = read_mask_files(mask_files, paths, size=size, fit=fit)
        found["mask_classes"] = mask_class_names(str(folder), found["masks"], read_mask_names(folder))
    labels = torch.tensor([number for number, several in enumerate(files.values()) for _ in several])
    images = read_images(paths, size=size, fit=fit, channels=channels)
    made = {"images": images, "labels": labels, "classes": list(files), "provenance": {"source": "folder of images"}}
    return {**made, **found}


def images_from_npz(path: Path, *, size: int | None, fit: Fit, masks: bool = False) -> dict[str, Any]:
    """What a bank is made of, from an ``.npz`` with ``images``, ``labels`` and ``label_names``.

    The images are ``(N, H, W)`` or ``(N, H, W, C)``, volumes ``(N, D, H, W)`` or ``(N, D, H, W, C)``. Without
    ``label_names`` the classes are named by the numbers that occur, or by the columns of probabilities.

    Args:
        path: of the file.
        size: side of the square patches in pixels; None keeps theirs.
        fit: "resize", "pad" or "crop".
        masks: read the masks too, the array ``masks``: uint8 or bool ``(N, H, W)``, class numbers (where all are 0 or
            255, 255 is 1); ``mask_classes``, if it is there, names them.

    Returns:
        As :func:`images_from_folder`.

    Raises:
        InputError: no such file, arrays missing, Python objects in it, or arrays that make no bank.
    """
    arrays = read_npz(path)
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: expected the arrays images and labels, {', '.join(sorted(missing))} missing")
    pixels = arrays["images"]
    known = pixels.dtype.name in _PIXEL_TYPES
    placed = channels_first(pixels.astype(pixels.dtype.newbyteorder("="), copy=False)) if known else None
    if placed is None:
        raise InputError(
            f"{path}: images must be uint8 or uint16 of shape (N, H, W) or (N, H, W, C), got {pixels.dtype} of shape "
            f"{pixels.shape}; of volumes (N, D, H, W) or (N, D, H, W, C), with C at most {MOST_CHANNELS} and longer "
            "sides"
        )
    images = torch.from_numpy(placed).contiguous()
    labels, classes = _npz_labels(path, arrays["labels"], arrays.get("label_names"))
    found: dict[str, Any] = {}
    if masks:
        shape = (len(images), *images.shape[2:])
        drawn = read_mask_array(path, arrays.get("masks"), shape=shape)
        found["mask_classes"] = mask_class_names(str(path), drawn, names_of_array(arrays.get("mask_classes")))
        found["masks"] = drawn if size is None else fit_masks(drawn, size, fit=fit)
    if size is not None:
        images = fit_images(images, size, fit=fit)
    return {"images": images, "labels": labels, "classes": classes, "provenance": {"source": "npz"}, **found}


def _npz_labels(
    path: Path, raw: NDArray[np.generic], label_names: NDArray[np.generic] | None
) -> tuple[Tensor, list[str]]:
    """Read the labels of an ``.npz`` as a tensor, and the class names."""
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim not in (1, 2) or raw.dtype.kind not in ("uif" if raw.ndim == 2 else "ui"):
        raise InputError(
            f"{path}: labels must be whole numbers (N,), or probabilities (N, K), got {raw.dtype} of shape {raw.shape}"
        )
    labels = torch.from_numpy(raw.astype(np.int64 if raw.ndim == 1 else np.float32))
    if label_names is not None:
        texts = label_names.reshape(-1).tolist()
        return labels, [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts]
    if labels.ndim == 2:
        return labels, [str(column) for column in range(labels.shape[1])]
    # As the data sets are read: numbers with gaps, or from 1 on, name no classes that are not there.
    present, labels = labels.unique(return_inverse=True)
    if len(present) and present[0] < 0:
        raise InputError(f"{path}: labels go down to {int(present[0])}; class numbers are 0 or more")
    return labels, [str(number) for number in present.tolist()]
