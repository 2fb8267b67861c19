"""Shards whose content is settled beforehand, written by any number of processes, in any number of sittings.

Nobody talks to anybody. What each shard will hold follows from its number; a process takes every n-th of them; a shard
that is there has been done. The manifest lists the shards that are whole, and the last to finish writes the last one.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from genmix_transforms.bank.kept_rows import KeptRows
from genmix_transforms.bank.manifest import (
    INDEX,
    MAX_SHARDS,
    Fill,
    Manifest,
    ShardEntry,
    holds_rows,
    is_kept_name,
    now,
    read_manifest,
    refuse_unfinished,
    shard_name,
    shard_number,
    write_manifest,
)
from genmix_transforms.bank.rows import DESCRIPTIONS, Rows, union_of_sources
from genmix_transforms.bank.shard import describe_shard, fill_of, write_shard
from genmix_transforms.bank.writing import check_same_kind, look_into, only_writer, remove_orphans
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError, UnfinishedBankError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.disk import check_free_space
from genmix_transforms.files.processes import share_from_environment
from genmix_transforms.files.progress import progress_bar

log: logging.Logger = logging.getLogger(__name__)

HEADER_BYTES = 4096
"""More than a shard's header and its line in the manifest take, but for banks of very many classes."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process is to make.

    Args:
        shards: their numbers, in order.
        kept: rows that are made and in no shard yet; work that ignores them makes a stopped shard again.
        advance: called with a number of images that are ready, to move the bar.
    """

    shards: Sequence[int]
    kept: KeptRows
    advance: Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What a bank's shards will hold, before any of them is made.

    Args:
        identity: a hash of all that determines the shards' bytes: work of the same identity goes on, where it stopped.
        counts: images in each shard, by its number, from 0.
        make: yields the rows of one shard after the other. A shard has been written when the next one is asked for.
            The rows' ``source`` is an index into the sources of the kind of bank that is written.
        other: what a bank of another identity is, for messages: "of another seed".
    """

    identity: str
    counts: Sequence[int]
    make: Callable[[Task], Generator[Rows, None, None]]
    other: str


