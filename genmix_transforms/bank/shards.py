"""A shard: an immutable safetensors file of some thousand images with all that is known of each.

Shards are written with the safetensors library, and anybody's safetensors reader opens them. They are read here by an
own, stricter parser: the manifest says beforehand, to the byte, what a shard's header must be, and a bank of a thousand
shards should open at once.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
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
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.atomic import write_bytes

SHARD_BYTES = 256 * 2**20
"""A shard is closed before it grows past this many bytes of pixels."""

MAX_HEADER_BYTES = 2**20
"""A shard has six tensors: a header past one megabyte is none that we wrote."""

HEADER_KEY = "genmix_bank"
"""The one string in a shard's header. One only: safetensors writes several in random order, and equal shards should be
equal files."""

Arrays = Mapping[str, NDArray[Any]]

_NUMPY = {
    "U8": np.uint8,
    "U16": np.uint16,
    "I32": np.int32,
    "I64": np.int64,
    "F32": np.float32,
}
_COLUMNS = {"seeds": "I64", "source": "I32", "distance": "F32", "flags": "U8"}


class Rows(NamedTuple):
    """Images, and all that is known of each."""

    images: Tensor
    """``(n, C, *spatial)``, uint8 or uint16."""
    labels: Tensor
    """int64 ``(n,)``, or float32 ``(n, K)``."""
    seeds: Tensor
    """int64 ``(n,)``; -1: from no seed."""
    source: Tensor
    """int32 ``(n,)``: index into the manifest's sources."""
    distance: Tensor
    """float32 ``(n,)``: to the nearest real image; NaN where nobody has measured."""
    flags: Tensor
    """uint8 ``(n,)``, see :class:`~genmix_transforms.bank.flags.Flag`."""

    @classmethod
    def complete(
        cls,
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Tensor | None = None,
        source: Tensor | None = None,
        distance: Tensor | None = None,
        flags: Tensor | None = None,
    ) -> "Rows":
        """Rows whose missing columns say that nothing is known."""
        count = len(images)
        return cls(
            images,
            labels,
            torch.full((count,), -1, dtype=torch.int64) if seeds is None else seeds,
            torch.zeros(count, dtype=torch.int32) if source is None else source,
            torch.full((count,), torch.nan) if distance is None else distance,
            torch.zeros(count, dtype=torch.uint8) if flags is None else flags,
        )

    def checked(self) -> "Rows":
        """The rows on the CPU, if every column has the dtype and the length that it must have.

        Raises:
            InputError: not so.
        """
        count = len(self.images)
        expected = {"seeds": torch.int64, "source": torch.int32, "distance": torch.float32, "flags": torch.uint8}
        for name, dtype in expected.items():
            column = getattr(self, name)
            if not isinstance(column, Tensor) or tuple(column.shape) != (count,) or column.dtype != dtype:
                got = f"{column.dtype} of shape {tuple(column.shape)}" if isinstance(column, Tensor) else repr(column)
                expected_type = str(dtype).removeprefix("torch.")
                raise InputError(f"SyntheticBank: {name} must be {expected_type} of shape ({count},), got {got}")
        if bool((self.distance < 0).any()):
            raise InputError("SyntheticBank: distance must not be negative")
        return Rows(*(column.detach().cpu() for column in self))

    @property
    def index_labels(self) -> Tensor:
        """int64 ``(n,)``: the label, or the most probable class."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(dim=1)

    def take(self, index: Tensor | slice) -> "Rows":
        """Some of the rows."""
        return Rows(*(column[index] for column in self))

    def sorted_by_class(self) -> "Rows":
        """The rows class by class; within a class in the order they had."""
        labels = self.index_labels
        if bool((labels[1:] >= labels[:-1]).all()):
            return self
        return self.take(torch.argsort(labels, stable=True))

    @classmethod
    def together(cls, several: "Sequence[Rows]") -> "Rows":
        """One after the other."""
        return several[0] if len(several) == 1 else cls(*(torch.cat(columns) for columns in zip(*several, strict=True)))


def images_per_shard(shape: Sequence[int], dtype: torch.dtype, *, shard_bytes: int | None = None) -> int:
    """How many images of ``shape`` one shard holds."""
    return max(1, (SHARD_BYTES if shard_bytes is None else shard_bytes) // max(1, math.prod(shape) * dtype.itemsize))


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
    rows = rows.sorted_by_class()
    # Copies where two columns share memory, which safetensors refuses.
    tensors = {name: column.detach().cpu().contiguous().clone() for name, column in rows._asdict().items()}
    content = safetensors.torch.save(tensors, {HEADER_KEY: _header(classes, fill)})
    write_bytes(path, content)
    counts = torch.bincount(rows.index_labels.cpu(), minlength=len(classes))
    pixels = tensors["images"].numpy()
    return ShardEntry(
        file=path.name,
        bytes=len(content),
        count=len(pixels),
        class_counts=tuple(counts.tolist()),
        pixel_range=(int(pixels.min()), int(pixels.max())),
        xxh3=xxhash.xxh3_64_hexdigest(content),
    )


def _header(classes: Sequence[str], fill: str | None) -> str:
    return json.dumps({"classes": list(classes), "fill": fill})


class Shard:
    """A shard, memory-mapped: no file stays open, and nothing is read before it is used.

    Args:
        folder: of the bank.
        entry: what the manifest says of it.
        manifest: of the bank.

    Attributes:
        images: ``(n, C, *spatial)``, uint8 or uint16, the mapped file itself.
        labels: int64 ``(n,)`` or float32 ``(n, K)``, checked: sorted by class, as many of each as the manifest says.

    Raises:
        CorruptFileError: missing, truncated, or not what the manifest says.
    """

    def __init__(self, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
        path = folder / entry.file
        self.path, self.entry = path, entry
        length, header = read_header(path, size=entry.bytes)
        count, classes = entry.count, len(manifest.classes)
        pixels = {"uint8": "U8", "uint16": "U16"}[manifest.dtype]
        expected: dict[str, tuple[str, list[int]]] = {
            "images": (pixels, [count, *manifest.shape]),
            "labels": ("I64", [count]) if manifest.labels == "index" else ("F32", [count, classes]),
            **{name: (kind, [count]) for name, kind in _COLUMNS.items()},
        }
        self._start = 8 + length
        self._layout = _checked_layout(path, header, expected, start=self._start, size=entry.bytes)
        of_classes = header_facts(path, header).get("classes")
        if of_classes != list(manifest.classes):
            raise CorruptFileError(
                f"{path}: a shard of a bank of other classes: {of_classes}, the manifest says {list(manifest.classes)}"
            )
        storage = torch.UntypedStorage.from_file(str(path), False, entry.bytes)  # private: writes never reach the file
        self._bytes: NDArray[np.uint8] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()  # type: ignore[arg-type]
        self.images = self.column("images")
        self.labels = self.column("labels")
        self._check_labels(classes)

    def column(self, name: str) -> NDArray[Any]:
        """A tensor of the shard, over the mapped file."""
        kind, shape, begin, end = self._layout[name]
        column: NDArray[Any] = self._bytes[self._start + begin : self._start + end].view(kind).reshape(shape)
        return column

    def xxh3(self) -> str:
        """The checksum of the file as it is now."""
        return xxhash.xxh3_64_hexdigest(memoryview(self._bytes))  # type: ignore[arg-type]

    def _check_labels(self, classes: int) -> None:
        labels = self.labels
        if labels.ndim == 2:
            if not bool(np.isfinite(labels).all()) or bool((labels < 0).any()):
                raise CorruptFileError(f"{self.path}: label probabilities that are negative or not numbers")
            labels = labels.argmax(axis=1)
        in_order = bool((labels[1:] >= labels[:-1]).all()) and labels[0] >= 0 and labels[-1] < classes
        if not in_order or tuple(np.diff(np.searchsorted(labels, np.arange(classes + 1)))) != self.entry.class_counts:
            raise CorruptFileError(
                f"{self.path}: its labels are not those that the manifest counts, class by class: "
                f"{self.entry.class_counts}"
            )


def read_header(path: Path, *, size: int | None = None) -> tuple[int, dict[str, Any]]:
    """The length and the content of a safetensors file's header.

    Args:
        path: of the file.
        size: the file's, as the manifest has it; None: any.

    Raises:
        CorruptFileError: no such file, of another size, or no header.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            actual = os.fstat(file.fileno()).st_size
            if size is not None and actual != size:
                raise CorruptFileError(f"{path}: {actual:,} bytes, the manifest says {size:,}: not a whole shard")
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise CorruptFileError(
                    f"{path}: its header claims {length:,} bytes; a shard's has at most {MAX_HEADER_BYTES:,}"
                )
            raw = file.read(length)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise CorruptFileError(f"{path}: the manifest names this shard, but there is no such file") from error
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not a whole shard ({type(error).__name__}: {error})") from error
    if len(raw) != length or not isinstance(header, dict):
        raise CorruptFileError(f"{path}: not a whole shard (no header)")
    return length, header


