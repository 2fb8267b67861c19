"""A shard: an immutable safetensors file of some thousand images with all that is known of each.

Shards are written with the safetensors library, and anybody's safetensors reader opens them. They are read here by an
own, stricter one, see ``shard_header.py``.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.checks import check_tensors
from genmix_transforms.bank.manifest import Manifest, ShardEntry
from genmix_transforms.bank.shard_header import header_bytes, read_facts, read_layout
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.atomic import new_file

SHARD_BYTES = 256 * 2**20
"""A shard is closed before it grows past this many bytes of pixels."""

_PIECE_BYTES = 2**20
"""So much is written at a time: it stays in the processor's cache while it is gathered, written and hashed."""

_SAFETENSORS = {
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float32: "F32",
}
_KEPT = {"seeds": "I64", "source": "I32", "distance": "F32", "flags": "U8"}
KEPT_ON_CPU = tuple(_KEPT)
"""Columns that no training step reads."""


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
    labels = rows.index_labels.cpu()
    order = None if bool((labels[1:] >= labels[:-1]).all()) else torch.argsort(labels, stable=True)
    # Widest numbers first, so that each tensor lies where its type may; of bytes the images first, for the same reason.
    columns = sorted(rows._asdict().items(), key=lambda column: (-column[1].itemsize, -column[1].nbytes, column[0]))
    header = header_bytes(
        {name: (_SAFETENSORS[column.dtype], tuple(column.shape)) for name, column in columns},
        {"classes": list(classes), "fill": fill},
    )
    digest = xxhash.xxh3_64(header)
    with new_file(path) as file:
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
        count, classes = entry.count, len(manifest.classes)
        expected = (
            ("images", {"uint8": "U8", "uint16": "U16"}[manifest.dtype], (count, *manifest.shape)),
            ("labels", "I64", (count,)) if manifest.labels == "index" else ("labels", "F32", (count, classes)),
            *((name, kind, (count,)) for name, kind in _KEPT.items()),
        )
        layout = read_layout(path, expected, size=entry.bytes)
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
        self.images = self.column("images")
        self.labels = self.column("labels")
        self._check_labels(classes)

    def column(self, name: str) -> NDArray[Any]:
        """A tensor of the shard, over the mapped file."""
        dtype, shape, begin, end = self._places[name]
        column: NDArray[Any] = self._bytes[begin:end].view(dtype).reshape(shape)
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


def shard_fill(path: Path) -> str | None:
    """The fill that a shard belongs to.

    Raises:
        CorruptFileError: not a shard.
    """
    fill = read_facts(path).get("fill")
    return fill if isinstance(fill, str) else None


def describe_shard(path: Path, bank: Manifest) -> ShardEntry:
    """What the manifest is to say of a shard that another process, or an earlier run, has written.

    Args:
        path: of the shard.
        bank: that it belongs to.

    Raises:
        CorruptFileError: not a whole shard, or not one of this bank.
    """
    shard_fill(path)
    content = path.read_bytes()
    try:
        rows = Rows(**safetensors.torch.load(content)).checked()
        check_tensors(rows.images, rows.labels, bank.classes)
    except (safetensors.SafetensorError, TypeError, InputError) as error:
        raise CorruptFileError(f"{path}: not a whole shard ({error})") from error
    if not len(rows.images):
        raise CorruptFileError(f"{path}: a shard without images")
    checksum = xxhash.xxh3_64_hexdigest(content)
    entry = _entry(path, rows, num_classes=len(bank.classes), size=len(content), xxh3=checksum)
    Shard(path.parent, entry, bank)  # which looks at all the rest
    return entry
