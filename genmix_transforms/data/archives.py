"""Patches from NumPy archives: MedMNIST's and plain ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.data.findings import describe_findings, maybe_groups
from genmix_transforms.data.labelling import (
    GROUP_KEYS,
    UNLABELLED,
    WITHOUT_LABELS,
    read_dates,
    read_groups,
    read_series,
    read_targets,
    refuse_single_class,
    sorted_names,
)
from genmix_transforms.data.multi_label import with_labels
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.splitting import SPLITS, part_named
from genmix_transforms.data.windowing import Window
from genmix_transforms.errors import InputError
from genmix_transforms.files.arrays import MOST_CHANNELS, channels_first, read_npz
from genmix_transforms.files.mask_files import mask_class_names, names_of_array, read_mask_array

_KNOWN = ("labels", "label_names", "split", "origin", "window", "masks", "mask_classes")


def read_archive(
    path: Path, group_key: str | None = None, *, labelled: bool = True, masks: bool = False
) -> PatchDataset:
    """Read a MedMNIST ``.npz`` or a plain one; the keys are listed at :func:`genmix_transforms.data.open_dataset`.

    Without ``label_names`` the classes are named by their numbers, or are the label strings in order. Without
    ``labelled`` any labels are left aside, and there is one class. With ``masks`` these are read as well.

    Raises:
        InputError: not a readable ``.npz``, objects in it, keys that are not there, arrays of another dtype or shape
            than expected (float images, probabilities as labels), fewer than two classes, or masks that are missing or
            do not fit the images.
    """
    arrays = read_npz(path)
    if "train_images" in arrays:
        if masks:
            raise InputError(f"{path}: MedMNIST files hold no masks; leave masks out, or save images, labels and masks")
        if group_key is not None:
            raise InputError(f"{path}: MedMNIST files hold no groups; leave group_key out (got {group_key!r})")
        _join_parts(path, arrays, labelled=labelled)
    if missing := {"images", *(["labels"] if labelled else [])} - set(arrays):
        raise InputError(
            f"{path}: no {' and no '.join(sorted(missing))} in it; expected images{' and labels' if labelled else ''}, "
            f"or the MedMNIST keys train_images{', train_labels' if labelled else ''}, ...; it has "
            f"{', '.join(arrays) or 'nothing'}{f'; {WITHOUT_LABELS}' if missing == {'labels'} else ''}"
        )
    images = _channels_first(path, arrays.pop("images"))
    classes: tuple[str, ...] = (UNLABELLED,)
    labels: NDArray[np.int64] | None = np.zeros(len(images), dtype=np.int64)
    targets: Tensor | None = None
    if labelled and arrays["labels"].ndim and len(images) != len(arrays["labels"]):
        raise InputError(f"{path}: {len(images)} images but {len(arrays['labels'])} labels; each image needs one")
    if labelled and _are_several(arrays["labels"]):
        labels, (targets, classes) = None, _read_several(path, arrays["labels"], arrays.get("label_names"))
    elif labelled:
        labels, classes = _read_labels(path, arrays["labels"], arrays.get("label_names"))
    official = _read_official(path, arrays["split"], len(images)) if "split" in arrays else None
    if group_key is not None and group_key not in arrays:
        raise InputError(f"{path}: no array {group_key!r} to take the groups from; it has {', '.join(arrays)}")
    group_key = group_key or next((key for key in GROUP_KEYS if key in arrays), None)
    groups: Tensor | None = None
    notes: tuple[str, ...] = ()
    if group_key is not None:
        groups, notes = read_groups(path, group_key, arrays[group_key], len(images), official)
    patches = with_labels(
        images=images.contiguous(),
        labels=labels,
        targets=targets,
        classes=classes,
        groups=groups,
        official=official,
        name=path.name,
        notes=notes,
        source_hashes=_read_origins(path, arrays["origin"], len(images)) if "origin" in arrays else None,
        window=_read_window(arrays.get("window")),
        dates=read_dates(arrays, len(images)),
        series=read_series(arrays, len(images)),
        **(_read_masks(path, arrays, images) if masks else {}),
    )
    others = {key: array for key, array in arrays.items() if key not in _KNOWN}
    found = describe_findings(patches, maybe_groups=maybe_groups(others, len(patches)))
    return replace(patches, notes=(*notes, *found))


def _join_parts(path: Path, arrays: dict[str, NDArray[Any]], *, labelled: bool) -> None:
    """Turn the arrays of a MedMNIST file into those of a plain one, in place."""
    present = [part for part in SPLITS if f"{part}_images" in arrays]
    images: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    for part in present:
        images.append(arrays.pop(f"{part}_images"))
        if labelled:
            labels.append(_labels_of_part(path, part, arrays, images[-1]))
            if labels[-1].shape[1:] != labels[0].shape[1:]:
                raise InputError(
                    f"{path}: {part}_labels of shape {labels[-1].shape}, {present[0]}_labels of shape "
                    f"{labels[0].shape}; expected as many labels an image in each part"
                )
        if images[-1].shape[1:] != images[0].shape[1:] or images[-1].dtype != images[0].dtype:
            raise InputError(
                f"{path}: {part}_images are {images[-1].dtype} of shape {images[-1].shape}, "
                f"{present[0]}_images {images[0].dtype} of shape {images[0].shape}; expected images of one kind"
            )
    arrays["images"] = np.concatenate(images)
    if labelled:
        arrays["labels"] = np.concatenate(labels)
    arrays["split"] = np.repeat([SPLITS.index(part) for part in present], [len(part) for part in images])


def _labels_of_part(path: Path, part: str, arrays: dict[str, NDArray[Any]], images: NDArray[Any]) -> NDArray[Any]:
    """The labels ``(N,)`` or ``(N, K)`` of a part of a MedMNIST file, taken out of its arrays."""
    if f"{part}_labels" not in arrays:
        raise InputError(f"{path}: {part}_images without {part}_labels; {WITHOUT_LABELS}")
    labels = arrays.pop(f"{part}_labels")
    if not _are_several(labels):
        labels = _one_label_each(path, f"{part}_labels", labels)
    if images.shape[:1] != labels.shape[:1]:
        raise InputError(
            f"{path}: {part}_images of shape {images.shape}, but {len(labels)} {part}_labels; each image needs one"
        )
    return labels


def _channels_first(path: Path, pixels: NDArray[Any]) -> Tensor:
    """Images or volumes as :func:`genmix_transforms.files.arrays.channels_first` gives them, as a tensor."""
    if pixels.dtype.kind == "f":
        raise InputError(
            f"{path}: images are {pixels.dtype}, whose range is not known: save them as uint8 or uint16, for values "
            f"in [0, 1] by (images * 255).round().astype(np.uint8), for CT after a window"
        )
    if pixels.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint16).newbyteorder()):
        raise InputError(f"{path}: images are {pixels.dtype}; expected uint8 or uint16: save them as one of these")
    if 0 in pixels.shape:
        raise InputError(f"{path}: no images in it (shape {pixels.shape})")
    images = channels_first(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    if images is not None:
        return torch.from_numpy(images)
    if pixels.ndim in (4, 5) and pixels.shape[1] <= MOST_CHANNELS < pixels.shape[-1]:
        order = "0, 2, 3, 1" if pixels.ndim == 4 else "0, 2, 3, 4, 1"
        hint = f"channels come last: images.transpose({order})"
    else:
        hint = (
            f"images have up to {MOST_CHANNELS} channels, and volumes more than {MOST_CHANNELS} pixels along each axis"
        )
    raise InputError(
        f"{path}: images of shape {pixels.shape}; expected (N, H, W) or (N, H, W, C), of volumes (N, D, H, W) or "
        f"(N, D, H, W, C); {hint}"
    )


def _one_label_each(path: Path, key: str, raw: NDArray[Any]) -> NDArray[Any]:
    """Labels ``(N,)`` or ``(N, 1)`` as ``(N,)``."""
    if raw.ndim != 1 and raw.shape[1:] != (1,):
        raise InputError(f"{path}: {key} of shape {raw.shape}; expected (N,) or (N, 1), or several an image, (N, K)")
    return raw.reshape(-1)


def _are_several(raw: NDArray[Any]) -> bool:
    """Whether labels are rows, a column a class."""
    return raw.ndim == 2 and raw.shape[1] > 1


def _read_several(path: Path, raw: NDArray[Any], names: NDArray[Any] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Multi-hot labels as uint8 ``(N, K)``, and the class names: the numbers of the columns where there are none."""
    texts = map(str, range(raw.shape[1])) if names is None else _as_texts(path, "label_names", names.reshape(-1))
    classes = tuple(texts)
    return read_targets(path, "labels", raw, classes), classes


