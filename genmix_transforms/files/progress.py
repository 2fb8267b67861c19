"""Progress bars, and one switch for all of them."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_shown = True


def show_progress_bars(shown: bool) -> None:
    """Show progress bars from now on, or none: those of long reads have no ``progress`` argument of their own."""
    global _shown
    _shown = shown


def progress_bar(items: Iterable[Any] | None = None, *, disable: bool = False, **options: Any) -> "tqdm[Any]":
    """A tqdm bar, hidden where ``disable`` says so or bars are switched off; ``options`` are tqdm's."""
    return tqdm(items, disable=disable or not _shown, **options)
