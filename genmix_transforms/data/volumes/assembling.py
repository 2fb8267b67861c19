"""The patches of all scans put together: an ``.npz``, or a folder of PNGs with a CSV that lists them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from genmix_transforms.data.image_files import MASK_COLUMN, WINDOW_COLUMNS
from genmix_transforms.data.labelling import sorted_names
from genmix_transforms.data.volumes.settings import BACKGROUND, PatchSettings
from genmix_transforms.errors import InputError
from genmix_transforms.files.arrays import read_npz, write_npz
from genmix_transforms.files.atomic import write_bytes, write_json, write_text
from genmix_transforms.files.images import encode_png
from genmix_transforms.files.mask_files import IMAGES, INFO, MASKS
from genmix_transforms.files.memory import check_memory

MANIFEST = "patches.csv"
"""Lists the PNGs of a folder."""

_MOST_MASK_CLASSES = 255
"""Beside the background."""

_COUNTED = ("lesion", "slice")
_MEASURED = ("diameter_mm", "volume_mm3", "spacing_mm", "outside")


def assemble(parts: Sequence[tuple[Path, str, str, str]], out: Path, settings: PatchSettings) -> dict[str, int]:
    """Write the patches of all scans.

    Args:
        parts: for each scan, in order, its file and the pseudonyms of series, patient and date ("" for none), the last
            with its rank behind a colon: ``3f...:7``.
        out: an ``.npz``, or the folder of the PNGs.
        settings: the patches were cut with.

    Returns:
        How many patches each class has.

    Raises:
        InputError: patches that do not fit into memory, or masks of more classes than there are 8-bit values.
    """
    check_memory(
        3 * sum(path.stat().st_size for path, *_ in parts), what="the patches", way_out="give fewer scans at a time"
    )
    read = [read_npz(path) for path, *_ in parts]
    counts = [len(columns["images"]) for columns in read]
    columns: dict[str, NDArray[Any]] = {
        name: np.concatenate([part[name] for part in read]) for name in (*_COUNTED, *_MEASURED)
    }
    for place, name in ((1, "series"), (2, "patient")):
        columns[name] = np.repeat([part[place] for part in parts], counts)
    dates = [part[3].partition(":") for part in parts]
    columns["date"] = np.repeat([date for date, _, _ in dates], counts)
    columns["date_rank"] = np.repeat([int(rank or -1) for _, _, rank in dates], counts)
    names = np.concatenate([part["class_name"] for part in read])
    classes = sorted_names(names.tolist())
    labels = np.array([classes.index(name) for name in names.tolist()])
    images = np.concatenate([part["images"] for part in read])
    masks, mask_classes = _masks(read) if settings.keep_masks else (None, ())
    if out.suffix.lower() == ".npz":
        out.parent.mkdir(parents=True, exist_ok=True)
        ends = {"window": np.array(settings.gray_range)}
        content = {"images": images, "labels": labels, "label_names": np.array(classes), **columns, **ends}
        if masks is not None:
            content |= {"masks": masks, "mask_classes": np.array(mask_classes)}
        write_npz(out, content)
    else:
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
        if masks is not None:
            (out / MASKS).mkdir(exist_ok=True)
            write_json(out / INFO, {"mask_classes": list(mask_classes)})
        _write_folder(out, images, masks, names.tolist(), columns, settings)
    return {name: int((labels == number).sum()) for number, name in enumerate(classes)}


def _masks(read: Sequence[dict[str, NDArray[Any]]]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The masks of all scans, uint8, and what their values mean."""
    names = sorted_names([name for part in read for name in part["mask_names"].tolist()])
    if len(names) > _MOST_MASK_CLASSES:
        raise InputError(
            f"{len(names)} classes of lesions in the masks, and 8 bits tell {_MOST_MASK_CLASSES} apart: name fewer "
            "(--labels VALUE=NAME), or leave keep_masks out"
        )
    places = [
        np.array([0, *(1 + names.index(name) for name in part["mask_names"].tolist())], dtype=np.uint8) for part in read
    ]
    masks = [place[part["masks"]] for place, part in zip(places, read, strict=True)]
    return np.concatenate(masks), (BACKGROUND, *names)


def _write_folder(
    out: Path,
    images: NDArray[Any],
    masks: NDArray[np.uint8] | None,
    names: list[str],
    columns: dict[str, NDArray[Any]],
    settings: PatchSettings,
) -> None:
    """PNGs, and last the CSV: a folder without it is not done."""
    order = ("patient", "series", "date", "date_rank", *_COUNTED, *_MEASURED)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", *([] if masks is None else [MASK_COLUMN]), "label", *order, *WINDOW_COLUMNS])
    for number, (pixels, name) in enumerate(zip(images, names, strict=True)):
        row = [columns[column][number] for column in order]
        file = f"{columns['series'][number]}-{columns['lesion'][number]}-{columns['slice'][number]}.png"
        files = {f"{IMAGES}/{file}": pixels} | ({} if masks is None else {f"{MASKS}/{file}": masks[number]})
        for place, content in files.items():
            write_bytes(out / place, encode_png(Image.fromarray(content)))
        table.writerow([*files, name, *row, *settings.gray_range])
    write_text(out / MANIFEST, text.getvalue())


def can_be_png(settings: PatchSettings) -> bool:
    """Whether the patches can be pictures: gray, or three channels of 8 bits."""
    dtype = torch.uint16 if settings.window is None else torch.uint8
    return settings.kind != "3d" and (settings.channels == 1 or (settings.channels == 3 and dtype == torch.uint8))
