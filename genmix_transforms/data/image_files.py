"""Patches from image files: folders with one folder a class, and CSV manifests that list the files."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.data.csv_file import header_as_written, read_csv
from genmix_transforms.data.findings import describe_findings, maybe_groups
from genmix_transforms.data.identity import pixel_hashes
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
from genmix_transforms.data.splitting import SPLIT_NAMES, SPLITS, part_named
from genmix_transforms.data.windowing import Window
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.images import (
    Fit,
    class_folders,
    describe_fit,
    image_size,
    is_image_file,
    read_images,
)
from genmix_transforms.files.mask_files import (
    folder_of_images,
    mask_class_names,
    masks_beside,
    read_mask_files,
    read_mask_names,
)
from genmix_transforms.files.memory import check_image_memory

WINDOW_COLUMNS = ("window_low", "window_high")
"""The columns of a CSV with the Hounsfield units of the lowest and the highest pixel value."""
MASK_COLUMN = "mask"
"""The column of a CSV with the files of the masks."""
_TIMES = ("date", "date_rank", "series")
"""The columns that say when an image was acquired, and of which scan it is."""
_BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""What the cells of a class's column may say, as spreadsheets and pandas write it."""


def read_class_folders(
    folder: Path, *, size: int | None, fit: Fit, channels: int | None, masks: bool = False
) -> PatchDataset:
    """Read a folder of class folders, or of train, val and test with class folders in each.

    Classes are in the order of their names. All that may lie in a folder ``images``, with the masks beside it in
    ``masks``. Arguments as in :func:`genmix_transforms.data.open_dataset`.

    Raises:
        InputError: no class folders, fewer than two classes, a class that only val or test has, class folders mixed
            with parts of a split, images that cannot be read as one set, or masks that do not fit them.
    """
    whole, folder = folder, folder_of_images(folder)
    split_folders = _split_folders(folder)
    if not any(entry.is_dir() for entry in folder.iterdir()) and _image_files(folder):
        raise InputError(f"{folder}: expected one folder of images a class, found images alone; {WITHOUT_LABELS}")
    found = {number: class_folders(part) for number, part in (split_folders or {0: folder}).items()}
    classes = tuple(found[0])
    for number, files in found.items():
        if strangers := sorted(set(files) - set(classes)):
            raise InputError(
                f"{folder}: {SPLITS[number]} has classes that train has not: {', '.join(strangers)}; "
                f"train has {', '.join(classes)}"
            )
    refuse_single_class(folder, classes)
    listed = [
        (path, classes.index(name), number)
        for number, files in sorted(found.items())
        for name, paths in files.items()
        for path in paths
    ]
    paths = [path for path, _, _ in listed]
    drawn = _masks_beside(whole, paths, size=size, fit=fit) if masks else {}
    images, hashes, notes = _read_files(paths, name=_bare_name(whole), size=size, fit=fit, channels=channels)
    return _with_findings(
        PatchDataset(
            images=images,
            source_hashes=hashes,
            paths=tuple(path.relative_to(folder).as_posix() for path, _, _ in listed),
            labels=torch.tensor([label for _, label, _ in listed]),
            classes=classes,
            official=torch.tensor([number for _, _, number in listed]) if split_folders else None,
            name=_bare_name(whole),
            notes=notes,
            **drawn,
        )
    )


def read_unlabelled_folder(
    folder: Path, *, size: int | None, fit: Fit, channels: int | None, masks: bool = False
) -> PatchDataset:
    """Read all images of a folder and of the folders in it, in the order of their paths, as one class.

    If it holds nothing but folders named train, val and test, their split is kept. If it holds ``images`` and
    ``masks``, the images are those in ``images``. Arguments as in :func:`genmix_transforms.data.open_dataset`.

    Raises:
        InputError: no images, such that cannot be read as one set, or masks that do not fit them.
    """
    whole, folder = folder, folder_of_images(folder)
    files = _image_files(folder)
    if not files:
        raise InputError(f"{folder}: no image files in it, nor in the folders in it")
    inside = [file.relative_to(folder).parts for file in files]
    parts = [SPLIT_NAMES.get(names[0].lower(), -1) if len(names) > 1 else -1 for names in inside]
    comes_split = -1 not in parts and 0 in parts
    drawn = _masks_beside(whole, files, size=size, fit=fit) if masks else {}
    images, hashes, notes = _read_files(files, name=_bare_name(whole), size=size, fit=fit, channels=channels)
    return _with_findings(
        PatchDataset(
            images=images,
            source_hashes=hashes,
            paths=tuple("/".join(names) for names in inside),
            labels=torch.zeros(len(files), dtype=torch.int64),
            classes=(UNLABELLED,),
            official=torch.tensor(parts) if comes_split else None,
            name=_bare_name(whole),
            notes=notes,
            **drawn,
        )
    )