def header_facts(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """What a shard's header says of the bank and the fill it belongs to.

    Raises:
        CorruptFileError: a header without.
    """
    metadata = header.get("__metadata__")
    text = metadata.get(HEADER_KEY) if isinstance(metadata, dict) else None
    try:
        facts = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise CorruptFileError(f"{path}: not a bank's shard: its header has no {HEADER_KEY!r}")
    return facts


def shard_fill(path: Path) -> str | None:
    """The fill that a shard belongs to.

    Raises:
        CorruptFileError: not a shard.
    """
    fill = header_facts(path, read_header(path)[1]).get("fill")
    return fill if isinstance(fill, str) else None


def _checked_layout(
    path: Path, header: Mapping[str, Any], expected: Mapping[str, tuple[str, list[int]]], *, start: int, size: int
) -> dict[str, tuple[Any, list[int], int, int]]:
    """Where each tensor lies: dtype, shape, first byte, last byte and one. The tensors tile the file, without gaps."""
    if header.keys() - {"__metadata__"} != expected.keys():
        raise CorruptFileError(f"{path}: a shard has {', '.join(expected)}; this file has {str(list(header))[:200]}")
    layout = {}
    for name, (kind, shape) in expected.items():
        entry = header[name]
        if not isinstance(entry, dict) or entry.get("dtype") != kind or entry.get("shape") != shape:
            got = {key: entry.get(key) for key in ("dtype", "shape")} if isinstance(entry, dict) else entry
            raise CorruptFileError(f"{path}: the manifest says {kind} {shape} for {name}, the shard {str(got)[:200]}")
        numpy_type = np.dtype(_NUMPY[kind])
        match entry.get("data_offsets"):
            case [int(begin), int(end)] if (
                not isinstance(begin, bool)
                and not isinstance(end, bool)
                and begin >= 0
                and end - begin == math.prod(shape) * numpy_type.itemsize
                and (start + begin) % numpy_type.itemsize == 0
            ):
                layout[name] = (numpy_type, shape, begin, end)
            case offsets:
                raise CorruptFileError(f"{path}: {name} cannot lie at {str(offsets)[:80]}")
    position = 0
    for _, _, begin, end in sorted(layout.values(), key=lambda place: place[2]):
        if begin != position:
            raise CorruptFileError(f"{path}: its tensors overlap or leave gaps")
        position = end
    if start + position != size:
        raise CorruptFileError(f"{path}: {size - start:,} bytes of tensors, its header says {position:,}")
    return layout


def describe_shard(path: Path, *, num_classes: int) -> ShardEntry:
    """What the manifest is to say of a shard that another process, or an earlier run, has written.

    Raises:
        CorruptFileError: not a whole shard.
    """
    shard_fill(path)
    try:
        tensors = safetensors.torch.load_file(path)
        rows = Rows(**tensors)
    except (safetensors.SafetensorError, TypeError) as error:
        raise CorruptFileError(f"{path}: not a whole shard ({error})") from error
    pixels = rows.images.numpy()
    return ShardEntry(
        file=path.name,
        bytes=path.stat().st_size,
        count=len(pixels),
        class_counts=tuple(torch.bincount(rows.index_labels, minlength=num_classes).tolist()),
        pixel_range=(int(pixels.min()), int(pixels.max())),
        xxh3=xxhash.xxh3_64_hexdigest(path.read_bytes()),
    )
