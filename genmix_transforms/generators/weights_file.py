"""Files of weights from elsewhere, read without running anything in them."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from genmix_transforms.errors import InputError, MissingPathError

_ZIP = b"PK"
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch.save began its files before they were zip archives: a pickle of one large number."""

LONGEST_NAME = 1000
"""Characters of a tensor's name; what is nested deeper is not looked at."""


def is_weights_file(file: str | Path) -> bool:
    """Whether a file looks like one of safetensors or of ``torch.save``, from its first bytes.

    Raises:
        MissingPathError: no such file.
    """
    file = Path(file)
    if not file.is_file():
        raise MissingPathError(f"{file}: no such file")
    with open(file, "rb") as content:
        start = content.read(len(_LEGACY))
    return file.suffix == ".safetensors" or start.startswith(_ZIP) or start == _LEGACY


def read_weights(file: str | Path, *, mmap: bool = False) -> Any:
    """Read a ``.pt``, ``.pth``, ``.bin`` or ``.safetensors`` file: tensors, in dicts and lists.

    Args:
        file: to read, PyTorch's with ``weights_only=True``.
        mmap: map the tensors instead of reading them; copy what is to outlive the file.

    Raises:
        InputError: not such a file, not a whole one, or one that holds objects other than tensors, none of which is
            made or run.
    """
    file = Path(file)
    of_torch = is_weights_file(file)
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        # Only the format since PyTorch 1.6, a zip archive, can be mapped.
        zipped = zipfile.is_zipfile(file)
        if zipped:
            with zipfile.ZipFile(file) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise InputError(f"{file}: a compressed archive, which torch.save does not write")
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except safetensors.SafetensorError as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from error
    except pickle.UnpicklingError as error:
        if not of_torch:
            raise InputError(f"{file}: not a file of PyTorch weights") from error
        raise InputError(
            f"{file}: holds more than tensors, and unpickling objects can run code: nothing in it was run. "
            "Save its state_dict() alone, where you trust it, and convert that"
        ) from error
    except InputError:
        raise
    except Exception as error:  # whatever PyTorch says to a damaged file
        raise InputError(f"{file}: not a readable PyTorch file ({type(error).__name__}: {str(error)[:200]})") from error


def flatten(content: Any) -> list[tuple[str, Any]]:
    """Nested dicts as a list of dotted names and values. A dict that is in there twice counts once.

    (Otherwise a small file whose dicts hold each other many times over would keep us busy for years.)

    Example:
        >>> flatten({"epoch": 3, "net": {"weight": 1}})
        [('epoch', 3), ('net.weight', 1)]
    """
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()
    todo = [("", content)]
    while todo:
        name, value = todo.pop()
        if not isinstance(value, Mapping):
            found.append((name, value))
        elif id(value) not in seen:
            seen.add(id(value))
            inside = [(f"{name}.{key}" if name else str(key), key) for key in value if isinstance(key, (str, int))]
            todo.extend((longer, value[key]) for longer, key in reversed(inside) if len(longer) <= LONGEST_NAME)
    return found
