"""The folder of an export: it appears whole or not at all, and replaces nothing but an export of its kind."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import OverwriteError
from genmix_transforms.files.atomic import write_json
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.locking import locked
from genmix_transforms.files.mask_files import IMAGES, INFO, MASKS
from genmix_transforms.files.progress import progress_bar

FORMAT = "genmix-export"
METADATA = "metadata.csv"
_FILES = {
    "png": re.compile(rf"{re.escape(METADATA)}|(?:(?:{IMAGES}|{MASKS})/)?[^/]+/\d{{8,}}\.png"),
    "webdataset": re.compile(r"\d{6,}\.tar"),
    "parquet": re.compile(r"train-\d{5,}-of-\d{5,}\.parquet"),
}


@contextmanager
def new_export(bank: SyntheticBank, folder: str | Path, kind: str, *, overwrite: bool) -> Iterator[tuple[Path, Any]]:
    """Give the folder to export a bank into, see :func:`_new_folder`, and a progress bar over its images."""
    with _new_folder(folder, kind, overwrite=overwrite) as making:
        with progress_bar(total=len(bank), desc="exporting", unit="img", disable=len(bank) < 200) as bar:
            yield making, bar
        _write_info(making, bank, kind)


@contextmanager
def _new_folder(folder: str | Path, kind: str, *, overwrite: bool) -> Iterator[Path]:
    """Give a hidden folder to write in, which then becomes ``folder``; nothing is left of it if the work fails."""
    given, folder = folder, Path(folder).resolve()  # a link stays, and the folder it leads to is replaced
    check_output_folder(folder)
    making, retired, lock = (folder.with_name(f".{folder.name}.export.{end}") for end in ("tmp", "old", "lock"))
    if retired.exists() and not folder.exists():  # killed between two renames
        retired.rename(folder)
    _check_replaceable(folder, given, kind, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, busy=f"{given}: another process is exporting there; wait for it, or stop it"):
        try:
            if making.exists():  # what a killed process left
                shutil.rmtree(making)
            making.mkdir()
            yield making
            if folder.exists() and any(folder.iterdir()):
                shutil.rmtree(retired, ignore_errors=True)
                folder.rename(retired)
            making.rename(folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            if retired.exists() and not folder.exists():
                retired.rename(folder)
            raise
        finally:
            with suppress(OSError):  # not every system removes a file that is open
                lock.unlink()
        shutil.rmtree(retired, ignore_errors=True)


def _write_info(making: Path, bank: SyntheticBank, kind: str) -> None:
    """Write what the rows cannot say, and what an export is known by when it is to be replaced."""
    write_json(
        making / INFO,
        {
            "format": FORMAT,
            "kind": kind,
            "count": len(bank),
            "classes": list(bank.classes),
            "class_counts": bank.class_counts,
            "dtype": str(bank.pixel_dtype).removeprefix("torch."),
            "shape": list(bank.image_shape),
            "window": bank.window,
            "mask_classes": None if bank.mask_classes is None else list(bank.mask_classes),
            "sources": list(bank.sources),
        },
    )


def flush_file(path: Path) -> None:
    """Make a file that was just written survive a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _check_replaceable(folder: Path, given: str | Path, kind: str, *, overwrite: bool) -> None:
    """Nothing is replaced but an empty folder and, when told to, an export of the same kind with nothing else in it."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise OverwriteError(f"{given}: not empty; give another folder, or overwrite=True to replace an earlier export")
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if not isinstance(info, dict) or (info.get("format"), info.get("kind")) != (FORMAT, kind):
        raise OverwriteError(f"{given}: holds no {kind} export: it is not overwritten; give another folder")
    names = (
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    )
    foreign = sorted(name for name in names if name != INFO and not _FILES[kind].fullmatch(name))
    if foreign:
        raise OverwriteError(
            f"{given}: holds files that are not the export's ({', '.join(foreign[:3])}): move them away, "
            "or give another folder"
        )
