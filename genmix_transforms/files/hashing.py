"""Hashes of files."""

import hashlib
from pathlib import Path


def file_hash(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
