"""A bank's files, changed by somebody who knows the format: sizes and checksums are made right again."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from genmix_transforms.bank.manifest import INDEX

from .attack import SHARDS

Change = Callable[[Any], Any]
"""Changes a JSON value in place, or returns another."""


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    replace(path, bytes(content))


def flip_pixel(path: Path) -> None:
    """Flip a bit of a shard's first image."""
    flip(path, place_of(path.read_bytes(), "images") + 5)


def replace(path: Path, content: bytes) -> None:
    """Another file of that name: what has the old one mapped keeps it."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def edit_manifest(folder: Path, change: Change) -> None:
    """Change what the manifest says."""
    path = folder / INDEX
    content = json.loads(path.read_text(encoding="utf-8"))
    content = change(content) or content
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_entry(folder: Path, number: int, **changes: Any) -> None:
    """Change what the manifest says of a shard."""
    edit_manifest(folder, lambda manifest: manifest["shards"][number].update(changes))


def reseal(folder: Path, number: int = 0) -> None:
    """Make the manifest's size and checksum of a shard those of the file as it is now."""
    content = (folder / SHARDS[number]).read_bytes()
    edit_entry(folder, number, bytes=len(content), xxh3=xxhash.xxh3_64_hexdigest(content))


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A shard's header, and its tensors' bytes."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, tensors: bytes) -> bytes:
    """A shard of these; ``header`` is a JSON value, or its bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + tensors


def place_of(content: bytes, name: str) -> int:
    """Of the first byte of a tensor, in a shard's file."""
    header, tensors = parts(content)
    return len(content) - len(tensors) + header[name]["data_offsets"][0]


def edit_header(folder: Path, change: Change, number: int = 0) -> None:
    """Change a shard's header; the manifest agrees."""
    path = folder / SHARDS[number]
    header, tensors = parts(path.read_bytes())
    replace(path, joined(change(header) or header, tensors))
    reseal(folder, number)


def edit_column(folder: Path, name: str, value: Any, row: int | slice = slice(None), number: int = 0) -> None:
    """Change a tensor of a shard; the manifest agrees."""
    path = folder / SHARDS[number]
    header, tensors = parts(path.read_bytes())
    begin, end = header[name]["data_offsets"]
    kinds = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32}
    column = np.frombuffer(tensors[begin:end], kinds[header[name]["dtype"]]).reshape(header[name]["shape"]).copy()
    column[row] = value
    replace(path, joined(header, tensors[:begin] + column.tobytes() + tensors[end:]))
    reseal(folder, number)
