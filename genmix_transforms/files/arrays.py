"""NumPy archives in: arrays only, never objects, and never larger than announced."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError, MissingPathError

MAX_UNPACKED_BYTES = 64 * 2**30
"""An ``.npz`` that unpacks to more than this is refused: 200 kB of zip can unpack to gigabytes."""


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read every array of an ``.npz`` file.

    Raises:
        InputError: no such file, not an ``.npz``, damaged (its CRC-32 is checked), or with Python objects in it
            (which would have to be unpickled, and unpickling runs code).
    """
    if not path.exists():
        raise MissingPathError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise InputError(
                f"{path}: unpacks to {unpacked / 2**30:.0f} GiB; at most {MAX_UNPACKED_BYTES / 2**30:.0f} are read"
            )
        with np.load(path, allow_pickle=False) as archive:
            arrays = {}
            for name in archive.files:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    raise InputError(
                        f"{path}: array {name!r} holds Python objects, which are never unpickled: "
                        f"save it again as plain numbers or strings ({error})"
                    ) from error
            return arrays
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable .npz ({error})") from error
