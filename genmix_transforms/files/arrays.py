"""NumPy archives, in and out: arrays only, never objects, and never larger than announced."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.atomic import new_file
from genmix_transforms.files.memory import check_memory

MAX_UNPACKED_BYTES = 64 * 2**30
"""An ``.npz`` that unpacks to more than this is refused: 200 kB of zip can unpack to gigabytes."""

MOST_CHANNELS = 7
"""A last axis no longer than this is one of channels; no side of an image or a volume is as short."""


def channels_first(pixels: NDArray[Any]) -> NDArray[Any] | None:
    """Images of an archive with their channels before their sides, sharing their memory.

    Args:
        pixels: ``(N, H, W)`` or ``(N, H, W, C)``, or volumes ``(N, D, H, W)`` or ``(N, D, H, W, C)``. C is at most 7,
            and the sides of volumes are longer.

    Returns:
        ``(N, C, H, W)`` or ``(N, C, D, H, W)``; None for any other shape.

    Example:
        >>> [channels_first(np.zeros((2, 9, 9, last))).shape for last in (3, 9)]
        [(2, 3, 9, 9), (2, 1, 9, 9, 9)]
    """
    has_channels = pixels.ndim > 3 and pixels.shape[-1] <= MOST_CHANNELS
    sides = pixels.shape[1:-1] if has_channels else pixels.shape[1:]
    if len(sides) != 2 and not (len(sides) == 3 and min(sides) > MOST_CHANNELS):
        return None
    return np.moveaxis(pixels, -1, 1) if has_channels else pixels[:, None]


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read every array of an ``.npz`` file.

    Raises:
        InputError: no such file, not an ``.npz``, damaged (its CRC-32 is checked), or with Python objects in it
            (which would have to be unpickled, and unpickling runs code), or more than fits into memory.
    """
    if not path.exists():
        raise MissingPathError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        # Damage in its directory makes zipfile drop entries and say nothing: groups would be missing unnoticed.
        with open(path, "rb") as file:
            file.seek(-22, os.SEEK_END)
            end_record = file.read()
        announced = int.from_bytes(end_record[10:12], "little")
        if end_record[:4] == b"PK\5\6" and announced not in (len(members), 0xFFFF):
            raise InputError(f"{path}: not a readable .npz ({len(members)} of its {announced} arrays are listed)")
        unpacked = sum(member.file_size for member in members)
        if unpacked > MAX_UNPACKED_BYTES:
            raise InputError(
                f"{path}: unpacks to {unpacked / 2**30:.0f} GiB; at most {MAX_UNPACKED_BYTES / 2**30:.0f} are read"
            )
        check_memory(unpacked, what=f"{path}", way_out="use a machine with more, or split the file")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {}
            for name in archive.files:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    if "Object arrays" not in str(error):
                        raise
                    raise InputError(
                        f"{path}: array {name!r} holds Python objects, which are never unpickled: "
                        f"save it again as plain numbers or strings ({error})"
                    ) from error
                if not isinstance(arrays[name], np.ndarray):
                    raise InputError(f"{path}: {name!r} in it is no NumPy array; an .npz holds nothing else")
            return arrays
    except InputError:
        raise
    except Exception as error:  # damage shows as an error of zipfile, zlib, lzma or NumPy, wherever it is met first
        raise InputError(f"{path}: not a readable .npz ({error})") from error


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as a compressed ``.npz``, whole or not at all: the same arrays, the same bytes.

    Raises:
        ValueError: an array of Python objects, which would have to be pickled.
    """
    with new_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
