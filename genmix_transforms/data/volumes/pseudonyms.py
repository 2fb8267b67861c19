"""Pseudonyms: a keyed hash in place of patients, dates and series."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from genmix_transforms.errors import InputError, MissingPathError

KEY_VARIABLE = "GENMIX_KEY"
"""The environment variable that holds the key."""

SHORTEST_KEY = 16
"""Characters. Patient numbers are few: with a key that can be guessed, so can they."""

_DIGITS = 16


class Pseudonyms:
    """HMAC-SHA256 of whatever identifies somebody, the first 64 bits as hexadecimal digits.

    The same key gives the same pseudonym in every data set, so that sets can be joined; without the key nobody can tell
    who is who, nor try all patient numbers. The key is kept in memory alone.

    Args:
        key: at least 16 characters.

    Raises:
        InputError: a shorter key.

    Example:
        >>> names = Pseudonyms("not a key to use in earnest")
        >>> names("patient", "12345") == names("patient", "12345"), len(names("patient", "12345"))
        (True, 16)
    """

    def __init__(self, key: str) -> None:
        if len(key) < SHORTEST_KEY:
            raise InputError(f"the key has {len(key)} characters; at least {SHORTEST_KEY} keep others from guessing it")
        self._key = key.encode()

    def __call__(self, kind: str, identity: str) -> str:
        """The pseudonym of an identity: ``kind`` is what it is of (patient, date, series), so that none equals
        another.
        """
        message = f"{kind}\0{identity}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def read_key(file: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The key: from a file, else from the environment.

    Raises:
        MissingPathError: no such file.
        InputError: neither of them.
    """
    if file is not None:
        if not file.is_file():
            raise MissingPathError(f"--key-file {file}: no such file")
        return file.read_text(encoding="utf-8").strip()
    if key := environment.get(KEY_VARIABLE, "").strip():
        return key
    raise InputError(
        f"patients and dates are written as keyed hashes, and there is no key: set {KEY_VARIABLE} to a random text of "
        "your own (openssl rand -hex 32 makes one), or name a file that holds it (--key-file); keep it, and keep it "
        "to yourself"
    )