def _masks_beside(folder: Path, images: Sequence[Path], *, size: int | None, fit: Fit) -> dict[str, Any]:
    """The masks of images in ``folder/images``, and what they mean, by the names of their fields."""
    return _read_masks(folder, masks_beside(folder, images), images, size=size, fit=fit)


def _read_masks(
    folder: Path, masks: Sequence[Path], images: Sequence[Path], *, size: int | None, fit: Fit
) -> dict[str, Any]:
    found = read_mask_files(masks, images, size=size, fit=fit)
    return {"masks": found, "mask_classes": mask_class_names(str(folder), found, read_mask_names(folder))}


def _image_files(folder: Path) -> list[Path]:
    """The image files in a folder and in the folders in it, sorted; none that is hidden, or in a hidden folder."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_image_file(path)
        and not any(name.startswith((".", "__")) for name in path.relative_to(folder).parts[:-1])
        and path.is_file()
    )


def _split_folders(folder: Path) -> dict[int, Path] | None:
    """The folders ``{number of the part: folder}`` of a set that comes split, None for plain class folders."""
    # A part holds class folders; a class that happens to be called "train" or "test" holds images.
    parts = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith((".", "__"))]
    named = {part: SPLIT_NAMES[part.name.lower()] for part in parts if part.name.lower() in SPLIT_NAMES}
    if not any(entry.is_dir() for part in named for entry in part.iterdir()):
        return None
    others = [part.name for part in parts if part not in named]
    if others:
        raise InputError(
            f"{folder}: {', '.join(part.name for part in named)} beside {', '.join(others)}: "
            f"expected either folders of classes or the folders train, val and test, not both"
        )
    if len(set(named.values())) < len(named):
        raise InputError(f"{folder}: one part of the split under two names: {', '.join(part.name for part in named)}")
    if 0 not in named.values():
        raise InputError(f"{folder}: no folder train beside {', '.join(part.name for part in named)}")
    return {number: part for part, number in named.items()}


def read_manifest(
    path: Path,
    *,
    size: int | None,
    fit: Fit,
    channels: int | None,
    group_key: str | None,
    labelled: bool = True,
    masks: bool = False,
) -> PatchDataset:
    """Read the images that a CSV file lists, with their labels, split and groups.

    Classes are in the order of their names, or of their numbers if all are whole numbers; without ``labelled`` there is
    one, and a column of labels is left aside. Without a column ``label``, each column but ``path``, ``mask``,
    ``split``, those of dates and scans, and the groups is a class, with 0 or 1 in every line. With ``masks``, the
    column ``mask`` lists these files. Arguments as in :func:`genmix_transforms.data.open_dataset`.

    Raises:
        MissingPathError: images or masks that do not exist; the message counts them.
        InputError: a missing column, an empty cell, an unknown name of a split, an image listed twice (the message
            has the line), fewer than two classes, images that cannot be read as one set, or masks that do not fit them.
    """
    header = "path,label" if labelled else "path"
    lines, columns = read_csv(path, expected=f"a header ({header}) and a line for each image")
    targets: Tensor | None = None
    if labelled and "label" not in columns:
        targets, classes = _read_columns_of_classes(path, lines, columns, group_key=group_key)
    for needed in (
        "path",
        *(["label"] if labelled and targets is None else []),
        *([MASK_COLUMN] if masks else []),
        *([group_key.lower()] if group_key else []),
    ):
        if needed not in columns:
            way_out = f"; {WITHOUT_LABELS}" if needed == "label" and "path" in columns else ""
            raise InputError(f"{path}: no column {needed!r} in its header; it has {', '.join(columns)}{way_out}")
    if not labelled or targets is not None:
        columns["label"] = [UNLABELLED] * len(lines)
    group_column = _group_column(columns, group_key)
    given = ("split", group_column, *([MASK_COLUMN] if masks else []))
    for column in ("path", "label", *(key for key in given if key in columns)):
        for line, cell in zip(lines, columns[column], strict=True):
            if not cell:
                raise InputError(f"{path}, line {line}: the {column} is empty; every image needs one")
    if targets is None:
        classes = sorted_names(columns["label"])
    if labelled and targets is None:
        _refuse_several_labels(path, lines, columns["label"])
        refuse_single_class(path, classes)
    official = None
    if "split" in columns:
        found = zip(lines, columns["split"], strict=True)
        official = torch.tensor([part_named(cell, where=f"{path}, line {line}: split") for line, cell in found])
    files = _listed_files(path, lines, columns["path"])
    groups: Tensor | None = None
    group_notes: tuple[str, ...] = ()
    if group_column is not None:
        groups, group_notes = read_groups(path, group_column, np.array(columns[group_column]), len(files), official)
    drawn: dict[str, Any] = {}
    if masks:
        mask_files = _listed_files(path, lines, columns[MASK_COLUMN], what="masks")
        drawn = _read_masks(path.parent, mask_files, files, size=size, fit=fit)
    images, hashes, notes = _read_files(files, name=path.name, size=size, fit=fit, channels=channels)
    index = {name: number for number, name in enumerate(classes)}
    others = {
        key: np.array(cells) for key, cells in columns.items() if key not in ("path", "label", "split", MASK_COLUMN)
    }
    if targets is not None:
        others = {key: others[key] for key in _TIMES if key in others}
        notes = (f"several labels an image, from the columns {', '.join(classes)}", *notes)
    return _with_findings(
        with_labels(
            images=images,
            source_hashes=hashes,
            paths=tuple(Path(os.path.normpath(cell)).as_posix() for cell in columns["path"]),
            labels=None
            if targets is not None
            else np.array([index[label] for label in columns["label"]], dtype=np.int64),
            targets=targets,
            classes=classes,
            groups=groups,
            official=official,
            name=path.name,
            notes=(*group_notes, *notes),
            window=_listed_window(columns),
            dates=read_dates(others, len(files)),
            series=read_series(others, len(files)),
            **drawn,
        ),
        maybe_groups=maybe_groups(others, len(files)),
    )


def _listed_window(columns: dict[str, list[str]]) -> Window | None:
    """The Hounsfield units that ``genmix patches`` lists, where all its patches are in the same."""
    ends = {(low, high) for low, high in zip(*(columns.get(name, ()) for name in WINDOW_COLUMNS), strict=False)}
    try:
        ((low, high),) = ((float(low), float(high)) for low, high in ends)
    except ValueError:
        return None
    return (low, high) if low < high else None


def _with_findings(patches: PatchDataset, *, maybe_groups: Sequence[str] = ()) -> PatchDataset:
    return replace(patches, notes=(*patches.notes, *describe_findings(patches, maybe_groups=maybe_groups)))


def _group_column(columns: Mapping[str, Sequence[str]], group_key: str | None) -> str | None:
    """The column that has the groups; None: none has."""
    return group_key.lower() if group_key else next((key for key in GROUP_KEYS if key in columns), None)


def _read_columns_of_classes(
    path: Path, lines: Sequence[int], columns: Mapping[str, Sequence[str]], *, group_key: str | None
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The labels in a column a class, uint8 ``(N, K)``, and the class names as the header writes them; None: no such.

    Raises:
        InputError: a column that is no class beside others that are, or labels that are not several.
    """
    known = {"path", "split", *_TIMES, _group_column(columns, group_key)}
    if MASK_COLUMN in columns and not set(columns[MASK_COLUMN]) <= set(_BINARY):  # files, and no class of this name
        known.add(MASK_COLUMN)
    candidates = {name: cells for name, cells in columns.items() if name not in known}
    are_classes = {name: set(cells) <= set(_BINARY) for name, cells in candidates.items()}
    if sum(are_classes.values()) < 2:
        return None, ()
    for name, cells in candidates.items():
        if not are_classes[name]:
            line, cell = next(pair for pair in zip(lines, cells, strict=True) if pair[1] not in _BINARY)
            raise InputError(
                f"{path}, line {line}: without a column label, each column but path, mask, split, date, date_rank, "
                f"series and the groups is a class, with 0 or 1 for every image; {name!r} has {cell!r}: leave that "
                "column out, or add a column label"
            )
    rows = np.array([[_BINARY[cell] for cell in cells] for cells in candidates.values()]).T
    written = header_as_written(path)
    classes = tuple(written[name] for name in candidates)
    return read_targets(path, "the columns of classes", rows, classes), classes


