"""Progress bars, and one switch for all of them."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

_shown = True

LOG_INTERVAL = 60.0
"""Seconds between two lines of progress in a log."""


def show_progress_bars(shown: bool) -> None:
    """Show progress bars from now on, or none: those of long reads have no ``progress`` argument of their own."""
    global _shown
    _shown = shown


def progress_bar(items: Iterable[Any] | None = None, *, disable: bool = False, **options: Any) -> "tqdm[Any]":
    """Make a tqdm bar: on a terminal and in a notebook one that moves, elsewhere a line a minute.

    Args:
        items: what to go through, or None where the bar is moved by hand.
        disable: show nothing; so do bars that :func:`show_progress_bars` has switched off.
        **options: tqdm's.
    """
    disable = disable or not _shown
    if disable or _is_watched():
        return tqdm(items, disable=disable, **options)
    log = {"file": _Lines(sys.stderr), "mininterval": LOG_INTERVAL, "miniters": 1, "ascii": True}
    return _LogBar(items, **{**log, **options})


def _is_watched() -> bool:
    return "ipykernel" in sys.modules or sys.stderr.isatty()


class _LogBar(tqdm):
    """A bar that shows new numbers when its time has come, and not at once."""

    def set_postfix(self, *args: Any, refresh: bool | None = False, **kwargs: Any) -> None:
        super().set_postfix(*args, refresh=False, **kwargs)

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        super().set_postfix_str(s, refresh=False)


class _Lines:
    """A text stream where nothing can be written over: each state of a bar is a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if text := text.strip():
            self.stream.write(f"{text}\n")

    def flush(self) -> None:
        self.stream.flush()
