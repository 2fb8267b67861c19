"""A generator's folder: its files by name, its configuration, and weights that carry where they come from.

The provenance travels inside the file of the weights, so that one rename replaces both: whoever opens the folder during
a training finds weights and provenance of one moment.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from genmix_transforms.errors import InputError, MissingPathError, OverwriteError
from genmix_transforms.files.atomic import write_json, write_tensors
from genmix_transforms.files.tensors import read_tensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TRAINING = "training"

FORMAT_VERSION = 1

_PROVENANCE = "genmix_provenance"


def write_weights(file: Path, tensors: Mapping[str, Tensor], *, provenance: Mapping[str, Any]) -> None:
    """Write weights with their provenance and a checksum, whole or not at all.

    Args:
        file: of safetensors; its folder exists.
        tensors: the weights by name.
        provenance: JSON can hold it.
    """
    write_tensors(file, tensors, metadata={_PROVENANCE: json.dumps(provenance)})


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_weights` wrote: the weights by name, on the CPU, and their provenance.

    Raises:
        MissingPathError: there is no such file.
        InputError: not a whole safetensors file, or a provenance that is no JSON.
        CorruptFileError: the file is not the one that was written.
    """
    if not file.exists():
        raise MissingPathError(f"{file}: no such file; the folder has a {CONFIG} but no weights")
    tensors, metadata = read_tensors(file)
    try:
        provenance: dict[str, Any] = json.loads(metadata.get(_PROVENANCE, "{}"))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: its provenance is not readable JSON ({error})") from error
    return tensors, provenance


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a generator, unless told to overwrite it."""
    if (folder / CONFIG).exists() and not overwrite:
        raise OverwriteError(f"{folder}: holds a generator already; give another folder, or overwrite=True")


def write_config(folder: Path, *, kind: str, config: Mapping[str, Any]) -> None:
    """Write ``config.json``: kind, format version and the constructor's arguments."""
    write_json(folder / CONFIG, {"kind": kind, "format_version": FORMAT_VERSION, "config": config})


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``."""
    file = folder / CONFIG
    if not file.exists():
        raise MissingPathError(
            f"{folder}: no {CONFIG}: not a generator, or one whose training has not reached its first checkpoint"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable JSON ({error})") from error
    if not isinstance(config, Mapping) or not isinstance(config.get("kind"), str) or "config" not in config:
        raise InputError(f"{file}: expected the keys 'kind' and 'config', as save_pretrained writes them")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{file}: format version {config.get('format_version')!r}; this release reads {FORMAT_VERSION}: upgrade it"
        )
    return dict(config)


def resolve_source(source: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a generator: the path itself, or the hub's snapshot of a repository."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith((".", os.sep)):
        raise MissingPathError(f"{source}: no such folder, and not a hub id (owner/name)")
    if folder.parent != Path() and folder.parent.is_dir():  # "runs/mien" is a slip, not somebody's repository
        raise MissingPathError(f"{source}: no such folder (in {folder.parent} there is no {folder.name})")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingPathError(
            f"{source}: no such folder, and not to be had from the hub ({type(error).__name__})"
        ) from error
