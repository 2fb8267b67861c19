"""What the name of an arm says: its kind, the bank it draws from, and the options that it has for itself.

    KIND[:BANK][@VALUE][@OPTION=VALUE]...      genmix    blend@0.25    genmix:dcgan@pairing=balanced@keep=0.5

No shell needs quotes for it. This file knows the form alone; which kinds and options there are is said in ``arms.py``.
"""

from dataclasses import dataclass, replace
from typing import Self

from genmix_transforms.errors import InputError

ONLY_BANK = ""
"""The name of the bank where there is but one, and nobody has named it."""

OWN = ""
"""Stands for an arm's own option, the one that is tuned, where a name gives a value alone: ``blend@0.25``."""

_BANK, _OPTION, _VALUE = ":", "@", "="


@dataclass(frozen=True, kw_only=True)
class ArmName:
    """The parts of an arm's name.

    Args:
        kind: such as "genmix".
        bank: the name of the bank that it draws from; ``ONLY_BANK`` where none is named.
        options: the names and values that it gives, as written; the name ``OWN`` is the arm's own option.

    Example:
        >>> name = ArmName.parse("genmix:dcgan@0.5@pairing=same")
        >>> name.kind, name.bank, name.options
        ('genmix', 'dcgan', (('', '0.5'), ('pairing', 'same')))
        >>> str(name)
        'genmix:dcgan@0.5@pairing=same'
    """

    kind: str
    bank: str = ONLY_BANK
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name; whether there is such a kind, bank or option nobody asks.

        Raises:
            InputError: an option without a name or a value.
        """
        head, *parts = text.split(_OPTION)
        kind, colon, bank = head.partition(_BANK)
        options = []
        for part in parts:
            name, equals, value = part.partition(_VALUE) if _VALUE in part else (OWN, "", part)
            if not value.strip() or (equals and not name.strip()):
                raise InputError(
                    f"the arm {text!r}: after {_OPTION} comes a value of its own option, or OPTION=VALUE, got "
                    f"{part!r}; such as blend@0.25 or genmix@pairing=same"
                )
            options.append((name.strip(), value.strip()))
        if colon and not bank:
            raise InputError(f"the arm {text!r}: after {_BANK} comes the name of a bank")
        return cls(kind=kind, bank=bank, options=tuple(options))

    def __str__(self) -> str:
        head = self.kind if self.bank == ONLY_BANK else f"{self.kind}{_BANK}{self.bank}"
        return head + "".join(
            f"{_OPTION}{value}" if name == OWN else f"{_OPTION}{name}{_VALUE}{value}" for name, value in self.options
        )

    def of_bank(self, bank: str) -> Self:
        """The same arm of another bank."""
        return replace(self, bank=bank)

    def only(self, *names: str) -> Self:
        """The arm with those of its options only."""
        return replace(self, options=tuple(pair for pair in self.options if pair[0].replace("-", "_") in names))


def arm_name(kind: str, bank: str = ONLY_BANK) -> str:
    """``genmix``, or with the name of a bank ``genmix:dcgan``."""
    return str(ArmName(kind=kind, bank=bank))


def split_arm_name(name: str) -> tuple[str, str]:
    """The kind and the bank's name, ``ONLY_BANK`` where none is named; of the kind nothing is asked.

    Example:
        >>> split_arm_name("genmix:dcgan@pairing=same")
        ('genmix', 'dcgan')
    """
    found = ArmName.parse(name)
    return found.kind, found.bank


def check_bank_name(name: str) -> str:
    """A bank's name, if arms can be called by it.

    Raises:
        InputError: an empty name, or one with a character that an arm's name has a use for.
    """
    if not name or any(character in name for character in (_BANK, _OPTION)):
        raise InputError(f"a bank's name must be a word without a colon and without an @, got {name!r}")
    return name