def _refuse_several_labels(path: Path, lines: Sequence[int], cells: Sequence[str]) -> None:
    """``a|b`` beside ``a`` is no third class, but an image of both."""
    classes = set(cells)
    for line, cell in zip(lines, cells, strict=True):
        parts = [part.strip() for part in re.split(r"[|;,+]", cell)]
        if len(parts) > 1 and any(part in classes for part in parts):
            raise InputError(
                f"{path}, line {line}: the label {cell!r} names several classes; for several labels an image, write a "
                "column for each class, with 0 or 1, in place of the column label; or leave such images out"
            )


def _listed_files(path: Path, lines: Sequence[int], cells: Sequence[str], *, what: str = "images") -> list[Path]:
    """The image files that a manifest names, or the masks: each exists, and no image is named twice."""
    files = [Path(os.path.normpath(path.parent / cell)) for cell in cells]
    missing = [
        f"{cell} (line {line})" for file, cell, line in zip(files, cells, lines, strict=True) if not file.is_file()
    ]
    if missing:
        raise MissingPathError(
            f"{path}: {len(missing)} of its {len(files)} {what} do not exist: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}; "
            + (
                "they are written with backslashes, as on Windows: write / for them"
                if any("\\" in cell for cell in cells)
                else "paths are relative to the folder of the CSV file"
            )
        )
    first_line: dict[Path, int] = {}
    for file, cell, line in zip(files, cells, lines, strict=True):
        if file in first_line and what == "images":  # of two images the mask may be one
            raise InputError(
                f"{path}, line {line}: {cell} is already in line {first_line[file]}; an image listed twice could "
                f"be both trained on and tested on"
            )
        first_line[file] = line
    return files


