"""What lies on the reviewer's desk: the images of a bank, each with what was decided of it."""

import threading
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from genmix_transforms.bank import Flag
from genmix_transforms.bank.decisions import Decisions
from genmix_transforms.bank.manifest import INDEX, Manifest, read_manifest
from genmix_transforms.bank.opening import Opened, open_rows
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.review.pictures import check_showable, to_png

OPEN = "."
"""Stands for an image of which nothing is decided, where every image has one letter."""


class Answer(NamedTuple):
    """One of the things that can be said of an image."""

    verdict: str
    """As it is sent and written down."""
    letter: str
    """Stands for it where every image has one letter."""
    key: str
    """Says it on the keyboard."""
    label: str
    """Stands on its button."""


class Desk(Protocol):
    """What the page asks of whatever is reviewed. Images have numbers from 0; calls come from several threads."""

    is_private: bool
    """Whether there are images of patients among them, which must stay in no browser's cache."""

    def start(self) -> dict[str, Any]:
        """What does not change: how many images, their classes, the answers there are."""

    def state(self) -> dict[str, Any]:
        """What does: ``letters``, one an image; and ``text``, how far the work is."""

    def picture(self, number: int) -> bytes:
        """An image as PNG.

        Raises:
            InputError: no such image.
        """

    def decide(self, number: int, verdict: str) -> str:
        """Say something of an image; it is on disk when this returns.

        Returns:
            The decision's identity, for :meth:`undo`.

        Raises:
            InputError: no such image, no such verdict, or nothing may be said any more.
        """

    def undo(self, identity: str) -> int:
        """Take a decision back.

        Returns:
            The image's number.

        Raises:
            InputError: no such decision.
        """

    def summary(self) -> str:
        """What has come of it, for the terminal."""


