"""Files of weights from elsewhere, read without running anything in them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from genmix_transforms.errors import InputError, MissingPathError

_ZIP = b"PK"
_PICKLE = b"\x80\x02"


def read_weights(file: str | Path, *, mmap: bool = False) -> Any:
    """What a ``.pt``, ``.pth`` or ``.safetensors`` file holds: tensors, in dicts and lists.

    Args:
        file: to read, PyTorch's with ``weights_only=True``.
        mmap: map the tensors instead of reading them; copy what is to outlive the file.

    Raises:
        InputError: not such a file, not a whole one, or one that holds objects other than tensors, none of which is
            made or run.
    """
    file = Path(file)
    if not file.is_file():
        raise MissingPathError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise InputError(f"{file}: not a whole safetensors file ({error})") from error
    with open(file, "rb") as content:
        start = content.read(2)
    try:
        # Only the format since PyTorch 1.6, a zip archive, can be mapped.
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and start == _ZIP)
    except pickle.UnpicklingError as error:
        if start not in (_ZIP, _PICKLE):  # what torch.save writes
            raise InputError(f"{file}: not a file of PyTorch weights") from error
        raise InputError(
            f"{file}: holds more than tensors, and unpickling objects can run code: nothing in it was run. "
            "Save its state_dict() alone, where you trust it, and convert that"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: not a readable PyTorch file ({error})") from error


def flatten(content: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested dicts as a list of dotted names and values.

    Example:
        >>> flatten({"epoch": 3, "net": {"weight": 1}})
        [('epoch', 3), ('net.weight', 1)]
    """
    if not isinstance(content, Mapping):
        return [(prefix.rstrip("."), content)]
    return [item for key, value in content.items() for item in flatten(value, f"{prefix}{key}.")]
