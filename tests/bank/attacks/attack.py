"""What an attack is, what must come of it, and how that is found out."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.manifest import shard_name
from genmix_transforms.bank.opening import verify_bank
from genmix_transforms.bank.writing import BankWriter
from genmix_transforms.errors import CorruptFileError, InputError

SHARDS = tuple(shard_name(number) for number in range(3))
CLASSES = ("cyst", "hémangiome")
COUNT, SHAPE = 9, (1, 4, 4)
BY_SHARD = ((2, 1), (1, 2), (2, 1))
"""Images of each class in each shard: the first and the last differ in nothing but their content."""

SECONDS = 5
"""After so long a reader hangs: each of these banks has 9 images."""


class Opens(Enum):
    """A bank that opens."""

    SAME = "the bank that was written"
    CHANGED = "another bank"
    """Only a checksum could tell, and nobody asked for it; or the attacker has written that too."""
    KEPT = "what was whole before, and perhaps whole images of the writer that was stopped"


@dataclass(frozen=True)
class Refused:
    """One of our own errors."""

    text: str
    error: type[Exception] = CorruptFileError


Expected = Opens | Refused | tuple[Opens | Refused, ...]


@dataclass(frozen=True)
class Attack:
    """Damage to a whole bank's folder.

    Args:
        name: file of this folder, and a name of its own.
        does: what is done, for people.
        damage: does it, to the folder that it is given.
        load: what must come of ``SyntheticBank.load(folder, verify=True)``.
        verify: of ``verify_bank(folder)``.
        opened: of ``SyntheticBank.load(folder, verify=False)``.
        soft: to a bank whose labels are probabilities.
        succeeds: why this attack is not yet beaten off; None: it is.
    """

    name: str
    does: str
    damage: Callable[[Path], None]
    load: Expected
    verify: Expected
    opened: Expected
    soft: bool = False
    succeeds: str | None = None


class ImpossibleError(Exception):
    """This system does not let the attack be tried."""


class Attacks(list[Attack]):
    """The attacks of one file."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def add(
        self,
        does: str,
        text: str = "",
        *,
        name: str = "",
        error: type[Exception] = CorruptFileError,
        load: Expected | None = None,
        verify: Expected | None = None,
        opened: Expected | None = None,
        soft: bool = False,
        succeeds: str | None = None,
    ) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
        """Keep the function as an attack that every reader refuses with ``text``, but for those told otherwise."""

        def keep(damage: Callable[[Path], None]) -> Callable[[Path], None]:
            refused = Refused(text, error)
            self.append(
                Attack(
                    f"{self.kind}.{name or damage.__name__}",
                    does,
                    damage,
                    load or refused,
                    verify or refused,
                    opened or refused,
                    soft,
                    succeeds,
                )
            )
            return damage

        return keep


def write_bank(folder: Path, *, soft: bool = False) -> None:
    """A bank of nine images in three shards, with something known of each, from two sources."""
    random = np.random.default_rng(3)
    images = torch.from_numpy(random.integers(1, 256, (COUNT, *SHAPE), dtype=np.uint8))
    index = torch.tensor([label for counts in BY_SHARD for label, count in enumerate(counts) for _ in range(count)])
    with BankWriter(
        folder,
        classes=CLASSES,
        image_shape=SHAPE,
        labels="probabilities" if soft else "index",
        window=(-100.0, 200.0),
        provenance=[{"by": "one"}, {"by": "two"}],
        shard_bytes=48,
    ) as writer:
        writer.add(
            images,
            torch.tensor([[0.75, 0.25], [0.125, 0.875]])[index] if soft else index,
            seeds=1000 + torch.arange(COUNT),
            source=torch.arange(COUNT, dtype=torch.int32) % 2,
            distance=torch.arange(COUNT) / 8,
            flags=torch.arange(COUNT, dtype=torch.uint8),
        )


@dataclass
class Came:
    """What came of a reader: a bank, an error of ours, or something that never should."""

    reader: str
    what: Opens | Exception | None
    """None: a wrong thing, which ``text`` tells."""
    text: str

    def met(self, expected: Expected) -> bool:
        """Whether this is what must come."""
        if isinstance(expected, tuple):
            return any(self.met(one) for one in expected)
        if isinstance(expected, Refused):
            return type(self.what) is expected.error and re.search(expected.text, self.text, re.DOTALL) is not None
        return self.what is expected


def columns(bank: SyntheticBank) -> list[torch.Tensor]:
    """All that a bank holds, row by row."""
    rows = bank.rows(torch.arange(len(bank)))
    return [rows, bank.labels, bank.seeds, bank.source, bank.distance, bank.flags]


WRITTEN = 0
"""Pixel value of all images that a writer adds which is stopped: the pristine bank has no pixel of it."""


def compare(bank: SyntheticBank, pristine: SyntheticBank) -> Opens:
    """Which bank it is."""
    facts = ("classes", "window", "sources")
    ours, theirs = columns(pristine), columns(bank)
    if [getattr(bank, name) for name in facts] == [getattr(pristine, name) for name in facts]:
        if all(_equal(one, other) for one, other in zip(ours, theirs, strict=True)):
            return Opens.SAME
        new = (theirs[0] == WRITTEN).flatten(1).all(dim=1)
        kept = [column[~new] for column in theirs]
        whole = all(_equal(one, other) for one, other in zip(ours, kept, strict=True))
        if bool(new.any()) and (whole or bool(new.all())):
            return Opens.KEPT
    return Opens.CHANGED


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


READERS: dict[str, Callable[[Path], Any]] = {
    "load": lambda folder: SyntheticBank.load(folder, verify=True),
    "verify": verify_bank,
    "opened": lambda folder: SyntheticBank.load(folder, verify=False, resident=False),
}
"""By the names that an attack has for what must come of them."""

CALLS = {"load": "load(verify=True)", "verify": "verify_bank", "opened": "load(verify=False)"}
"""The same, for people."""


def run(attack: Attack, pristine: Path, folder: Path) -> list[Came]:
    """Do the damage to a copy of a bank, and let every reader at it.

    Args:
        attack: to do.
        pristine: the bank; stays as it is.
        folder: of the copy; must not exist.

    Raises:
        ImpossibleError: this system does not let it be tried.
    """
    shutil.copytree(pristine, folder)
    reference = SyntheticBank.load(pristine, verify=True)
    attack.damage(folder)
    came = []
    for name in READERS:
        came.append(_read(name, folder, reference))
        if came[-1].text.startswith(HANGS):
            break  # the others would, too
    return came


def _read(name: str, folder: Path, reference: SyntheticBank) -> Came:
    try:
        with _time_limit(SECONDS):
            result = READERS[name](folder)
            if name == "verify":
                return Came(name, Opens.SAME, "nothing found")
            what = compare(result, reference)
            return Came(name, what, what.value)
    except (CorruptFileError, InputError) as error:  # MissingPathError is an InputError
        text = f"{type(error).__name__}: {error}"
        # An error that does not say where is none of the clear ones.
        return Came(name, error if str(folder) in str(error) else None, text)
    except _TooLong:
        return Came(name, None, f"{HANGS}: no answer after {SECONDS} s")
    except Exception as error:
        return Came(name, None, f"an error of somebody else's: {type(error).__name__}: {error}")


HANGS = "hangs"


class _TooLong(BaseException):
    pass


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failures(attack: Attack, came: list[Came]) -> list[str]:
    """What came that must not come, a line each."""
    return [
        f"{CALLS[one.reader]}: {one.text}; must be: {getattr(attack, one.reader)}"
        for one in came
        if not one.met(getattr(attack, one.reader))
    ]
