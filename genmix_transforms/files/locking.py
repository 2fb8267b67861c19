"""Locks between processes: whoever holds one is the only one. The system ends it when the process is killed."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genmix_transforms.errors import OverwriteError
from genmix_transforms.files.atomic import write_json


@contextmanager
def locked(path: Path, *, busy: str, patience: float = 0, note: Path | None = None) -> Iterator[None]:
    """Hold a lock for as long as the block lasts. The lock's file stays.

    Args:
        path: the lock's file. Its folder must exist.
        busy: what to say when another process holds the lock.
        patience: for how many seconds to wait for it.
        note: a file in which the holder says who it is, for the message of whoever comes second. It is not the lock's
            own file, which some systems empty when a second process looks at it.

    Raises:
        OverwriteError: another process holds it, or the file cannot be locked.
    """
    from filelock import FileLock, Timeout  # late: only writers need it

    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise OverwriteError(busy + _holder(note)) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OverwriteError(
            f"{path.parent}: {path.name} cannot be locked ({reason}); is it a file of yours?"
        ) from error
    try:
        if note is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(note, {"process": os.getpid(), "host": platform.node(), "since": since})
        yield
    finally:
        if note is not None:
            note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path | None) -> str:
    """Who holds the lock, as far as is known."""
    try:
        told = json.loads(note.read_text(encoding="utf-8")) if note is not None else {}
        return f" (process {told['process']} on {told['host']}, since {told['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
