"""Files that are whole or not there: written to a temporary name, flushed to disk, then renamed.

A process may be killed at any moment, and a disk may run full; what stands under a final name is always complete.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from genmix_transforms.files.disk import write_error
from genmix_transforms.files.tensors import file_pieces


@contextmanager
def new_file(path: Path, *, shared: bool = False) -> Iterator[BinaryIO]:
    """A file to write; ``path`` keeps its old content until the block ends well, and then has all of the new.

    Args:
        path: the file to write. Its folder must exist.
        shared: several processes may write this same file at once (each then uses a temporary name of its own:
            a random one, for process numbers repeat from machine to machine and from container to container).
            Otherwise the temporary name is fixed, so that a run that goes on after a kill replaces what was left.

    Raises:
        DiskFullError: the disk is full.
        UnwritableError: the folder is read-only, or not the user's.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp" if shared else f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        told = write_error(error, path, temporary=temporary) if isinstance(error, OSError) else error
        temporary.unlink(missing_ok=True)
        if told is error:
            raise
        raise told from error
    flush_folder(path.parent)


def write_bytes(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Write ``content`` to ``path``, whole or not at all; ``shared`` as for :func:`new_file`."""
    with new_file(path, shared=shared) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any, *, shared: bool = False) -> None:
    """Write ``content`` as JSON, readable by people too, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(), shared=shared)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as a safetensors file with a checksum, whole or not at all.

    :func:`~genmix_transforms.files.tensors.read_tensors` reads it, and compares the checksum.
    """
    with new_file(path) as file:
        for piece in file_pieces(tensors, metadata or {}):
            file.write(piece)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in ``folder``. Call it when nobody else writes there."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut (a folder cannot be flushed on every system: then it is not)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
