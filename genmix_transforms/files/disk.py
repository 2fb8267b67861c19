"""Space on a disk: asked for before long work starts, and named where a write fails for want of it."""

import errno
import shutil
from pathlib import Path

from genmix_transforms.errors import DiskFullError, InputError, UnwritableError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def check_free_space(path: Path, needed: int, *, what: str) -> None:
    """Refuse work whose result does not fit on the disk.

    Call it before the work starts. A disk can still run full later: other programs write there too.

    Args:
        path: the file or folder that will be written; it may not exist yet.
        needed: how many bytes the work will write there.
        what: the subject of the message, such as "the bank".

    Raises:
        InputError: fewer bytes are free. The message names the path, both sizes and the way out.

    Example:
        >>> check_free_space(Path("banks/mine"), 10**18, what="the bank")
        Traceback (most recent call last):
        ...
        genmix_transforms.errors.InputError: banks/mine: the bank needs 1,000,000,000.00 GB, but only ...
    """
    free = shutil.disk_usage(_nearest_existing(path)).free
    if free < needed:
        raise InputError(
            f"{path}: {what} needs {size_text(needed)}, but only {size_text(free)} are free on that disk; "
            "free some space, or give a folder on another disk"
        )


def size_text(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> size_text(812), size_text(53_400), size_text(7_000_000), size_text(2_215_000_000)
        ('812 bytes', '53.4 kB', '7.0 MB', '2.21 GB')
    """
    for unit, size, digits in (("GB", 10**9, 2), ("MB", 10**6, 1), ("kB", 10**3, 1)):
        if count >= size:
            return f"{count / size:,.{digits}f} {unit}"
    return f"{count} bytes"


def write_error(error: OSError, path: Path, *, temporary: Path) -> OSError:
    """What to raise for an error met while ``path`` was written under a temporary name.

    Args:
        error: that was met.
        path: the file's final name, which the user knows.
        temporary: the name it is written under, which no message should show. What was written is still there.

    Returns:
        A :class:`DiskFullError` where the disk, the user's quota or the largest size of a file is reached, an
        :class:`UnwritableError` where the folder is read-only or not the user's, else the same kind of error with
        ``path`` in it. An error that is not of this file is returned as it is.
    """
    named = error.filename is not None
    if isinstance(error, DiskFullError | UnwritableError) or (named and Path(error.filename) != temporary):
        return error
    if error.errno in _FULL:
        written = temporary.stat().st_size if temporary.exists() else 0
        free = shutil.disk_usage(_nearest_existing(path)).free
        full = DiskFullError(
            f"{path}: the disk is full ({error.strerror}) after {size_text(written)} of this file; "
            f"{size_text(free)} are free. Free some space, and run the same command again"
        )
        full.errno = error.errno
        return full
    if error.errno in _REFUSED:
        return UnwritableError(f"{path}: cannot be written ({error.strerror}); give a folder that you may write to")
    return OSError(error.errno, error.strerror, str(path)) if named else error


def _nearest_existing(path: Path) -> Path:
    return next(there for there in (path, *path.parents) if there.exists())
