"""Files that grow by whole lines: what was appended is on disk before the writer goes on, and survives a kill."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from genmix_transforms.errors import CorruptFileError
from genmix_transforms.files.atomic import flush_folder
from genmix_transforms.files.disk import write_error
from genmix_transforms.files.locking import locked
from genmix_transforms.files.strict_json import parse_json

MAX_LINE_BYTES = 4096
"""A longer line is none that was written here."""

PATIENCE = 10.0
"""Seconds to wait for another process that appends: it holds the lock for the time of one flush."""

_PIECE_BYTES = 2**20


class Journal:
    """JSON objects, one a line, that several processes append to and read at the same time.

    A line counts when its end is written. What a killed writer has left of a line is no line: readers pass it over, and
    the next writer cuts it off. Lines are never changed.

    Args:
        path: the file; its folder must exist. It is made with the first line.
        lock: held while a line is written; beside the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     journal = Journal(Path(folder, "notes.jsonl"), lock=Path(folder, ".notes.lock"))
        ...     journal.append({"row": 3})
        ...     list(journal.new())
        [{'row': 3}]
    """

    def __init__(self, path: Path, *, lock: Path) -> None:
        self.path = path
        self._lock = lock
        self._position = self._lines = 0

    def append(self, *records: Mapping[str, Any]) -> None:
        """Append a line for each record, and flush them to the disk. Without records: find out whether that would work.

        Raises:
            OverwriteError: another process holds the lock all the time.
            DiskFullError: the disk is full; the file is as it was.
            UnwritableError: the folder is read-only, or not the user's.
        """
        lines = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
        busy = f"{self.path}: another process has been writing this file for {PATIENCE:g} seconds; stop it"
        with locked(self._lock, busy=busy, patience=PATIENCE):
            is_new = not self.path.exists()
            try:
                with open(self.path, "ab+") as file:
                    _append_whole(file, lines)
            except OSError as error:
                raise write_error(error, self.path, temporary=self.path) from error
            if is_new:
                flush_folder(self.path.parent)

    def new(self) -> Iterator[dict[str, Any]]:
        """The records that were appended since this was last asked, by whomever.

        Raises:
            CorruptFileError: a line that is no JSON object, or a file that has become shorter.
        """
        with self._opened() as file:
            if file is None:
                return
            if file.seek(0, os.SEEK_END) < self._position:
                raise CorruptFileError(f"{self.path}: lines that were there are gone; take the file from its copy")
            file.seek(self._position)
            while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
                record = self._parsed(line)
                self._position += len(line)
                self._lines += 1
                yield record
            if len(line) == MAX_LINE_BYTES:
                self._parsed(line)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO | None]:
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            if self._position:
                raise CorruptFileError(f"{self.path}: the file is gone; take it from its copy") from None
            yield None
            return
        except OSError as error:
            raise CorruptFileError(f"{self.path}: cannot be read ({error.strerror})") from error
        with file:
            yield file

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            record = parse_json(line)
        except ValueError as error:
            raise CorruptFileError(f"{self.path}: line {self._lines + 1} is no JSON ({error})") from error
        if not isinstance(record, dict):
            raise CorruptFileError(f"{self.path}: line {self._lines + 1} must be an object, got {str(record)[:80]}")
        return record


def _append_whole(file: BinaryIO, lines: bytes) -> None:
    """Cut off what a killed writer has left of a line, then write these: all of them, or none."""
    end = _end_of_lines(file)
    file.truncate(end)
    try:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _PIECE_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