def _read_files(
    files: Sequence[Path], *, name: str, size: int | None, fit: Fit, channels: int | None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The images ``(N, C, H, W)``, their hashes ``(N,)`` as the files have them, and a note if any was resized."""
    height, width = image_size(files[0]) if size is None else (size, size)
    check_image_memory((len(files), channels or 1, height, width), itemsize=1, name=name)
    note = "" if size is None else describe_fit({image_size(file) for file in files}, size, fit=fit)
    hashes: list[Tensor] = []
    found: dict[int, list[Path]] = {}

    def when_read(image: Tensor) -> None:
        found.setdefault(image.shape[0], []).append(files[len(hashes)])
        hashes.append(pixel_hashes(image[None]))

    images = read_images(files, size=size, fit=fit, channels=channels, when_read=when_read)
    notes = [note] if note else []
    if channels is None and len(found) > 1:
        few, many = sorted(found.values(), key=len)
        few_are, others = ("gray", "color") if found[1] is few else ("color", "gray")
        count = "1 file is" if len(few) == 1 else f"{len(few)} files are"
        notes.append(
            f"{count} {few_are} ({few[0].name}), the other {len(many)} are {others}: all are read in color; channels=1 "
            "(--channels 1) reads all as gray"
        )
    return images, torch.cat(hashes), tuple(notes)


def _bare_name(folder: Path) -> str:
    """The folder's own name, also of ``.`` and ``..``."""
    return os.path.basename(os.path.abspath(folder)) or "patches"
