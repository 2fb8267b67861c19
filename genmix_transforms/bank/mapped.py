"""Many memory-mapped shards as one bank, class by class, without a copy and without an index of every image.

Each shard is sorted by class. So the images of a class are one run of rows in each shard, and the whole bank, class by
class, is a list of (number of classes) x (number of shards) runs. A row is found by a binary search among these.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.manifest import Manifest
from genmix_transforms.bank.read_ahead import ReadAhead
from genmix_transforms.bank.scattered import ScatteredRows
from genmix_transforms.bank.shards import KEPT_ON_CPU, Rows, Shard

Index = NDArray[np.int64]


class MappedRows:
    """The rows of several shards, class by class.

    Args:
        folder: of the bank.
        manifest: of the bank.
        shards: opened before, by file name, to be used again; the rest is opened.

    Raises:
        CorruptFileError: a shard is not what the manifest says; the message names it.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, shards: "dict[str, Shard] | None" = None) -> None:
        known = shards or {}
        self.folder, self.manifest = folder, manifest
        self.shards = [
            known[entry.file]
            if entry.file in known and known[entry.file].entry == entry
            else Shard(folder, entry, manifest)
            for entry in manifest.shards
        ]
        self._images = ScatteredRows([shard.images for shard in self.shards]) if self.shards else None
        self._read_ahead = ReadAhead(math.prod(manifest.shape) * manifest.pixel_dtype.itemsize)
        self._selection: Index | None = None
        self._lay_out(range(len(manifest.classes)))

    def _lay_out(self, order: Sequence[int]) -> None:
        """Compute the runs, for the manifest's classes in this order (-1: a class that the bank does not have)."""
        self._order = tuple(order)
        runs = _Runs.of(self.shards, self._order, len(self.manifest.classes))
        self._runs = runs
        self._class_count = runs.class_totals

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that does not share this process's memory maps the files itself.
        return _map_again, (self.folder, self.manifest, self._order, self._selection)

    def __len__(self) -> int:
        return int(self._class_count.sum())

    @property
    def class_count(self) -> Index:
        """int64 ``(K,)``: images of each class."""
        return self._class_count

    def with_classes(self, order: Sequence[int]) -> "MappedRows":
        """The same rows with their classes in another order.

        Args:
            order: for each new class its number so far, -1 for one that there is no image of.
        """
        other = self._copy()
        new = np.array(order, dtype=np.int64)
        other._lay_out([self._order[place] if place >= 0 else -1 for place in new])
        if self._selection is not None:
            start = np.append(0, self._class_count.cumsum())
            parts = [self._selection[start[place] : start[place + 1]] for place in new if place >= 0]
            before, after = self._runs.class_starts, other._runs.class_starts
            moved = [
                part - before[place] + after[at]
                for part, (at, place) in zip(parts, [(a, p) for a, p in enumerate(new) if p >= 0], strict=True)
            ]
            other._selection = np.concatenate(moved) if moved else np.empty(0, dtype=np.int64)
            other._class_count = np.array(
                [self._class_count[place] if place >= 0 else 0 for place in new], dtype=np.int64
            )
        return other

    def select(self, index: Index) -> "MappedRows":
        """Some of the rows.

        Args:
            index: ascending.
        """
        other = self._copy()
        other._class_count = np.diff(np.searchsorted(index, np.append(0, self._class_count.cumsum())))
        other._selection = index if self._selection is None else self._selection[index]
        return other

    def _copy(self) -> "MappedRows":
        other = object.__new__(MappedRows)
        other.__dict__.update(self.__dict__)
        return other

    def labels(self) -> Tensor:
        """int64 ``(N,)``, or float32 ``(N, K)``."""
        if self.manifest.labels == "index":
            return torch.from_numpy(np.repeat(np.arange(len(self._class_count)), self._class_count))
        rows = self._gathered("labels")
        columns = [rows[:, place] if place >= 0 else np.zeros(len(rows), rows.dtype) for place in self._order]
        return torch.from_numpy(np.stack(columns, axis=1))

    def column(self, name: str) -> Tensor:
        """``seeds``, ``source``, ``distance`` or ``flags`` of every row."""
        return torch.from_numpy(self._gathered(name))

    def images(self) -> Tensor:
        """Every image, ``(N, C, *spatial)``. A bank of one shard in its own order is not copied."""
        if len(self.shards) == 1 and self._selection is None and self._runs.in_file_order:
            return torch.from_numpy(self.shards[0].images)
        return torch.from_numpy(self._gathered("images"))

    def rows(self) -> Rows:
        """Everything, in memory."""
        columns = (self.column(name) for name in KEPT_ON_CPU)
        return Rows(self.images(), self.labels(), *columns)

    def take(self, index: Index, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Copies of the images of some rows, ``(n, C, *spatial)``.

        Args:
            index: int64 ``(n,)``, in range.
            out: memory to copy to; None: new.
        """
        images = self._images
        if not len(index) or images is None:
            return np.empty((0, *self.manifest.shape), dtype=self._kind("images")) if out is None else out
        shard, row = self._runs.find(index if self._selection is None else self._selection[index])
        began = time.perf_counter()
        if self._read_ahead.on:
            self._read_ahead.ask(images.address(shard, row).tolist())
        taken = images.take(shard, row, out=out)
        self._read_ahead.learn(time.perf_counter() - began, len(index))
        return taken

    def _gathered(self, name: str) -> NDArray[Any]:
        """A column of every row, in memory of its own."""
        columns = [shard.column(name) for shard in self.shards]
        if self._selection is None:
            parts = [columns[number][first : first + count] for number, first, count in self._runs.listed()]
            return np.concatenate(parts) if parts else np.empty(self._empty(name), dtype=self._kind(name))
        if not columns:
            return np.empty(self._empty(name), dtype=self._kind(name))
        out = np.empty((len(self), *columns[0].shape[1:]), dtype=columns[0].dtype)
        shard, row = self._runs.find(self._selection)
        for number, column in enumerate(columns):
            here = shard == number
            out[here] = column[row[here]]
        return out

    def _empty(self, name: str) -> tuple[int, ...]:
        return {"images": (0, *self.manifest.shape), "labels": (0, len(self.manifest.classes))}.get(name, (0,))

    def _kind(self, name: str) -> Any:
        kinds = {"seeds": "int64", "source": "int32", "distance": "float32", "flags": "uint8", "labels": "float32"}
        return np.dtype(kinds.get(name, self.manifest.dtype))


@dataclass(frozen=True)
class _Runs:
    """Runs of rows, in the bank's order.

    Args:
        shard: of each run.
        first: its first row in the shard.
        count: its rows.
        ends: the position in the bank after its last row.
        skip: what a position in it is to be moved by to be a row of the shard.
        class_starts, class_totals: of each class, in the bank.
        in_file_order: whether the classes are in the shards' order.
    """

    shard: Index
    first: Index
    count: Index
    ends: Index
    skip: Index
    class_starts: Index
    class_totals: Index
    in_file_order: bool

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


def _map_again(folder: Path, manifest: Manifest, order: tuple[int, ...], selection: Index | None) -> MappedRows:
    rows = MappedRows(folder, manifest)
    rows._lay_out(order)
    return rows if selection is None else rows.select(selection)
