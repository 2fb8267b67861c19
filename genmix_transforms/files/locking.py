"""Locks between processes: whoever holds one is the only one. The system ends it when the process is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from genmix_transforms.errors import OverwriteError


@contextmanager
def locked(path: Path, *, busy: str, patience: float = 0) -> Iterator[None]:
    """Hold a lock for as long as the block lasts. The lock's file stays.

    Args:
        path: the lock's file. Its folder must exist.
        busy: what to say when another process holds the lock.
        patience: for how many seconds to wait for it.

    Raises:
        OverwriteError: another process holds it, or the file cannot be locked.
    """
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise OverwriteError(busy) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OverwriteError(
            f"{path.parent}: {path.name} cannot be locked ({reason}); is it a file of yours?"
        ) from error
    try:
        yield
    finally:
        lock.release()
