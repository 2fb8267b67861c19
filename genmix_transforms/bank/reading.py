"""Many memory-mapped shards as one bank, class by class, without a copy and without an index of every image.

Each shard is sorted by class. So the images of a class are one run of rows in each shard, and the whole bank, class by
class, is a list of (number of classes) x (number of shards) runs. A row is found by a binary search among these.
"""

import ctypes
import math
import mmap
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.decisions import Decisions
from genmix_transforms.bank.manifest import Manifest
from genmix_transforms.bank.rows import DESCRIPTIONS, Rows, places_by_name
from genmix_transforms.bank.shard import Shard
from genmix_transforms.errors import InputError

Index = NDArray[np.int64]


class MappedRows:
    """The rows of several shards, class by class. It is a :class:`~genmix_transforms.bank.rows.Bank`.

    Args:
        folder: of the bank.
        manifest: of the bank.
        shards: opened before, by file name, to be used again; the rest is opened.

    Attributes:
        counts: NumPy's ``class_count``.
        decisions: what reviewers had decided when this was opened; the flags say it.

    Raises:
        CorruptFileError: a shard is not what the manifest says, or a decision is none; the message names the file.
    """

    folder: Path
    manifest: Manifest
    sources: tuple[Mapping[str, Any], ...]
    window: tuple[float, float] | None
    image_shape: tuple[int, ...]
    pixel_dtype: torch.dtype
    classes: tuple[str, ...]
    class_count: Tensor
    counts: Index

    def __init__(self, folder: Path, manifest: Manifest, *, shards: Mapping[str, Shard] | None = None) -> None:
        known = shards or {}
        self.folder, self.manifest = folder, manifest
        self.sources, self.window, self.label_kind = manifest.sources, manifest.window, manifest.labels
        self.image_shape, self.pixel_dtype = manifest.shape, manifest.pixel_dtype
        self.mask_classes = manifest.mask_classes
        self.shards: list[Shard] = [
            known[entry.file]
            if entry.file in known and known[entry.file].entry == entry
            else Shard(folder, entry, manifest)
            for entry in manifest.shards
        ]
        self.decisions: Decisions = Decisions(folder, manifest)
        self._images = _Gatherer([shard.images for shard in self.shards]) if self.shards else None
        masks = [shard.masks for shard in self.shards if shard.masks is not None]
        self._masks = _Gatherer(masks) if masks else None
        self._selection: Index | None = None
        self._lay_out(manifest.classes, range(len(manifest.classes)))

    def _lay_out(self, classes: tuple[str, ...], order: Sequence[int]) -> None:
        """Compute the runs, for the manifest's classes in this order (-1: a class that the bank does not have)."""
        self.classes, self._order = classes, tuple(order)
        self._runs = _Runs.of(self.shards, self._order, len(self.manifest.classes))
        self._count(self._runs.class_totals)

    def _count(self, counts: Index) -> None:
        self.counts, self.class_count = counts, torch.from_numpy(counts.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that does not share this process's memory maps the files itself.
        return _map_again, (self.folder, self.manifest, self.classes, self._order, self._selection)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def with_classes(self, classes: tuple[str, ...]) -> "MappedRows":
        """The same rows with their labels re-mapped, by name, to another list of classes.

        Raises:
            InputError: there are images of a class that ``classes`` does not name.
        """
        counts = self.counts.tolist() if self.label_kind == "index" else None
        new = places_by_name(self.classes, classes, counts=counts)
        other = self._copy()
        other._lay_out(classes, [self._order[place] if place >= 0 else -1 for place in new])
        if self._selection is not None:
            start = np.append(0, self.counts.cumsum())
            moved = [np.empty(0, dtype=np.int64)]
            for at, place in enumerate(new):
                if place >= 0:
                    part = self._selection[start[place] : start[place + 1]]
                    moved.append(part - self._runs.class_starts[place] + other._runs.class_starts[at])
            other._selection = np.concatenate(moved)
            other._count(np.array([self.counts[place] if place >= 0 else 0 for place in new], dtype=np.int64))
        return other

    def select(self, index: Index) -> "MappedRows":
        """Some of the rows.

        Args:
            index: ascending.
        """
        other = self._copy()
        other._count(np.diff(np.searchsorted(index, np.append(0, self.counts.cumsum()))))
        other._selection = index if self._selection is None else self._selection[index]
        return other

    def _copy(self) -> "MappedRows":
        other = object.__new__(MappedRows)
        other.__dict__.update(self.__dict__)
        return other

    def labels(self) -> Tensor:
        """int64 ``(N,)``, or float32 ``(N, K)``."""
        if self.label_kind == "index":
            return torch.from_numpy(np.repeat(np.arange(len(self.counts)), self.counts))
        rows = self._gathered("labels")
        columns = [rows[:, place] if place >= 0 else np.zeros(len(rows), rows.dtype) for place in self._order]
        return torch.from_numpy(np.stack(columns, axis=1))

    def column(self, name: str) -> Tensor:
        """``seeds``, ``source``, ``distance`` or ``flags`` of every row."""
        return torch.from_numpy(self._gathered(name))

    def images(self) -> Tensor:
        """Every image, ``(N, C, *spatial)``. A bank of one shard in its own order is not copied."""
        return self._whole("images")

    def masks(self) -> Tensor | None:
        """Every mask, uint8 ``(N, *spatial)``, as :meth:`images`; None: the bank has none."""
        return None if self.mask_classes is None else self._whole("masks")

    def _whole(self, name: str) -> Tensor:
        if len(self.shards) == 1 and self._selection is None and self._runs.in_file_order:
            return torch.from_numpy(self.shards[0].column(name))
        return torch.from_numpy(self._gathered(name))

    def in_memory(self) -> Rows:
        """Everything, in memory."""
        columns = {name: self.column(name) for name in DESCRIPTIONS}
        return Rows(self.images(), self.labels(), **columns, masks=self.masks())

    def rows(self, index: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
        """Copies of images by their numbers, int64 ``(n,)``: ``(n, C, *spatial)``, on a device.

        Raises:
            InputError: a number that there is no image of.
        """
        return self._taken("images", index, torch.device(device))

    def mask_rows(self, index: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
        """Copies of masks by the numbers of their images: uint8 ``(n, *spatial)``, as :meth:`rows`."""
        return self._taken("masks", index, torch.device(device))

    def _taken(self, name: str, index: Tensor, device: torch.device) -> Tensor:
        index = index.detach().cpu()
        check_numbers(index, len(self))
        if device.type != "cuda":
            return torch.from_numpy(self.take(index.numpy(), name=name)).to(device)
        shape, dtype = self._kind_of(name)
        pinned = torch.empty(len(index), *shape, dtype=dtype, pin_memory=True)
        self.take(index.numpy(), name=name, out=pinned.numpy())
        return pinned.to(device, non_blocking=True)

    def take(self, index: Index, *, name: str = "images", out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Copies of the images (or "masks") of some rows, whose numbers are in range; to ``out``, if it is given."""
        gatherer = self._masks if name == "masks" else self._images
        if not len(index) or gatherer is None:
            shape, dtype = self._kind_of(name)
            return torch.empty(0, *shape, dtype=dtype).numpy() if out is None else out
        shard, row = self.find(index)
        return gatherer.take(shard, row, out=out)

    def _kind_of(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of one image, or of one mask."""
        return (self.image_shape[1:], torch.uint8) if name == "masks" else (self.image_shape, self.pixel_dtype)

    def shard_column(self, shard: Shard, name: str) -> NDArray[Any]:
        """A tensor of a shard, in the order of its file; flags with what reviewers have decided since."""
        column = shard.column(name)
        return self.decisions.marked(shard.entry.file, column) if name == "flags" else column

    def find(self, index: Index) -> tuple[Index, Index]:
        """Where some images, by their numbers, lie: which of the shards, and which row of it."""
        return self._runs.find(index if self._selection is None else self._selection[index])

    def _gathered(self, name: str) -> NDArray[Any]:
        """A column of every row, in memory of its own."""
        columns = [self.shard_column(shard, name) for shard in self.shards]
        if not columns:
            if name in ("images", "masks"):
                shape, dtype = self._kind_of(name)
                return torch.empty(0, *shape, dtype=dtype).numpy()
            width = (0, len(self.manifest.classes)) if name == "labels" else (0,)
            return torch.empty(width, dtype={**DESCRIPTIONS, "labels": torch.float32}[name]).numpy()
        if self._selection is None:
            parts = [columns[number][first : first + count] for number, first, count in self._runs.listed()]
            return np.concatenate(parts) if parts else columns[0][:0].copy()
        out = np.empty((len(self), *columns[0].shape[1:]), dtype=columns[0].dtype)
        shard, row = self._runs.find(self._selection)
        for number, column in enumerate(columns):
            here = shard == number
            out[here] = column[row[here]]
        return out


def check_numbers(index: Tensor, count: int) -> None:
    """Refuse numbers of images, on the CPU, that a bank does not have.

    Raises:
        InputError: not int64 ``(n,)``, or not each from 0 to ``count - 1``.
    """
    if index.ndim != 1 or index.dtype != torch.int64:
        raise InputError(f"rows: numbers must be int64 of shape (n,), got {index.dtype} of {tuple(index.shape)}")
    if len(index):
        low, high = (int(value) for value in index.aminmax())
        if not 0 <= low <= high < count:
            raise InputError(f"rows: numbers must be from 0 to {count - 1}, got {low} to {high}")


@dataclass(frozen=True)
class _Runs:
    """Runs of rows, in the bank's order."""

    shard: Index  # of each run
    first: Index  # its first row in the shard
    count: Index  # its rows
    ends: Index  # the position in the bank after its last row
    skip: Index  # what a position in it is to be moved by to be a row of the shard
    class_starts: Index  # of each class, in the bank
    class_totals: Index
    in_file_order: bool  # whether the classes are in the shards' order

    @classmethod
    def of(cls, shards: Sequence[Shard], order: Sequence[int], classes: int) -> "_Runs":
        counts = np.array([shard.entry.class_counts for shard in shards], dtype=np.int64).reshape(len(shards), classes)
        firsts = counts.cumsum(axis=1) - counts
        places = [place for place in order if place >= 0] if len(shards) else []
        shard = np.tile(np.arange(len(shards)), len(places))
        first, count = firsts[:, places].T.reshape(-1), counts[:, places].T.reshape(-1)
        totals = np.array([counts[:, place].sum() if place >= 0 and shards else 0 for place in order], dtype=np.int64)
        there = count > 0
        shard, first, count = shard[there], first[there], count[there]
        ends: Index = count.cumsum()
        skip: Index = first - (ends - count)
        return cls(
            shard=shard,
            first=first,
            count=count,
            ends=ends,
            skip=skip,
            class_starts=totals.cumsum() - totals,
            class_totals=totals,
            in_file_order=places == sorted(places),
        )

    def find(self, position: Index) -> tuple[Index, Index]:
        """Shard and row of each position."""
        run = np.searchsorted(self.ends, position, side="right")
        return self.shard[run], position + self.skip[run]

    def listed(self) -> list[tuple[int, int, int]]:
        """(shard, first row, rows) of each run."""
        return list(zip(self.shard.tolist(), self.first.tolist(), self.count.tolist(), strict=True))


class _Gatherer:
    """Copies rows that lie in several mapped arrays, as if they lay in one.

    NumPy gathers the rows of one array in a loop of its own; over several, a loop of Python would find each row first,
    which takes as long as the copy of a small one. So the arrays are looked at through a window from the lowest address
    to the highest, in which an item begins every few bytes, and a row is the item at its address. What lies between the
    arrays is in the window, and is never touched.

    Args:
        arrays: C-contiguous, of one dtype, ``(n, ...)`` with the same ``...``; at least one.
    """

    _LARGEST = 2**62
    """NumPy's limit on the bytes of an array is at 2**63."""

    _SLOW_START, _SLOW_BYTES_PER_SECOND = 10e-6, 1e9
    """A row from memory takes less than this: some microseconds, and a copy at several gigabytes a second."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        first = self._arrays[0]
        self._dtype, self._shape = first.dtype, first.shape[1:]
        self._row_bytes = math.prod(self._shape) * first.itemsize
        self._addresses: Index = np.array([one.__array_interface__["data"][0] for one in arrays], dtype=np.int64)
        self._lowest = int(self._addresses.min())
        self._unit = math.gcd(self._row_bytes, *(self._addresses - self._lowest).tolist())
        self._window = self._look()
        self._is_slow = True

    def _look(self) -> NDArray[np.void] | None:
        """Items of a row's size, one every ``_unit`` bytes; None: more than NumPy can count."""
        ends = self._addresses + [one.nbytes for one in self._arrays]
        count = (int(ends.max()) - self._lowest - self._row_bytes) // self._unit + 1
        if count * self._row_bytes >= self._LARGEST:
            return None
        item = (ctypes.c_uint8 * self._row_bytes).from_address(self._lowest)
        first: NDArray[np.void] = np.ndarray((1,), dtype=np.dtype((np.void, self._row_bytes)), buffer=memoryview(item))
        return as_strided(first, shape=(count,), strides=(self._unit,))

    def take(self, array: Index, row: Index, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Copy rows: ``row[i]`` of the array with the number ``array[i]``. Numbers are not checked."""
        addresses = self._addresses[array] + row * self._row_bytes
        began = time.perf_counter()
        if self._is_slow:
            _read_ahead(addresses.tolist(), self._row_bytes)
        if self._window is not None and out is None:
            rows = self._window[(addresses - self._lowest) // self._unit]
            out = rows.view(self._dtype).reshape(len(row), *self._shape)
        else:
            if out is None:
                out = np.empty((len(row), *self._shape), dtype=self._dtype)
            views = [self._arrays[number][at] for number, at in zip(array.tolist(), row.tolist(), strict=True)]
            np.concatenate(views, out=out.reshape(-1, *out.shape[2:]))
        slow = self._SLOW_START + self._row_bytes / self._SLOW_BYTES_PER_SECOND
        self._is_slow = time.perf_counter() - began > len(row) * slow
        return out


def _read_ahead(addresses: Iterable[int], size: int) -> None:
    """Ask the system for all rows that are read next, at once.

    The first touch of a page that is not in memory waits for the disk, and the system reads some megabytes around it in
    the belief that they will follow: with 8 MiB read ahead (128 KiB are usual) 256 rows from a cold disk took 3 s, and
    0.02 s when the system was told beforehand. To tell it costs more than to copy a row that is there (1.5 against 1.0
    microseconds), so it is told only as long as rows come slowly. What is read does not depend on it.
    """
    advise, page = _madvise(), mmap.PAGESIZE
    if advise is not None:
        for address in addresses:
            first = address - address % page
            advise(first, address + size - first, mmap.MADV_WILLNEED)  # a hint: a refusal changes nothing


@cache
def _madvise() -> Any:
    """The system's call, or None where there is none."""
    if os.name != "posix" or not hasattr(mmap, "MADV_WILLNEED"):
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call


def _map_again(
    folder: Path, manifest: Manifest, classes: tuple[str, ...], order: Sequence[int], selection: Index | None
) -> MappedRows:
    rows = MappedRows(folder, manifest)
    rows._lay_out(classes, order)
    return rows if selection is None else rows.select(selection)
