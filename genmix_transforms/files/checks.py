"""What users give, checked before any work starts: seeds, whole numbers, and folders to write."""

import operator
import os
from pathlib import Path
from typing import Any

from genmix_transforms.errors import InputError, OverwriteError, UnwritableError

HIGHEST_SEED = 2**63 - 1


def whole_number(value: Any, *, name: str, least: int, most: int | None = None) -> int:
    """``value`` as an int.

    Raises:
        InputError: not a whole number (Python's or NumPy's), or out of range; the message gives its name.
    """
    try:
        number = operator.index(value) if not isinstance(value, bool) else None
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        allowed = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number, {allowed}, got {value!r}")
    return number


def check_seed(value: Any, *, name: str = "seed") -> int:
    """A seed as an int, from 0 to 2**63 - 1."""
    return whole_number(value, name=name, least=0, most=HIGHEST_SEED)


def name_fault(name: Any) -> str | None:
    """What is wrong with a class name, or None: it must be fit to be the name of a folder on any system."""
    if not isinstance(name, str) or not name.strip():
        return "not a name"
    if name != name.strip() or name in (".", ".."):
        return "spaces at its ends, or a folder's shorthand"
    if not name.isprintable() or any(character in name for character in "/\\"):
        return "it holds a slash or a character that cannot be printed; rename the class"
    if len(name.encode()) > 200:
        return "longer than 200 bytes"
    return None


def check_output_folder(folder: Path) -> None:
    """Refuse a folder to write that is a file, lies below one, or cannot be written to."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise OverwriteError(f"{folder}: cannot be a folder, for {path} is a file; give another")
            if not os.access(path, os.W_OK | os.X_OK):
                raise UnwritableError(f"{folder}: {path} is read-only for you; give a folder that you may write to")
            return
