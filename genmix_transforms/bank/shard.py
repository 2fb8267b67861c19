"""A shard: an immutable safetensors file of some thousand images with all that is known of each.

Anybody's safetensors reader opens a shard. It is written here piece by piece, for the library's own writer wants the
whole file in memory a second time; and it is read by a stricter parser than the library's: the manifest says
beforehand, to the byte, what a header must be. A bank of a thousand shards should open at once, so shards with the same
header (those of one fill have two kinds at most) are looked at once.
"""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.manifest import Manifest, ShardEntry
from genmix_transforms.bank.rows import DESCRIPTIONS, Rows, check_masks, check_tensors
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.atomic import new_file
from genmix_transforms.files.strict_json import parse_json
from genmix_transforms.files.tensors import header_bytes

SHARD_BYTES = 256 * 2**20
"""A shard is closed before it grows past this many bytes of pixels."""

MAX_HEADER_BYTES = 2**20
"""A shard has seven tensors at most: a header past one megabyte is none that we wrote."""

HEADER_KEY = "genmix_bank"
"""The one string in a shard's header. One only: safetensors writes several in random order, and equal shards should be
equal files."""

Expected = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype as safetensors spells it, and shape of each tensor."""

_PIECE_BYTES = 2**20
"""So much is written at a time: it stays in the processor's cache while it is gathered, written and hashed."""

_FIRST_READ = 4096
"""Most headers are shorter."""

