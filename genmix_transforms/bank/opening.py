"""Opening a bank: which of its images, held to what, and whether they are brought into memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from genmix_transforms.bank.curation import largest_remainder
from genmix_transforms.bank.manifest import Manifest, is_shard_name, read_manifest
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.bank.rows import Flag
from genmix_transforms.bank.shard import Shard
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.files.progress import progress_bar

Exclude = Literal["copies"]
"""Images that are left out when a bank is opened: those flagged as near copies of training images."""

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
    exclude: Exclude | None = None

    def __post_init__(self) -> None:
        if self.exclude is not None and self.exclude not in get_args(Exclude):
            raise InputError(f"exclude must be one of {', '.join(get_args(Exclude))}, got {self.exclude!r}")
        if self.limit is not None:
            whole_number(self.limit, name="limit", least=1)
        if self.shard is not None:
            if not isinstance(self.shard, Sequence) or len(self.shard) != 2:
                raise InputError(f"shard must be (rank, world), got {self.shard!r}")
            rank, world = self.shard
            whole_number(world, name="shard: world", least=1)
            whole_number(rank, name="shard: rank", least=0, most=world - 1)


def open_rows(opened: Opened, known: dict[str, Shard] | None = None) -> MappedRows:
    """Map a bank's shards, and choose among its images.

    Args:
        opened: where and how.
        known: shards that were opened (and checked) before.

    Raises:
        InputError: no such bank, or classes that are not its own.
        CorruptFileError: a shard or the manifest is not what was written.
    """
    manifest = read_manifest(opened.folder)
    try:
        mapped = MappedRows(opened.folder, manifest, shards=known)
    except CorruptFileError:
        # The bank may have been replaced between the reading of its manifest and that of its shards.
        again = read_manifest(opened.folder)
        if again == manifest:
            raise
        mapped = MappedRows(opened.folder, again, shards=known)
    if opened.verify or (opened.verify is None and mapped.manifest.image_bytes <= SMALL_BYTES):
        _check(mapped, known or {})
    if opened.exclude is not None:
        mapped = _without_copies(mapped)
    index = _chosen(mapped.counts, opened)
    mapped = mapped if index is None else mapped.select(index)
    return mapped if opened.classes in (None, mapped.classes) else mapped.with_classes(opened.classes)


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
        if known.get(shard.entry.file) is not shard and not shard.is_as_written()
    ]
    if corrupt:
        raise CorruptFileError(
            f"{mapped.folder}: {', '.join(corrupt)}: not the bytes that were written; fill the bank again, or take it "
            "from its copy"
        )


def _without_copies(mapped: MappedRows) -> MappedRows:
    """The images that are not flagged as near copies.

    Raises:
        InputError: nobody has looked for copies, or there is nothing else.
    """
    copied = (mapped.column("flags").numpy() & Flag.NEAR_COPY) != 0
    if not copied.any():
        if len(mapped) and bool(np.isnan(mapped.column("distance").numpy()).all()):
            raise InputError(
                f"{mapped.folder}: exclude='copies', but nobody has looked for copies in this bank; run genmix bank "
                "check BANK --data DATA --out CHECKED, and open what it writes"
            )
        return mapped
    if copied.all():
        raise InputError(f"{mapped.folder}: exclude='copies' leaves no image: all {len(mapped)} are near copies")
    return mapped.select(np.flatnonzero(~copied))


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


def verify_bank(folder: str | Path, *, progress: bool = False) -> Manifest:
    """Read every shard of a bank, and hold it to the manifest: names, sizes, headers, labels and checksums.

    Against damage (xxh3, some gigabytes a second), and where the manifest has sha256 sums, against forgery too.

    Args:
        folder: of the bank.
        progress: show a bar.

    Returns:
        The manifest, whose every word is true.

    Raises:
        InputError: no bank.
        CorruptFileError: names every shard that is missing, changed, or not the manifest's.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    faults = []
    for entry in progress_bar(manifest.shards, desc="verifying", unit="shard", disable=not progress):
        try:
            shard = Shard(folder, entry, manifest)
            source, distance = shard.column("source"), shard.column("distance")
            if not shard.is_as_written() or (entry.sha256 and file_hash(folder / entry.file) != entry.sha256):
                faults.append(f"{entry.file} (not the bytes that were written)")
            elif source.min() < 0 or source.max() >= len(manifest.sources):
                faults.append(f"{entry.file} (of a source that the manifest does not have)")
            elif shard.masks is not None and shard.masks.max() >= len(manifest.mask_classes or ()):
                faults.append(f"{entry.file} (with masks of a class that the manifest does not have)")
            elif bool((distance < 0).any()):
                faults.append(f"{entry.file} (with distances below zero)")
            elif (int(shard.images.min()), int(shard.images.max())) != entry.pixel_range:
                faults.append(
                    f"{entry.file} (its pixels are not from {entry.pixel_range[0]} to {entry.pixel_range[1]})"
                )
        except CorruptFileError as error:
            faults.append(str(error).removeprefix(f"{folder}/"))
    named = {entry.file for entry in manifest.shards}
    to_come = {number for fill in manifest.fills for number in fill.numbers}
    extra = sorted(file.name for file in folder.iterdir() if is_shard_name(file.name) and file.name not in named)
    if extra and not to_come:
        faults.append(f"{', '.join(extra)} (not in the manifest: a killed writer's, or somebody else's)")
    if faults:
        raise CorruptFileError(f"{folder}: {'; '.join(faults)}. Fill the bank again, or take it from its copy")
    return manifest