def _read_labels(
    path: Path, raw: NDArray[Any], names: NDArray[Any] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as indices ``(N,)`` into the class names, and the names."""
    raw = _one_label_each(path, "labels", raw)
    classes = None if names is None else tuple(_as_texts(path, "label_names", names.reshape(-1)))
    if raw.dtype.kind in "iub":
        numbers = raw.astype(np.int64)
        present, labels = np.unique(numbers, return_inverse=True)
        if len(present) and present[0] < 0:
            raise InputError(f"{path}: labels go down to {present[0]}; class numbers are 0 or more")
        if classes is None:  # numbers with gaps, or from 1 on, name no classes that are not there
            classes = tuple(str(number) for number in present)
        elif len(present) and present[-1] >= len(classes):
            raise InputError(
                f"{path}: labels go up to {present[-1]}, but label_names has {len(classes)} ({', '.join(classes)})"
            )
        else:
            labels = numbers
    elif raw.dtype.kind in "US":
        texts = _as_texts(path, "labels", raw)
        classes = classes or sorted_names(texts)
        if strangers := sorted(set(texts) - set(classes)):
            raise InputError(f"{path}: labels that label_names has not: {', '.join(strangers[:5])}")
        index = {name: number for number, name in enumerate(classes)}
        labels = np.array([index[text] for text in texts], dtype=np.int64)
    else:
        raise InputError(f"{path}: labels are {raw.dtype}; expected class numbers (integers) or class names (strings)")
    refuse_single_class(path, [classes[number] for number in np.unique(labels)])
    return labels.reshape(-1).astype(np.int64, copy=False), classes


def _as_texts(path: Path, key: str, values: NDArray[Any]) -> list[str]:
    """Strings, bytes or numbers as non-empty strings."""
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]
    if "" in texts:
        raise InputError(f"{path}: {key}[{texts.index('')}] is empty; expected a class name")
    return texts


def _read_official(path: Path, raw: NDArray[Any], count: int) -> Tensor:
    """The source's split, names or 0, 1, 2, as numbers ``(N,)``."""
    if raw.reshape(-1).shape != (count,):
        raise InputError(f"{path}: split of shape {raw.shape}; expected ({count},), one for each label")
    texts = _as_texts(path, "split", raw.reshape(-1))
    numbers = {str(number): number for number in range(len(SPLITS))}
    return torch.tensor(
        [
            numbers[text] if text in numbers else part_named(text, where=f"{path}: split[{position}]")
            for position, text in enumerate(texts)
        ]
    )


def _read_masks(path: Path, arrays: dict[str, NDArray[Any]], images: Tensor) -> dict[str, Any]:
    """The masks of images ``(N, C, H, W)``, and the names of their classes, by the names of their fields."""
    masks = read_mask_array(path, arrays.get("masks"), shape=(len(images), *images.shape[2:]))
    names = names_of_array(arrays.get("mask_classes"))
    return {"masks": masks, "mask_classes": mask_class_names(str(path), masks, names)}


def _read_window(raw: NDArray[Any] | None) -> Window | None:
    """The Hounsfield units that ``genmix patches`` or ``save_npz`` has kept; no other program's "window"."""
    if raw is None or raw.shape != (2,) or raw.dtype.kind not in "iuf" or not raw[0] < raw[1]:
        return None
    return float(raw[0]), float(raw[1])


def _read_origins(path: Path, raw: NDArray[Any], count: int) -> Tensor:
    """The identities ``(N,)`` that :meth:`PatchDataset.save_npz` has kept: the images are no longer the source's."""
    if raw.shape != (count,) or raw.dtype != np.int64 or (raw < 0).any():
        raise InputError(
            f"{path}: origin is {raw.dtype} of shape {raw.shape}; expected int64 of shape ({count},), 0 or more, as "
            f"save_npz writes it; remove the array if it is another program's"
        )
    return torch.from_numpy(raw)
