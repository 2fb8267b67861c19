"""Opening a bank: which of its images, checked how, and whether they are brought into memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from genmix_transforms.bank.manifest import Manifest, read_manifest
from genmix_transforms.bank.mapped import MappedRows
from genmix_transforms.bank.shards import Shard
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.checks import whole_number

SMALL_BYTES = 256 * 2**20
"""A bank up to this size is held to its checksums whenever it is opened, and brought into memory."""


@dataclass(frozen=True)
class Opened:
    """What a bank was opened from, and how. See :meth:`SyntheticBank.load` for the options."""

    folder: Path
    classes: tuple[str, ...] | None = None
    limit: int | None = None
    shard: tuple[int, int] | None = None
    verify: bool | None = None
    resident: bool | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            whole_number(self.limit, name="limit", least=1)
        if self.shard is not None:
            if not isinstance(self.shard, Sequence) or len(self.shard) != 2:
                raise InputError(f"shard must be (rank, world), got {self.shard!r}")
            rank, world = self.shard
            whole_number(world, name="shard: world", least=1)
            whole_number(rank, name="shard: rank", least=0, most=world - 1)


def open_rows(opened: Opened, known: dict[str, Shard] | None) -> tuple[Manifest, MappedRows]:
    """Map a bank's shards, and choose among its images.

    Args:
        opened: where and how.
        known: shards that were opened (and checked) before.

    Raises:
        InputError: no such bank.
        CorruptFileError: a shard or the manifest is not what was written.
    """
    manifest = read_manifest(opened.folder)
    try:
        mapped = MappedRows(opened.folder, manifest, shards=known)
    except CorruptFileError:
        # The bank may have been replaced between the reading of its manifest and that of its shards.
        again = read_manifest(opened.folder)
        if again.generation == manifest.generation:
            raise
        manifest, mapped = again, MappedRows(opened.folder, again, shards=known)
    if opened.verify or (opened.verify is None and manifest.image_bytes <= SMALL_BYTES):
        _check(mapped, known or {})
    index = _chosen(mapped.class_count, opened)
    return manifest, mapped if index is None else mapped.select(index)


def generation(folder: Path) -> int:
    """Of the bank that is in the folder now."""
    return read_manifest(folder).generation


def should_bring(mapped: MappedRows, resident: bool | None, device: torch.device) -> bool:
    """Whether the images are brought into the device's memory."""
    if resident is not None:
        return resident
    size = len(mapped) * mapped.manifest.image_bytes // max(1, mapped.manifest.count)
    if size <= SMALL_BYTES or (len(mapped.shards) == 1 and device.type == "cpu"):
        return True
    if device.type == "cuda":
        return size <= torch.cuda.mem_get_info(device)[0] * 3 // 4
    return device.type != "cpu"


def _check(mapped: MappedRows, known: dict[str, Shard]) -> None:
    corrupt = [
        shard.entry.file
        for shard in mapped.shards
        if known.get(shard.entry.file) is not shard and shard.xxh3() != shard.entry.xxh3
    ]
    if corrupt:
        raise CorruptFileError(
            f"{mapped.folder}: {', '.join(corrupt)}: not the bytes that were written; fill the bank again, or take it "
            "from its copy"
        )


def _chosen(class_count: NDArray[np.int64], opened: Opened) -> NDArray[np.int64] | None:
    """The numbers of the images that ``shard`` and ``limit`` leave, ascending; None: all."""
    if opened.limit is None and opened.shard is None:
        return None
    start = class_count.cumsum() - class_count
    rank, world = opened.shard or (0, 1)
    mine = [np.arange(first + rank, first + count, world) for first, count in zip(start, class_count, strict=True)]
    if opened.limit is not None:
        counts = largest_remainder(np.array([len(part) for part in mine]), opened.limit)
        mine = [part[:count] for part, count in zip(mine, counts, strict=True)]
    return np.concatenate(mine)


def largest_remainder(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """``total`` shared out in the proportions of ``counts``, none given more than it has."""
    if counts.sum() <= total:
        return counts
    exact = counts * (total / counts.sum())
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]
    shares[order] += 1
    return shares
