"""Work that several processes share through a folder: each takes what no other one is at."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")

_PAUSE = 1.0
"""Seconds before looking again, when others are at all that is left."""


def take_turns(items: Iterable[T], *, lock: Callable[[T], Path]) -> Iterator[T]:
    """Every item, each under its lock; those that another process is at come last, once it is through with them.

    All processes are given all items: who finds one done already only reads it. A process that dies leaves no lock.

    Args:
        items: pieces of work.
        lock: the file to lock for an item; its folder is made.

    Example:
        >>> list(take_turns(["a", "b"], lock=lambda item: Path(f"locks/{item}.lock")))
        ['a', 'b']
    """
    waiting = deque(items)
    refused = 0
    while waiting:
        item = waiting.popleft()
        path = lock(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path)
        try:
            held.acquire(timeout=0)
        except Timeout:
            waiting.append(item)
            refused += 1
            if refused >= len(waiting):
                time.sleep(_PAUSE)
                refused = 0
            continue
        refused = 0
        try:
            yield item
        finally:
            held.release()