_SPELLED = {torch.uint8: "U8", torch.uint16: "U16", torch.int32: "I32", torch.int64: "I64", torch.float32: "F32"}
_NUMPY: dict[str, np.dtype[Any]] = {
    spelled: np.dtype(str(dtype).removeprefix("torch.")) for dtype, spelled in _SPELLED.items()
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


def images_per_shard(shape: Sequence[int], dtype: torch.dtype, *, shard_bytes: int | None = None) -> int:
    """How many images of ``shape`` one shard holds."""
    return max(1, (SHARD_BYTES if shard_bytes is None else shard_bytes) // max(1, math.prod(shape) * dtype.itemsize))


# Writing


def write_shard(path: Path, rows: Rows, *, classes: Sequence[str], fill: str | None = None) -> ShardEntry:
    """Write one shard, whole or not at all.

    Args:
        path: its final name.
        rows: at least one, in any order: they are written class by class.
        classes: of the bank.
        fill: the fill it belongs to.

    Returns:
        What the manifest says of it.
    """
    labels = rows.index_labels.cpu()
    order = None if bool((labels[1:] >= labels[:-1]).all()) else torch.argsort(labels, stable=True)
    # Widest numbers first, so that each tensor lies where its type may; of bytes the images first, for the same reason.
    columns = sorted(rows.columns.items(), key=lambda column: (-column[1].itemsize, -column[1].nbytes, column[0]))
    header = header_bytes(
        {name: (_SPELLED[column.dtype], tuple(column.shape)) for name, column in columns},
        {HEADER_KEY: json.dumps({"classes": list(classes), "fill": fill})},
    )
    digest = xxhash.xxh3_64(header)
    with new_file(path, shared=True) as file:
        file.write(header)
        for _, column in columns:
            for piece in _pieces(column, order):
                file.write(piece)
                digest.update(piece)
        size = file.tell()
    return _entry(path, rows, num_classes=len(classes), size=size, xxh3=digest.hexdigest())


def _pieces(column: Tensor, order: Tensor | None) -> Iterator[memoryview]:
    """A column's bytes in the order of the rows, without a second copy of all of it."""
    some = max(1, _PIECE_BYTES * len(column) // max(1, column.nbytes))
    for first in range(0, len(column), some):
        part = column[first : first + some] if order is None else column[order[first : first + some].to(column.device)]
        yield part.detach().cpu().contiguous().numpy().data.cast("B")


def _entry(path: Path, rows: Rows, *, num_classes: int, size: int, xxh3: str) -> ShardEntry:
    """What the manifest says of a file with these rows."""
    pixels = rows.images.detach().cpu().numpy()  # torch has no minimum of uint16
    return ShardEntry(
        file=path.name,
        bytes=size,
        count=len(pixels),
        class_counts=tuple(torch.bincount(rows.index_labels, minlength=num_classes).tolist()),
        pixel_range=(int(pixels.min()), int(pixels.max())),
        xxh3=xxh3,
    )


# Reading


class Shard:
    """A shard, memory-mapped: no file stays open, and nothing is read before it is used.

    Args:
        folder: of the bank.
        entry: what the manifest says of it.
        manifest: of the bank.

    Attributes:
        images: ``(n, C, *spatial)``, uint8 or uint16, the mapped file itself.
        masks: ``(n, *spatial)``, uint8, likewise; None: the bank has no masks.
        labels: int64 ``(n,)`` or float32 ``(n, K)``, checked: sorted by class, as many of each as the manifest says.

    Raises:
        CorruptFileError: missing, truncated, or not what the manifest says.
    """

    entry: ShardEntry
    path: Path

    def __init__(self, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
        path = folder / entry.file
        self.path, self.entry = path, entry
        count, classes = entry.count, len(manifest.classes)
        layout = read_layout(
            path,
            (
                ("images", _SPELLED[manifest.pixel_dtype], (count, *manifest.shape)),
                ("labels", "I64", (count,)) if manifest.labels == "index" else ("labels", "F32", (count, classes)),
                *((name, _SPELLED[dtype], (count,)) for name, dtype in DESCRIPTIONS.items()),
                *([] if manifest.mask_classes is None else [("masks", "U8", (count, *manifest.shape[1:]))]),
            ),
            size=entry.bytes,
        )
        of_classes = layout.facts.get("classes")
        if of_classes != list(manifest.classes):
            raise CorruptFileError(
                f"{path}: a shard of a bank of other classes: {of_classes}, the manifest says {list(manifest.classes)}"
            )
        self._places = layout.places
        # Private: writes never reach the file. And no file stays open: there may be thousands.
        self._bytes: NDArray[np.uint8] = torch.from_file(
            str(path), shared=False, size=entry.bytes, dtype=torch.uint8
        ).numpy()
        self.images: NDArray[Any] = self.column("images")
        self.masks: NDArray[Any] | None = None if manifest.mask_classes is None else self.column("masks")
        self.labels: NDArray[Any] = self.column("labels")
        self._check_labels(classes)

    def column(self, name: str) -> NDArray[Any]:
        """A tensor of the shard, over the mapped file."""
        dtype, shape, begin, end = self._places[name]
        column: NDArray[Any] = self._bytes[begin:end].view(dtype).reshape(shape)
        return column

    def is_as_written(self) -> bool:
        """Whether the file is the one that was written: reads all of it, and compares the checksums."""
        return xxhash.xxh3_64_hexdigest(memoryview(self._bytes)) == self.entry.xxh3  # type: ignore[arg-type]

    def _check_labels(self, classes: int) -> None:
        labels = self.labels
        if labels.ndim == 2:
            if not bool(np.isfinite(labels).all()) or bool((labels < 0).any()):
                raise CorruptFileError(f"{self.path}: label probabilities that are negative or not numbers")
            labels = labels.argmax(axis=1)
        counts = self.entry.class_counts
        if not _in_runs(labels, np.array(counts)):
            raise CorruptFileError(
                f"{self.path}: its labels are not those that the manifest counts, class by class: {counts}"
            )


def _in_runs(labels: NDArray[Any], counts: NDArray[np.int64]) -> bool:
    """Whether labels are sorted, and so many of each class. Without a second copy of them: a shard may be large."""
    there = np.flatnonzero(counts)
    ends = counts.cumsum()
    first, last = labels[(ends - counts)[there]], labels[ends[there] - 1]
    return bool((first == there).all() and (last == there).all() and (labels[1:] >= labels[:-1]).all())


def fill_of(path: Path) -> str | None:
    """The fill that a shard belongs to; None: to none, or the file is no shard."""
    try:
        fill = read_facts(path).get("fill")
    except CorruptFileError:
        return None
    return fill if isinstance(fill, str) else None


def describe_shard(path: Path, bank: Manifest) -> ShardEntry:
    """What the manifest is to say of a shard of this bank that another process, or an earlier run, has written.

    Raises:
        CorruptFileError: not a whole shard, or not one of this bank.
    """
    read_facts(path)
    content = path.read_bytes()
    try:
        rows = Rows(**safetensors.torch.load(content)).checked(sources=len(bank.sources))
        check_tensors(rows.images, rows.labels, bank.classes)
        check_masks(rows.images, rows.masks, bank.mask_classes)
    except (safetensors.SafetensorError, TypeError, InputError) as error:
        raise CorruptFileError(f"{path}: not a whole shard ({error})") from error
    if not len(rows.images):
        raise CorruptFileError(f"{path}: a shard without images")
    checksum = xxhash.xxh3_64_hexdigest(content)
    entry = _entry(path, rows, num_classes=len(bank.classes), size=len(content), xxh3=checksum)
    Shard(path.parent, entry, bank)  # which looks at all the rest
    return entry


def read_layout(path: Path, expected: Expected, *, size: int) -> Layout:
    """Where each tensor of a shard lies.

    Args:
        path: of the shard.
        expected: what it must have.
        size: the file's, as the manifest has it.

    Raises:
        CorruptFileError: no such file, of another size, or a header that says anything else.
    """
    with _naming(path):
        return _layout(_raw_header(path, size=size), expected, size)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the shard's path before what is wrong with it."""
    try:
        yield
    except CorruptFileError as error:
        raise CorruptFileError(f"{path}: {error}") from error


def read_facts(path: Path) -> Mapping[str, Any]:
    """What a shard's header says of the bank and the fill it belongs to.

    Raises:
        CorruptFileError: not a shard.
    """
    with _naming(path):
        return _facts(_parsed(_raw_header(path)))


def _raw_header(path: Path, *, size: int | None = None) -> bytes:
    # Without O_NONBLOCK, to open a named pipe would wait for its writer for ever. Not every system has each of these.
    flags = (getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
    try:
        file = os.open(path, os.O_RDONLY | sum(flags))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptFileError("the manifest names this shard, but there is no such file") from error
    except OSError as error:
        raise CorruptFileError(f"the shard cannot be opened ({error.strerror})") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFileError("the manifest names this shard, but it is no file")
        if size is not None and status.st_size != size:
            raise CorruptFileError(f"{status.st_size:,} bytes, the manifest says {size:,}: not a whole shard")
        raw = os.read(file, _FIRST_READ)
        length = int.from_bytes(raw[:8], "little")
        if length > MAX_HEADER_BYTES:
            raise CorruptFileError(f"its header claims {length:,} bytes; a shard's has at most {MAX_HEADER_BYTES:,}")
        while len(raw) < 8 + length and (more := os.read(file, 8 + length - len(raw))):
            raw += more
    finally:
        os.close(file)
    if len(raw) < 8 + length or not length:
        raise CorruptFileError("not a whole shard (no header)")
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
