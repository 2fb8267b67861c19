"""What reviewers have decided of a bank's images: ``bank.decisions.jsonl``, a line for each, beside the shards.

Shards never change, so a decision that is made later cannot stand in one. It stands here from the moment it is made,
and counts from then on: whoever opens the bank finds it in the images' flags. Shard, checksum and row say of which
image it is, so that it is never taken for one of an image that has come to its place. The format is specified in
``docs/reference/bank-format.md``.
"""

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.bank.manifest import DECISIONS, INDEX, REVIEW_LOCK, Manifest, ShardEntry, is_shard_name, now
from genmix_transforms.bank.rows import Flag
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.files.journal import Journal

Verdict = Literal["accepted", "rejected"]
"""What a reviewer says of an image. A rejected one has :attr:`Flag.REJECTED`, an accepted one has not."""

LONGEST_NAME = 100
"""Characters that a reviewer's name may have."""

_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Place(NamedTuple):
    """Where an image lies."""

    file: str
    row: int


class Decisions:
    """The decisions on the images of one bank, as they were when this was made or last refreshed.

    Of several decisions on an image the last counts; one that was undone does not. Whoever undoes takes back a decision
    of his own: what another has decided of the same image stays, whichever came first.

    Args:
        folder: of the bank.
        manifest: of the bank: decisions on images that it does not have are passed over.

    Raises:
        CorruptFileError: a line that is no decision; the message names the file.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._entries = {entry.file: entry for entry in manifest.shards}
        self._journal = Journal(folder / DECISIONS, lock=folder / REVIEW_LOCK)
        self._made: dict[str, tuple[Place, Verdict]] = {}
        self._of: dict[str, dict[int, list[str]]] = {}  # by shard and row: the decisions that were not undone
        self._news: list[Place] = []
        self.refresh()

    def refresh(self) -> list[Place]:
        """Look for what was decided since, by whomever.

        Returns:
            The images that somebody, here or elsewhere, has decided on since this was last asked, or undone it.

        Raises:
            CorruptFileError: a line that is no decision.
        """
        self._read()
        news, self._news = self._news, []
        return news

    def _read(self) -> None:
        self._news += [place for record in self._journal.new() if (place := self._take(record)) is not None]

    def check_writable(self) -> None:
        """Refuse a folder in which no decision can be kept, before anybody makes one.

        Raises:
            UnwritableError: the folder is read-only, or not the user's.
            OverwriteError: it cannot be locked.
            InputError: its files are links, as in the hub's cache.
        """
        folder = self._journal.path.parent
        if any((folder / name).is_symlink() for name in (INDEX, DECISIONS)):
            raise InputError(f"{folder}: its files belong to somebody's cache (they are links); copy the bank first")
        self._journal.append()

    def decide(self, file: str, row: int, verdict: Verdict, *, reviewer: str = "") -> str:
        """Decide on an image. When this returns, it is on disk.

        Args:
            file: the shard's name.
            row: the image's, in it.
            verdict: "accepted" or "rejected".
            reviewer: who; it is written down.

        Returns:
            The decision's identity, for :meth:`undo`.

        Raises:
            InputError: an image that the bank does not have, or no verdict.
            DiskFullError: the disk is full; nothing is decided.
        """
        entry = self._entries.get(file)
        if entry is None or not 0 <= row < entry.count:
            raise InputError(f"{self._journal.path.parent}: the bank has no row {row} of {file}")
        if verdict not in get_args(Verdict):
            raise InputError(f"a verdict is one of {', '.join(get_args(Verdict))}, got {verdict!r}")
        identity = secrets.token_hex(8)
        record = _record(identity, entry, row, verdict)
        self._journal.append({**record, "reviewer": reviewer[:LONGEST_NAME], "time": now()})
        self._read()
        return identity

    def undo(self, identity: str, *, reviewer: str = "") -> Place:
        """Take a decision back. When this returns, that is on disk. To undo a second time changes nothing.

        Returns:
            Whose decision it was.

        Raises:
            InputError: no decision of this identity.
        """
        self._read()
        if identity not in self._made:
            raise InputError(f"{self._journal.path}: there is no decision {str(identity)[:40]!r} to undo")
        place, _ = self._made[identity]
        if identity in self._of[place.file][place.row]:
            self._journal.append({"undo": identity, "reviewer": reviewer, "time": now()})
            self._read()
        return place

    def verdict(self, file: str, row: int) -> Verdict | None:
        """What counts of an image; None: nobody has decided, or it was undone."""
        made = self._of.get(file, {}).get(row)
        return self._made[made[-1]][1] if made else None

    def of_shard(self, file: str) -> dict[int, Verdict]:
        """What counts of each row of a shard that was decided on, in their order."""
        return {row: self._made[made[-1]][1] for row, made in sorted(self._of.get(file, {}).items()) if made}

    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """What counts of each image that was decided on: by the shard's checksum, by the row as text."""
        found = {self._entries[file].xxh3: self.of_shard(file) for file in sorted(self._of)}
        return {shard: {str(row): verdict for row, verdict in rows.items()} for shard, rows in found.items() if rows}

    def counts(self) -> dict[Verdict, int]:
        """How many images are accepted, and how many rejected."""
        last = [verdict for file in self._of for verdict in self.of_shard(file).values()]
        return {verdict: last.count(verdict) for verdict in get_args(Verdict)}

    def marked(self, file: str, flags: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A shard's flags with what was decided since it was written."""
        decided = self.of_shard(file)
        if not decided:
            return flags
        flags = flags.copy()
        for row, verdict in decided.items():
            flags[row] = flags[row] | Flag.REJECTED if verdict == "rejected" else flags[row] & ~np.uint8(Flag.REJECTED)
        return flags

    def summary(self) -> bytes:
        """The file that says no more than what counts: no names, no times. For what is published."""
        lines = []
        for file in sorted(self._of):
            for row, verdict in self.of_shard(file).items():
                record = _record(self._of[file][row][-1], self._entries[file], row, verdict)
                lines.append(json.dumps(record).encode() + b"\n")
        return b"".join(lines)

    def _take(self, record: Mapping[str, Any]) -> Place | None:
        """Take note of a line; None: it is of no image of this bank."""
        if "undo" in record:
            made = self._made.get(self._identity(record["undo"]))
            if made is None:
                return None
            place, _ = made
            left = self._of[place.file]
            left[place.row] = [one for one in left[place.row] if one != record["undo"]]
            return place
        identity, file, row = self._identity(record.get("id")), record.get("shard"), record.get("row")
        verdict, checksum = record.get("verdict"), record.get("xxh3")
        if not isinstance(file, str) or not is_shard_name(file) or not isinstance(checksum, str):
            raise self._corrupt(f"shard {str(file)[:80]!r} with checksum {str(checksum)[:80]!r}")
        if type(row) is not int or row < 0 or verdict is None or verdict not in get_args(Verdict):
            raise self._corrupt(f"row {str(row)[:80]} with verdict {str(verdict)[:80]!r}")
        entry = self._entries.get(file)
        if entry is None or entry.xxh3 != checksum:
            return None
        if row >= entry.count:
            raise self._corrupt(f"row {row} of {file}, which has {entry.count}")
        place = Place(file, row)
        if identity not in self._made:
            self._made[identity] = (place, verdict)
            self._of.setdefault(file, {}).setdefault(row, []).append(identity)
        return place

    def _identity(self, value: Any) -> str:
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise self._corrupt(f"identity {str(value)[:80]!r}")
        return value

    def _corrupt(self, what: str) -> CorruptFileError:
        return CorruptFileError(f"{self._journal.path}: not a decision ({what}); take the file from its copy")


def _record(identity: str, entry: ShardEntry, row: int, verdict: Verdict) -> dict[str, Any]:
    return {"id": identity, "shard": entry.file, "xxh3": entry.xxh3, "row": row, "verdict": verdict}
