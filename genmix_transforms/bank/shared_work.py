"""Shards whose content is settled beforehand, written by any number of processes, in any number of sittings.

Nobody talks to anybody. What each shard will hold follows from its number; a process takes every n-th of them; a shard
that is there has been done. The manifest lists the shards that are whole, and the last to finish writes the last one.
"""

import time
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
from genmix_transforms.bank.shards import Rows, describe_shard, shard_fill, write_shard
from genmix_transforms.bank.writer import check_same_kind, remove_orphans
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError


class SharedWork:
    """Some shards of a bank, written together with others.

    Args:
        folder: of the bank; must exist.
        bank: what it will hold, without shards: classes, pixel type, shape, one source.
        identity: a hash of all that determines the shards' bytes.
        total: how many shards.
        append: add to the bank in the folder.
        overwrite: throw away what is in the folder.
        alone: no other process works on it: leftovers can be removed.

    Raises:
        OverwriteError: the folder holds something else, or another bank and neither append nor overwrite.
        InputError: a bank of another kind to append to, or more shards than have names.
    """

    def __init__(
        self,
        folder: Path,
        bank: Manifest,
        *,
        identity: str,
        total: int,
        append: bool = False,
        overwrite: bool = False,
        alone: bool = True,
    ) -> None:
        self._folder = folder
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
        source = bank.sources[0]
        sources = before.sources if source in before.sources else (*before.sources, source)
        self.source = sources.index(source)
        self._base = replace(before, shards=others, sources=sources, generation=before.generation - len(listed))
        self._listed = len(listed) if (folder / INDEX).exists() else -1
        self._published, self._cost = time.monotonic(), 0.0
        self._check_strays(alone=alone)

    def _before(self, bank: Manifest, identity: str, *, append: bool, overwrite: bool) -> Manifest:
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
            raise OverwriteError(
                f"{folder}: holds a bank of another generator, other counts or another seed; give another folder, "
                "append, or overwrite"
            )
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
                if file.name in listed or (file.name in own and _fill_of(file) == self._fill.identity):
                    continue
                if not (alone and has_bank):
                    raise OverwriteError(
                        f"{self._folder}: {file.name} belongs to a bank of another generator, other counts or another "
                        "seed; give another folder, or overwrite"
                    )
            elif not (file.name.startswith(".bank") and file.name.endswith(".tmp")):
                continue
            if alone:
                file.unlink(missing_ok=True)

    def is_there(self, number: int) -> bool:
        """Whether a shard has been written."""
        return number in self._entries or self._path(number).exists()

    def write(self, number: int, rows: Rows) -> None:
        """Write a shard."""
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
                    self._entries[number] = describe_shard(self._path(number), num_classes=len(self._base.classes))
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


def _fill_of(path: Path) -> str | None:
    try:
        return shard_fill(path)
    except CorruptFileError:
        return None
