"""Rows that are made and in no shard yet, kept in a file beside the shards: a kill loses a minute of work, no more."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from genmix_transforms.bank.manifest import is_kept_name, kept_name
from genmix_transforms.bank.rows import Rows
from genmix_transforms.bank.shard import HEADER_KEY, fill_of
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.files.tensors import read_tensors

log: logging.Logger = logging.getLogger(__name__)

KEEP_EVERY = 60.0
"""Seconds of work that a killed process loses at most."""


class KeptRows:
    """The rows that one process has made, and those that earlier ones have left.

    Args:
        folder: of the bank.
        identity: of the fill that the rows belong to.
        classes: of the bank.
        share: ``(rank, count)`` of this process. The same share is never two processes' at once.
    """

    def __init__(self, folder: Path, *, identity: str, classes: Sequence[str], share: tuple[int, int]) -> None:
        self._folder, self._identity = folder, identity
        self._facts = json.dumps({"classes": list(classes), "fill": identity})
        self._own = folder / kept_name(*share)
        self._saved, self._cost = time.monotonic(), 0.0

    def load(self) -> Iterator[Rows]:
        """Yield what there is of this fill, whoever made it."""
        for path in self._files():
            try:
                tensors, _ = read_tensors(path)
                yield Rows(**tensors)
            except (CorruptFileError, InputError, TypeError) as error:  # they are made again
                log.warning("%s; its images are drawn again", error)

    def save(self, rows: Rows) -> None:
        """Keep these rows, and no others of this process."""
        begun = time.monotonic()
        write_tensors(self._own, rows.columns, metadata={HEADER_KEY: self._facts})
        self._saved = time.monotonic()
        self._cost = self._saved - begun

    def save_now_and_then(self, rows: Callable[[], Rows]) -> None:
        """Keep these rows, if the last time is long enough ago."""
        if time.monotonic() - self._saved > max(KEEP_EVERY, 20 * self._cost):
            self.save(rows())

    def remove(self, *, everyones: bool) -> None:
        """Remove what this process has kept, or everything kept of this fill."""
        for path in self._files() if everyones else [self._own]:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        there = sorted(path for path in self._folder.iterdir() if is_kept_name(path.name))
        return [path for path in there if fill_of(path) == self._identity]
