"""Attacks on a bank: each damages the files of a whole bank, for real, and says what must come of it.

All of them, one line each: ``python -m tests.bank.attacks`` (a part: ``python -m tests.bank.attacks header labels``).
``tests/bank/test_attacks.py`` runs the same list.
"""

from . import files, header, labels, manifest, writing
from .attack import Attack

ATTACKS: tuple[Attack, ...] = (*files.ATTACKS, *manifest.ATTACKS, *header.ATTACKS, *labels.ATTACKS, *writing.ATTACKS)

__all__ = ["ATTACKS", "Attack"]