def write_planned(
    folder: Path,
    kind: Manifest,
    plan: ShardPlan,
    *,
    share: tuple[int, int] | None = None,
    append: bool | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Make and write this process's share of the shards that are not there yet.

    Args:
        folder: of the bank; made if need be.
        kind: what it will hold, without shards: classes, pixel type, shape, sources.
        plan: of the shards.
        share: ``(rank, count)``: this process does every ``count``-th shard from number ``rank`` on. None: as torchrun,
            Accelerate or Slurm has numbered the processes.
        append: add to the bank in the folder; None: such work makes new banks only.
        overwrite: throw away the bank in the folder.
        progress: show a bar (the first process does).

    Raises:
        OverwriteError: the folder holds something else, or another bank and neither append nor overwrite; or another
            process does this share.
        InputError: a bank of another kind to append to, more shards than have names, several processes to overwrite, or
            a share that is none.
        UnfinishedBankError: this process's share is done, and others are still at theirs.
    """
    rank, processes = share_from_environment() if share is None else _checked_share(share)
    if overwrite and processes > 1:
        raise InputError(f"{folder}: several processes cannot overwrite a bank: remove the folder first")
    with only_writer(folder, rank=None if processes == 1 else rank):
        work = _Work(folder, kind, plan, append=append, overwrite=overwrite, alone=processes == 1)
        if not work.publish(partly=False):
            log.info("%s: is there already", folder)
            return
        mine = range(rank, len(plan.counts), processes)
        missing = [number for number in mine if not work.is_there(number)]
        if len(missing) < len(mine):
            log.info("%s: going on; %s of %s shards are there", folder, len(mine) - len(missing), len(mine))
        to_come = [count for number, count in enumerate(plan.counts) if not work.is_there(number)]
        _check_space(folder, kind, to_come)
        total = sum(plan.counts[number] for number in mine)
        bar = progress_bar(
            total=total,
            initial=total - sum(plan.counts[number] for number in missing),
            unit="img",
            desc=str(folder),
            disable=not progress or rank > 0,
        )
        kept = KeptRows(folder, identity=plan.identity, classes=kind.classes, share=(rank, processes))
        task = Task(shards=missing, kept=kept, advance=bar.update)
        # Closed, for what is made and not written to be kept, whatever has happened.
        with bar, closing(plan.make(task)) as made:
            for number, rows in zip(missing, made, strict=True):
                work.write(number, rows)
                if rank == 0:
                    work.publish_now_and_then()
        waiting = work.publish(partly=False)
        kept.remove(everyones=not waiting)
        if waiting:
            raise UnfinishedBankError(
                f"{folder}: this process's share is done; {waiting} of {len(plan.counts)} shards are still to come "
                "from others. The last to finish completes the bank. If there are no others, take all shards: "
                "share=(0, 1), on the command line --share 0/1"
            )


def bank_bytes(kind: Manifest, images: int, *, shards: int) -> int:
    """How much space images of a kind of bank take, in so many shards."""
    label = 8 if kind.labels == "index" else 4 * len(kind.classes)
    row = math.prod(kind.shape) * kind.pixel_dtype.itemsize + label + sum(of.itemsize for of in DESCRIPTIONS.values())
    row += 0 if kind.mask_classes is None else math.prod(kind.shape[1:])
    return images * row + shards * HEADER_BYTES


def _check_space(folder: Path, kind: Manifest, counts: Sequence[int], *, freed: int = 0) -> None:
    # Beside the shards, as much as one of them for what is made and in none yet.
    needed = bank_bytes(kind, sum(counts) + max(counts, default=0), shards=len(counts) + 1)
    check_free_space(folder, needed - freed, what="the bank")


def _checked_share(share: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(share, Sequence) or isinstance(share, str) or len(share) != 2:
        raise InputError(f"share must be (rank, count), such as (0, 1) for all shards, got {share!r}")
    count = whole_number(share[1], name="share: count", least=1)
    return whole_number(share[0], name="share: rank", least=0, most=count - 1), count


class _Work:
    """Planned shards in a bank's folder: which there are, and the manifest that says so."""

    def __init__(
        self, folder: Path, kind: Manifest, plan: ShardPlan, *, append: bool | None, overwrite: bool, alone: bool
    ) -> None:
        self._folder, self._plan = folder, plan
        before = self._before(kind, append=append, overwrite=overwrite)
        total = len(plan.counts)
        fill = next((fill for fill in before.fills if fill.identity == plan.identity), None)
        if fill is None:
            first = 1 + max((shard.number for shard in before.shards), default=-1)
            if first + total > MAX_SHARDS:
                raise InputError(f"{folder}: a bank has at most {MAX_SHARDS:,} shards, this would be {first + total:,}")
            fill = Fill(identity=plan.identity, first=first, total=total)
            before = replace(before, fills=(*before.fills, fill))
        self._fill = fill
        listed = [shard for shard in before.shards if shard.number in fill.numbers]
        self._entries: dict[int, ShardEntry] = {shard.number - fill.first: shard for shard in listed}
        others = tuple(shard for shard in before.shards if shard not in listed)
        sources, (_, self._source_numbers) = union_of_sources(before.sources, kind.sources)
        self._base = replace(before, shards=others, sources=sources, generation=before.generation - len(listed))
        self._listed = len(listed) if (folder / INDEX).exists() else -1
        self._published, self._cost = time.monotonic(), 0.0
        self._check_strays(alone=alone)

    def _before(self, kind: Manifest, *, append: bool | None, overwrite: bool) -> Manifest:
        """The bank that is there, or a new one without shards."""
        folder, other = self._folder, self._plan.other
        has_bank, _ = look_into(folder)
        if overwrite and not self._is_begun():
            try:
                generation = read_manifest(folder).generation if has_bank else 0
            except (CorruptFileError, InputError):
                generation = 0
            freed = sum(path.stat().st_size for path in folder.iterdir() if holds_rows(path.name))
            _check_space(folder, kind, self._plan.counts, freed=freed)
            # The manifest first: without it, what is left is no bank, whenever this is killed.
            (folder / INDEX).unlink(missing_ok=True)
            remove_orphans(folder, ())
            return replace(kind, generation=generation)
        if not has_bank:
            return replace(kind, generation=0)
        before = read_manifest(folder)
        if any(fill.identity == self._plan.identity for fill in before.fills):
            return before
        if not append:
            ways = (
                "give another folder, or overwrite" if append is None else "give another folder, append, or overwrite"
            )
            raise OverwriteError(f"{folder}: holds a bank {other}; {ways}")
        refuse_unfinished(folder, before, error=OverwriteError)
        check_same_kind(folder, before, kind)
        return before

    def _is_begun(self) -> bool:
        """Whether the folder holds this very work, unfinished."""
        folder, identity = self._folder, self._plan.identity
        if (folder / INDEX).exists():
            try:
                manifest = read_manifest(folder)
            except (CorruptFileError, InputError):
                return False
            return bool(manifest.shards_to_come) and any(fill.identity == identity for fill in manifest.fills)
        found = [path for path in folder.iterdir() if holds_rows(path.name)]
        return bool(found) and all(fill_of(path) == identity for path in found)

    def _check_strays(self, *, alone: bool) -> None:
        """Shards that nobody has listed must be this work's; what a killed writer has left is removed."""
        has_bank = (self._folder / INDEX).exists()
        listed = {shard.file for shard in self._base.shards}
        for name in sorted(file.name for file in self._folder.iterdir() if holds_rows(file.name)):
            own = is_kept_name(name) or shard_number(name) in self._fill.numbers
            if name in listed or (own and fill_of(self._folder / name) == self._fill.identity):
                listed.add(name)
            elif not (alone and has_bank):
                raise OverwriteError(
                    f"{self._folder}: {name} belongs to a bank {self._plan.other}; give another folder, or overwrite"
                )
        if alone:
            remove_orphans(self._folder, listed)

    def is_there(self, number: int) -> bool:
        """Whether a shard has been written."""
        return number in self._entries or self._path(number).exists()

    def write(self, number: int, rows: Rows) -> None:
        """Write a shard."""
        rows = rows._replace(source=self._source_numbers[rows.source.long()])
        entry = write_shard(self._path(number), rows, classes=self._base.classes, fill=self._fill.identity)
        self._entries[number] = entry

    def publish_now_and_then(self) -> None:
        """Tell the readers what there is, unless that was done a moment ago."""
        if time.monotonic() - self._published > max(1.0, 20 * self._cost):
            self.publish(partly=True)

    def publish(self, *, partly: bool) -> int:
        """Write a manifest of the shards that are there.

        Args:
            partly: also when some are still to come.

        Returns:
            How many are still to come.
        """
        missing = [number for number in range(self._fill.total) if not self.is_there(number)]
        there = self._fill.total - len(missing)
        if there > self._listed and (partly or not missing):
            begun = time.monotonic()
            for number in range(self._fill.total):
                if number not in self._entries and self.is_there(number):
                    self._entries[number] = describe_shard(self._path(number), self._base)
            own = tuple(entry for _, entry in sorted(self._entries.items()))
            shards = tuple(sorted((*self._base.shards, *own), key=lambda shard: shard.number))
            # The generation follows from what is listed, not from how often it was written: files are to be the same
            # however many processes made them.
            generation = self._base.generation + len(own)
            write_manifest(self._folder, replace(self._base, shards=shards, generation=generation, created=now()))
            self._listed = there
            self._published = time.monotonic()
            self._cost = self._published - begun
        return len(missing)

    def _path(self, number: int) -> Path:
        return self._folder / shard_name(self._fill.first + number)
