"""The header of a shard: read by a parser that is stricter than safetensors' own, and written without the shard.

The manifest says beforehand, to the byte, what a shard's header must be; and a bank of a thousand shards should open at
once, so shards with the same header (those of one fill have two kinds at most) are looked at once.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genmix_transforms.errors import CorruptFileError
from genmix_transforms.files.strict_json import parse_json

MAX_HEADER_BYTES = 2**20
"""A shard has six tensors: a header past one megabyte is none that we wrote."""

HEADER_KEY = "genmix_bank"
"""The one string in a shard's header. One only: safetensors writes several in random order, and equal shards should be
equal files."""

Expected = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype as safetensors spells it, and shape of each tensor."""

_FIRST_READ = 4096
"""Most headers are shorter."""

_NUMPY: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F32": np.dtype(np.float32),
}


class Place(NamedTuple):
    """Where a tensor lies in its file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class Layout(NamedTuple):
    """What a shard's header says."""

    places: Mapping[str, Place]
    facts: Mapping[str, Any]
    """Of the bank and the fill it belongs to."""


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], facts: Mapping[str, Any]) -> bytes:
    """The first bytes of a safetensors file, up to its first tensor.

    Safetensors' own writer wants the whole file in memory, a second time.

    Args:
        tensors: dtype as safetensors spells it, and shape, of each, in the order in which they will follow.
        facts: of the bank and the fill.
    """
    header: dict[str, Any] = {"__metadata__": {HEADER_KEY: json.dumps(facts)}}
    position = 0
    for name, (kind, shape) in tensors.items():
        end = position + math.prod(shape) * _NUMPY[kind].itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def read_layout(path: Path, expected: Expected, *, size: int) -> Layout:
    """Where each tensor of a shard lies.

    Args:
        path: of the shard.
        expected: what it must have.
        size: the file's, as the manifest has it.

    Raises:
        CorruptFileError: no such file, of another size, or a header that says anything else.
    """
    raw = _raw_header(path, size=size)
    try:
        return _layout(raw, expected, size)
    except CorruptFileError as error:
        raise CorruptFileError(f"{path}: {error}") from error


def read_facts(path: Path) -> Mapping[str, Any]:
    """What a shard's header says of the bank and the fill it belongs to.

    Raises:
        CorruptFileError: not a shard.
    """
    raw = _raw_header(path)
    try:
        return _facts(_parsed(raw))
    except CorruptFileError as error:
        raise CorruptFileError(f"{path}: {error}") from error


def _raw_header(path: Path, *, size: int | None = None) -> bytes:
    try:
        # Without O_NONBLOCK, to open a named pipe would wait for its writer for ever.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptFileError(f"{path}: the manifest names this shard, but there is no such file") from error
    except OSError as error:
        raise CorruptFileError(f"{path}: the shard cannot be opened ({error.strerror})") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFileError(f"{path}: the manifest names this shard, but it is no file")
        if size is not None and status.st_size != size:
            raise CorruptFileError(f"{path}: {status.st_size:,} bytes, the manifest says {size:,}: not a whole shard")
        raw = os.read(file, _FIRST_READ)
        length = int.from_bytes(raw[:8], "little")
        if length > MAX_HEADER_BYTES:
            raise CorruptFileError(
                f"{path}: its header claims {length:,} bytes; a shard's has at most {MAX_HEADER_BYTES:,}"
            )
        while len(raw) < 8 + length and (more := os.read(file, 8 + length - len(raw))):
            raw += more
    finally:
        os.close(file)
    if len(raw) < 8 + length or not length:
        raise CorruptFileError(f"{path}: not a whole shard (no header)")
    return raw[8 : 8 + length]


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise CorruptFileError(f"not a whole shard ({type(error).__name__}: {error})") from error
    if not isinstance(header, dict):
        raise CorruptFileError("not a whole shard (no header)")
    return header


def _facts(header: Mapping[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    text = metadata.get(HEADER_KEY) if isinstance(metadata, dict) else None
    try:
        facts = parse_json(text.encode()) if isinstance(text, str) else None
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise CorruptFileError(f"not a bank's shard: its header has no {HEADER_KEY!r}")
    return facts


@lru_cache(maxsize=32)
def _layout(raw: bytes, expected: Expected, size: int) -> Layout:
    """What a header says, if it says what it must: the tensors tile the file, without gaps."""
    header = _parsed(raw)
    names = [name for name, _, _ in expected]
    if header.keys() - {"__metadata__"} != set(names):
        raise CorruptFileError(f"a shard has {', '.join(names)}; this file has {str(list(header))[:200]}")
    start = 8 + len(raw)
    places = {name: _place(name, header[name], kind, shape, start=start) for name, kind, shape in expected}
    position = start
    for place in sorted(places.values(), key=lambda place: place.begin):
        if place.begin != position:
            raise CorruptFileError("its tensors overlap or leave gaps")
        position = place.end
    if position != size:
        raise CorruptFileError(f"{size - start:,} bytes of tensors, its header says {position - start:,}")
    return Layout(places, _facts(header))


def _place(name: str, entry: Any, kind: str, shape: tuple[int, ...], *, start: int) -> Place:
    dtype = _NUMPY[kind]
    got = {key: entry.get(key) for key in ("dtype", "shape")} if isinstance(entry, dict) else entry
    # As text: in Python, 5.0 and 5, and True and 1, are equal.
    if not isinstance(entry, dict) or got["dtype"] != kind or repr(got["shape"]) != repr(list(shape)):
        raise CorruptFileError(f"the manifest says {kind} {list(shape)} for {name}, the shard {str(got)[:200]}")
    match entry.get("data_offsets"):
        case [int(begin), int(end)] if (
            not isinstance(begin, bool)
            and not isinstance(end, bool)
            and begin >= 0
            and end - begin == math.prod(shape) * dtype.itemsize
            and (start + begin) % dtype.itemsize == 0
        ):
            return Place(dtype, shape, start + begin, start + end)
        case offsets:
            raise CorruptFileError(f"{name} cannot lie at {str(offsets)[:80]}")
