"""A generator's folder: its files by name, and weights that carry where they come from.

The provenance travels inside the file of the weights, so that one rename replaces both: whoever opens the folder during
a training finds weights and provenance of one moment.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.files.atomic import write_tensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TRAINING = "training"

_PROVENANCE = "genmix_provenance"
_CHECKSUM = "xxh3"


def write_weights(file: Path, tensors: Mapping[str, Tensor], *, provenance: Mapping[str, Any]) -> None:
    """Write weights with their provenance and a checksum, whole or not at all.

    Args:
        file: of safetensors; its folder exists.
        tensors: the weights by name.
        provenance: JSON can hold it.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key only: safetensors writes several in random order, and the same weights should make the same file.
    metadata = {_PROVENANCE: json.dumps({**provenance, _CHECKSUM: _checksum(tensors)})}
    write_tensors(file, tensors, metadata=metadata)


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_weights` wrote: the weights by name, on the CPU, and their provenance.

    Raises:
        MissingPathError: there is no such file.
        InputError: not a whole safetensors file.
        CorruptFileError: the weights are not those that were written.
    """
    if not file.exists():
        raise MissingPathError(f"{file}: no such file; the folder has a {CONFIG} but no weights")
    try:
        provenance = _read_metadata(file)
        tensors = safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from error
    checksum = provenance.pop(_CHECKSUM, None)  # earlier releases wrote none
    if checksum not in (None, _checksum(tensors)):
        raise CorruptFileError(
            f"{file}: damaged: the weights do not match the checksum that was saved with them; copy the file again, "
            "or train the generator again"
        )
    return tensors, provenance


def read_provenance(file: Path) -> dict[str, Any]:
    """Read the provenance alone, without the weights; an empty one if there is no such file.

    Raises:
        InputError: not a whole safetensors file.
    """
    if not file.exists():
        return {}
    try:
        provenance = _read_metadata(file)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from error
    provenance.pop(_CHECKSUM, None)
    return provenance


def _read_metadata(file: Path) -> dict[str, Any]:
    with safetensors.safe_open(file, framework="pt") as content:
        provenance: dict[str, Any] = json.loads((content.metadata() or {}).get(_PROVENANCE, "{}"))
    return provenance


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """The xxh3 of all tensors, in the order of their names."""
    digest = xxhash.xxh3_64()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