class BankDesk:
    """A bank's images, to be accepted or rejected. It is a :class:`Desk`.

    What is decided is kept in the bank at once, see :class:`~genmix_transforms.bank.decisions.Decisions`.

    Args:
        folder: of the bank.
        reviewer: who decides; it is written down with each decision.

    Raises:
        InputError: no such bank, a bank without images, or images that are no pictures; or no decision can be kept.
        CorruptFileError: the bank is not what was written.
    """

    answers: tuple[Answer, Answer] = (Answer("accepted", "a", "a", "Accept"), Answer("rejected", "r", "r", "Reject"))
    is_private = False

    folder: Path
    reviewer: str

    def __init__(self, folder: str | Path, *, reviewer: str = "") -> None:
        self.folder, self.reviewer = Path(folder).absolute(), reviewer
        self._rows = open_to_show(self.folder)
        self._decisions = Decisions(self.folder, self._rows.manifest)
        self._decisions.check_writable()
        self._shard, self._row = self._rows.find(np.arange(len(self._rows)))
        self._black, self._white = pixel_range(self._rows.manifest)
        self._lock, self._made, self._seen = threading.Lock(), 0, self._index_stamp()
        files = [shard.entry.file for shard in self._rows.shards]
        self._file_of = np.array(files, dtype=object)[self._shard]
        self._number_of = {
            file: dict(
                zip(
                    self._row[self._shard == place].tolist(), np.flatnonzero(self._shard == place).tolist(), strict=True
                )
            )
            for place, file in enumerate(files)
        }
        self._flags = self._written_flags()
        self._letters = np.where(self._flags & Flag.REJECTED, "r", OPEN)
        for file in files:
            for row in self._decisions.of_shard(file):
                self._look_again(file, row)

    def _written_flags(self) -> NDArray[np.uint8]:
        flags = np.zeros(len(self._rows), dtype=np.uint8)
        for place, shard in enumerate(self._rows.shards):
            here = self._shard == place
            flags[here] = shard.column("flags")[self._row[here]]
        return flags

    def start(self) -> dict[str, Any]:
        """See :class:`Desk`."""
        other = self._flags & ~np.uint8(Flag.REJECTED)
        return {
            "mode": "review",
            "name": self.folder.name,
            "total": len(self._rows),
            "version": version_of(self._rows.manifest),
            "classes": list(self._rows.classes),
            "labels": np.repeat(np.arange(len(self._rows.counts)), self._rows.counts).tolist(),
            "marks": {str(number): flag_names(int(other[number])) for number in np.flatnonzero(other).tolist()},
            "answers": [answer._asdict() for answer in self.answers],
        }

    def state(self) -> dict[str, Any]:
        """See :class:`Desk`."""
        with self._lock:
            self._refresh()
            letters = "".join(self._letters.tolist())
        return {"letters": letters, "text": self._progress(letters)}

    def picture(self, number: int) -> bytes:
        """See :class:`Desk`."""
        check_number(number, len(self._rows))
        image = self._rows.rows(torch.tensor([number]))[0]
        return to_png(image, low=self._black, high=self._white)

    def decide(self, number: int, verdict: str) -> str:
        """See :class:`Desk`."""
        check_number(number, len(self._rows))
        check_verdict(verdict, self.answers)
        with self._lock:
            self._refuse_replaced()
            file, row = str(self._file_of[number]), int(self._row[number])
            identity = self._decisions.decide(file, row, verdict, reviewer=self.reviewer)  # type: ignore[arg-type]
            self._made += 1
            self._refresh()
        return identity

    def undo(self, identity: str) -> int:
        """See :class:`Desk`."""
        with self._lock:
            place = self._decisions.undo(identity, reviewer=self.reviewer)
            self._refresh()
            return int(self._number_of[place.file][place.row])

    def summary(self) -> str:
        """See :class:`Desk`."""
        made = f"{self._made} decision{'s' * (self._made != 1)} made"
        return f"{self.folder}: {made}; {self.state()['text']}"

    def _refresh(self) -> None:
        for place in self._decisions.refresh():
            self._look_again(place.file, place.row)

    def _look_again(self, file: str, row: int) -> None:
        number, verdict = self._number_of[file][row], self._decisions.verdict(file, row)
        written = "r" if self._flags[number] & Flag.REJECTED else OPEN
        self._letters[number] = written if verdict is None else verdict[0]

    def _progress(self, letters: str) -> str:
        accepted, rejected = letters.count("a"), letters.count("r")
        return f"{accepted + rejected} of {len(letters)} decided: {accepted} accepted, {rejected} rejected"

    def _refuse_replaced(self) -> None:
        """Refuse to decide on images that are in the bank no more: another may have taken its place meanwhile."""
        stamp = self._index_stamp()
        if stamp == self._seen:
            return
        there = {(entry.file, entry.xxh3) for entry in read_manifest(self.folder).shards}
        if any((shard.entry.file, shard.entry.xxh3) not in there for shard in self._rows.shards):
            raise InputError(f"{self.folder}: another bank has taken the place of this one; stop, and review that")
        self._seen = stamp

    def _index_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self.folder / INDEX).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def open_to_show(folder: Path) -> MappedRows:
    """A bank's rows, if there are some and they can be shown.

    Raises:
        InputError: no such bank, a bank without images, or images that are no pictures.
        CorruptFileError: the bank is not what was written.
    """
    rows = open_rows(Opened(folder))
    if not len(rows):
        raise InputError(f"{folder}: a bank without images, there is nothing to review; fill it first")
    check_showable(rows.image_shape, name=str(folder))
    return rows


def pixel_range(manifest: Manifest) -> tuple[int, int]:
    """Which pixel values are black and white: of eight bits all, of sixteen the lowest and the highest there is."""
    if manifest.pixel_dtype == torch.uint8:
        return 0, 255
    ranges = [shard.pixel_range for shard in manifest.shards]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def version_of(manifest: Manifest) -> str:
    """A text that is another one for other images: pictures are kept by it."""
    return manifest.shards[0].xxh3 + f"-{len(manifest.shards)}-{manifest.count}"


def flag_names(bits: int) -> list[str]:
    """The names of flags, for people.

    Example:
        >>> flag_names(Flag.NEAR_COPY | Flag.OUTLIER)
        ['near copy', 'outlier']
    """
    return [str(flag.name).lower().replace("_", " ") for flag in Flag if bits & flag]


def check_number(number: Any, total: int) -> int:
    """A number that an image has.

    Raises:
        InputError: not so.
    """
    if type(number) is not int or not 0 <= number < total:
        raise InputError(f"images have the numbers 0 to {total - 1}, got {str(number)[:40]}")
    return number


def check_verdict(verdict: Any, answers: tuple[Answer, ...]) -> None:
    """Refuse a word that is none of the answers.

    Raises:
        InputError: not so.
    """
    words = [answer.verdict for answer in answers]
    if verdict not in words:
        raise InputError(f"a verdict is one of {', '.join(words)}, got {str(verdict)[:40]!r}")
