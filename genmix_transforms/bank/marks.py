"""How many of a bank's images are marked, and how many somebody has looked at."""

from pathlib import Path
from typing import NamedTuple

from genmix_transforms.bank.manifest import Manifest
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.bank.rows import Flag


class Marks(NamedTuple):
    """What :func:`count_marks` has counted."""

    flags: dict[str, int]
    """By the flag's name, such as "near_copy"; those that no image has are left out."""
    decisions: dict[str, int]
    """The "accepted" and "rejected" by a reviewer, and "open": neither."""


def count_marks(folder: Path, manifest: Manifest) -> Marks:
    """Count a bank's flags and decisions. Of the shards, nothing else is read.

    Raises:
        CorruptFileError: a shard is not what the manifest says, or a decision is none.
    """
    rows = MappedRows(folder, manifest)
    column = rows.column("flags")
    counts = {str(flag.name).lower(): int((column & flag).bool().sum()) for flag in Flag}
    decided = {str(verdict): count for verdict, count in rows.decisions.counts().items()}
    still_open = len(rows) - sum(decided.values())
    return Marks({name: count for name, count in counts.items() if count}, {**decided, "open": still_open})
