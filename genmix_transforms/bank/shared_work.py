"""Shards whose content is settled beforehand, written by any number of processes, in any number of sittings.

Nobody talks to anybody. What each shard will hold follows from its number; a process takes every n-th of them; a shard
that is there has been done. The manifest lists the shards that are whole, and the last to finish writes the last one.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from genmix_transforms.bank.manifest import (
    INDEX,
    MAX_SHARDS,
    Fill,
    Manifest,
    ShardEntry,
    is_bank_file,
    is_shard_name,
    now,
    read_manifest,
    shard_name,
    write_manifest,
)
from genmix_transforms.bank.shards import Rows, describe_shard, write_shard
from genmix_transforms.bank.writer import check_same_kind, fill_of, only_writer, remove_orphans
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.processes import share_from_environment


class UnfinishedBankError(RuntimeError):
    """This process's share is done, others are still at theirs."""


@contextmanager
def shared_work(
    folder: Path,
    bank: Manifest,
    *,
    identity: str,
    total: int,
    other: str,
    append: bool | None = None,
    overwrite: bool = False,
) -> "Iterator[SharedWork]":
    """Take this process's share of the work: as torchrun, Accelerate or Slurm has numbered the processes.

    At its end the manifest is written, if everybody's shards are there.

    Args:
        folder: of the bank; made if need be.
        bank: what it will hold, without shards: classes, pixel type, shape, sources.
        identity: a hash of all that determines the shards' bytes.
        total: how many shards.
        other: for the message when the folder holds a bank of another identity: of what that is, "of another seed".
        append: add to the bank in the folder; None: this work makes new banks only.
        overwrite: throw away the bank in the folder.

    Yields:
        The work: write its ``missing`` shards.

    Raises:
        OverwriteError: the folder holds something else, or another bank and neither append nor overwrite.
        InputError: a bank of another kind to append to, more shards than have names, or several processes to overwrite.
        UnfinishedBankError: this process's share is done, and others are still at theirs.
    """
    rank, processes = share_from_environment()
    if overwrite and processes > 1:
        raise InputError(f"{folder}: several processes cannot overwrite a bank: remove the folder first")
    check_output_folder(folder)
    with ExitStack() as held:
        if processes == 1:
            held.enter_context(only_writer(folder))
        folder.mkdir(parents=True, exist_ok=True)
        work = SharedWork(
            folder,
            bank,
            identity=identity,
            mine=range(rank, total, processes),
            total=total,
            other=other,
            append=append,
            overwrite=overwrite,
            alone=processes == 1,
        )
        work.was_done = not work.publish(partly=False)
        yield work
        if waiting := work.publish(partly=False):
            raise UnfinishedBankError(
                f"{folder}: this process's share is done; {waiting} of {total} shards are still to come from others. "
                "The last to finish completes the bank"
            )


class SharedWork:
    """Some shards of a bank, written together with others: what :func:`shared_work` gives.

    Attributes:
        mine: the numbers of this process's shards, from 0.
        was_done: whether there was nothing left to do for anybody when it began.
        source_numbers: for each source of the work, its number in the bank.
    """

    was_done: bool = False

    def __init__(
        self,
        folder: Path,
        bank: Manifest,
        *,
        identity: str,
        mine: range,
        total: int,
        other: str,
        append: bool | None,
        overwrite: bool,
        alone: bool,
    ) -> None:
        self._folder, self._other, self.mine = folder, other, mine
        self._entries: dict[int, ShardEntry] = {}
        before = self._before(bank, identity, append=append, overwrite=overwrite)
        fill = next((fill for fill in before.fills if fill.identity == identity), None)
        if fill is None:
            first = 1 + max((shard.number for shard in before.shards), default=-1)
            fill = Fill(identity=identity, first=first, total=total)
            if first + total > MAX_SHARDS:
                raise InputError(f"{folder}: a bank has at most {MAX_SHARDS:,} shards, this would be {first + total:,}")
            before = replace(before, fills=(*before.fills, fill))
        self._fill = fill
        listed = [shard for shard in before.shards if shard.number in fill.numbers]
        self._entries = {shard.number - fill.first: shard for shard in listed}
        others = tuple(shard for shard in before.shards if shard not in listed)
        sources = list(before.sources)
        sources += [source for source in bank.sources if source not in sources]
        self.source_numbers = tuple(sources.index(source) for source in bank.sources)
        self._base = replace(before, shards=others, sources=tuple(sources), generation=before.generation - len(listed))
        self._listed = len(listed) if (folder / INDEX).exists() else -1
        self._published, self._cost = time.monotonic(), 0.0
        self._check_strays(alone=alone)

    def _before(self, bank: Manifest, identity: str, *, append: bool | None, overwrite: bool) -> Manifest:
        folder = self._folder
        has_bank = (folder / INDEX).exists()
        foreign = sorted(file.name for file in folder.iterdir() if not is_bank_file(file.name))
        if foreign and not has_bank:
            raise OverwriteError(f"{folder}: holds other files and no bank ({foreign[0]}); give another folder")
        if overwrite:
            # The manifest first: without it, what is left is no bank, whenever this is killed.
            (folder / INDEX).unlink(missing_ok=True)
            remove_orphans(folder, None)
        if overwrite or not has_bank:
            return replace(bank, generation=0)
        before = read_manifest(folder)
        if any(fill.identity == identity for fill in before.fills):
            return before
        if not append:
            ways = (
                "give another folder, or overwrite" if append is None else "give another folder, append, or overwrite"
            )
            raise OverwriteError(f"{folder}: holds a bank {self._other}; {ways}")
        if before.shards_to_come:
            raise OverwriteError(
                f"{folder}: {before.shards_to_come} shards of another fill are still to come; finish it first, by the "
                "same command"
            )
        check_same_kind(folder, before, bank)
        return before

    def _check_strays(self, *, alone: bool) -> None:
        """Shards that nobody has listed must be this work's; what a killed writer has left is removed."""
        listed = {shard.file for shard in self._base.shards}
        own = {shard_name(number) for number in self._fill.numbers}
        has_bank = (self._folder / INDEX).exists()
        for file in sorted(self._folder.iterdir()):
            if is_shard_name(file.name):
                if file.name in listed or (file.name in own and fill_of(file) == self._fill.identity):
                    continue
                if not (alone and has_bank):
                    raise OverwriteError(
                        f"{self._folder}: {file.name} belongs to a bank {self._other}; give another folder, or "
                        "overwrite"
                    )
            elif not (file.name.startswith(".bank") and file.name.endswith(".tmp")):
                continue
            if alone:
                file.unlink(missing_ok=True)

    @property
    def missing(self) -> list[int]:
        """The numbers of this process's shards that are not there yet."""
        return [number for number in self.mine if not self.is_there(number)]

    def is_there(self, number: int) -> bool:
        """Whether a shard has been written."""
        return number in self._entries or self._path(number).exists()

    def write(self, number: int, rows: Rows) -> None:
        """Write a shard."""
        entry = write_shard(self._path(number), rows, classes=self._base.classes, fill=self._fill.identity)
        self._entries[number] = entry

    def publish_now_and_then(self) -> None:
        """Tell the readers what there is, unless that was done a moment ago: the first process does, for all."""
        if self.mine.start == 0 and time.monotonic() - self._published > max(1.0, 20 * self._cost):
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
