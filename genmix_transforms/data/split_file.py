"""A split as a file: a CSV with a line for each patch, made once and taken by every command that reads the data."""

import csv
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genmix_transforms.data.csv_file import read_csv
from genmix_transforms.data.splitting import SPLITS, Numbers, count_parted, part_named
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.files.atomic import write_text
from genmix_transforms.files.checks import check_output_folder

FOLD = "{fold}"
"""Stands for the number of the fold in the names of split files."""

_ANEW = "make a new split (genmix split)"


def write_split(
    path: Path,
    parts: Numbers,
    *,
    paths: Sequence[str] | None,
    classes: Sequence[str],
    groups: Numbers | None,
    origins: Numbers,
) -> None:
    """Write a split, whole or not at all; all but the path has an item for each patch, in their order.

    ``parts`` are indices into :data:`SPLITS`. Origins are hexadecimal in the file, for spreadsheets round long numbers.
    """
    columns = {"number": range(len(parts)), "path": paths, "class": classes, "group": groups}
    columns |= {"split": [SPLITS[part] for part in parts], "origin": [f"0x{origin:016x}" for origin in origins]}
    present = {name: column for name, column in columns.items() if column is not None}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(present)
    table.writerows(zip(*present.values(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def check_split_path(path: Path, *, folds: int | None, overwrite: bool) -> None:
    """Refuse the name of a split file that cannot be written, or must not be, before any work.

    Raises:
        InputError: another suffix than ``.csv``, or ``{fold}`` missing, or there without folds.
        OverwriteError: a file is there already.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: a split is saved as .csv; give such a name")
    if folds is not None and FOLD not in str(path):
        proposal = path.with_name(f"{path.stem}-{FOLD}.csv")
        raise InputError(f"{path}: each fold has its own file: give a name with {FOLD} in it, such as {proposal}")
    if folds is None and FOLD in str(path):
        raise InputError(f"{path}: {FOLD} stands for the number of a fold; say how many folds, or leave it out")
    for file in [path] if folds is None else [fold_path(path, fold) for fold in range(folds)]:
        check_output_folder(file.parent)
        if file.is_dir() or (file.exists() and not overwrite):
            raise OverwriteError(f"{file} is there already; give another name, or overwrite (--overwrite) for a file")


def fold_path(path: Path, fold: int) -> Path:
    """The split file of one fold."""
    return Path(str(path).replace(FOLD, str(fold)))


def read_split(
    path: Path, *, name: str, paths: Sequence[str] | None, groups: Numbers | None, origins: Numbers
) -> Numbers:
    """Read the split of some patches.

    Lines may be in any order. A line is found by its ``path`` where the data has paths, else by its ``number``. Other
    columns than ``split`` are not needed. Where there is a column ``origin``, every patch is checked against it.
    ``paths``, ``groups`` and ``origins`` are those of the patches, in their order; ``name`` is that of the data.

    Returns:
        ``(N,)``, for each patch the index of its part in :data:`SPLITS`.

    Raises:
        MissingPathError: no such file.
        InputError: a part that is none, a patch without a line or with two, a line without a patch, or patches that
            are not the images that the split was made of.
    """
    lines, columns = read_csv(path, expected="a header (path,split) and a line for each patch")
    if "split" not in columns:
        raise InputError(f"{path}: no column 'split' in its header; it has {', '.join(columns)}")
    cells = zip(lines, columns["split"], strict=True)
    parts = np.array([part_named(cell, where=f"{path}, line {line}: split") for line, cell in cells])
    row_of = _rows(path, lines, columns, parts, name=name, paths=paths, count=len(origins))
    if "origin" in columns:
        _check_origins(path, lines, columns["origin"], row_of, origins, name=name)
    found = parts[row_of]
    if groups is not None and (parted := count_parted(groups, found)):
        warnings.warn(
            f"{path}: {parted} groups have images in more than one part of this split: scores may be too high",
            stacklevel=3,
        )
    return found


def _rows(
    path: Path,
    lines: Sequence[int],
    columns: dict[str, list[str]],
    parts: Numbers,
    *,
    name: str,
    paths: Sequence[str] | None,
    count: int,
) -> Numbers:
    """The row of each patch ``(N,)``: each has one, and every row is of a patch."""
    if paths is not None and "path" in columns:
        keys = [_plain(cell) for cell in columns["path"]]
        known = {_plain(file): number for number, file in enumerate(paths)}
        shown = paths
    elif "number" in columns:
        keys = columns["number"]
        known = {str(number): number for number in range(count)}
        shown = [f"number {number}" for number in range(count)]
    else:
        needed = "path or number" if paths is not None else f"number (0 for the first patch: {name} has no paths)"
        raise InputError(f"{path}: no column {needed} in its header; it has {', '.join(columns)}")
    row_of: dict[int, int] = {}
    strangers = []
    for row, (line, key) in enumerate(zip(lines, keys, strict=True)):
        number = known.get(key)
        if number is None:
            strangers.append(f"{key} (line {line})")
        elif (first := row_of.setdefault(number, row)) != row:
            differ = f" in {SPLITS[parts[first]]}, here in {SPLITS[parts[row]]}" if parts[first] != parts[row] else ""
            raise InputError(
                f"{path}, line {line}: {shown[number]} is already in line {lines[first]}{differ}; each patch is in "
                f"one part of a split, and has one line"
            )
    missing = [shown[number] for number in range(count) if number not in row_of]
    if strangers or missing:
        faults = [
            f"{len(found)} of {amount} {what}: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
            for found, amount, what in (
                (missing, f"the {count} patches", "have no line in it"),
                (strangers, f"its {len(lines)} lines", "are of patches that are not there"),
            )
            if found
        ]
        raise InputError(
            f"{path}: not a split of {name}: {'; '.join(faults)}. Give the data that it was made of, or {_ANEW}"
        )
    return np.array([row_of[number] for number in range(count)])


def _check_origins(
    path: Path, lines: Sequence[int], cells: Sequence[str], row_of: Numbers, origins: Numbers, *, name: str
) -> None:
    """Refuse other images than those that the split was made of."""
    recorded = []
    for line, cell in zip(lines, cells, strict=True):
        try:
            recorded.append(int(cell, 16))
        except ValueError:
            raise InputError(
                f"{path}, line {line}: origin {cell!r} is no hexadecimal number; leave the column as genmix split has "
                f"written it, or remove it whole"
            ) from None
    differing = [number for number, origin in enumerate(origins.tolist()) if recorded[row_of[number]] != origin]
    if differing:
        same = sorted(recorded) == sorted(origins.tolist())
        why = "the same images in another order" if same else "the images have changed, or it is the split of others"
        raise InputError(
            f"{path}: {len(differing)} of the {len(origins)} patches of {name} are not the images that the split was "
            f"made of, the first in line {lines[row_of[differing[0]]]}: {why}; {_ANEW}"
        )


def _plain(path: str) -> str:
    """A path as it is compared: ``./cyst/1.png`` and ``cyst\\1.png`` are ``cyst/1.png``."""
    return os.path.normpath(path.replace("\\", "/"))
