"""A bank on disk: immutable safetensors shards, and a manifest that is written last.

``bank-00000-of-00004.safetensors`` ... hold ``images``, ``labels`` and ``seeds``; ``bank.index.json`` names the shards
with their counts and checksums, the classes, the pixel type and the provenance. A folder without the manifest is not a
bank yet.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.files.atomic import write_json, write_tensors

INDEX = "bank.index.json"
FORMAT = "genmix-bank"
FORMAT_VERSION = 1
SHARD_BYTES = 256 * 2**20
"""A shard is closed before it grows past this many bytes of pixels."""

MAX_HEADER_BYTES = 2**20
"""A shard has three tensors: a header past one megabyte is none that we wrote."""

_SHARD_NAME = re.compile(r"bank-\d{5}-of-\d{5}\.safetensors")
PIXEL_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard as the manifest describes it."""

    file: str
    count: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``bank.index.json`` says.

    Args:
        classes: class names; a label is an index into them.
        dtype: of the pixels: "uint8" or "uint16".
        shape: ``(C, *spatial)`` of an image.
        class_counts: images of each class, in the order of ``classes``.
        shards: in order; the bank is their concatenation.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value; None where pixels have no unit.
        provenance: of the images: generator, weights, training set.
        generation: 1 for a new bank, one more after each append.
    """

    classes: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    class_counts: tuple[int, ...]
    shards: tuple[Shard, ...]
    window: tuple[float, float] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 1


def shard_name(number: int, total: int) -> str:
    """``bank-00002-of-00007.safetensors``, as on the Hugging Face hub."""
    return f"bank-{number:05d}-of-{total:05d}.safetensors"


def is_shard_name(name: str) -> bool:
    """Whether a file of this name is a shard of a bank."""
    return _SHARD_NAME.fullmatch(name) is not None


def is_bank_file(name: str) -> bool:
    """Whether a file of this name belongs to a bank: its manifest, a shard, or what a killed writer left of one."""
    return name == INDEX or is_shard_name(name) or (name.startswith(".bank") and name.endswith(".tmp"))


def images_per_shard(shape: Sequence[int], dtype: torch.dtype) -> int:
    """How many images of ``shape`` one shard holds."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    return max(1, SHARD_BYTES // max(1, size))


def write_shard(path: Path, *, images: Tensor, labels: Tensor, seeds: Tensor, metadata: Mapping[str, str]) -> None:
    """Write one shard, whole or not at all.

    Args:
        path: its final name.
        images: ``(n, C, *spatial)``, uint8 or uint16.
        labels: int64 ``(n,)``, or float32 ``(n, K)``.
        seeds: int64 ``(n,)``; -1 for an image that came from no seed.
        metadata: strings for the file's header.
    """
    # A copy: labels and seeds may be one and the same tensor, which safetensors refuses.
    write_tensors(path, {"images": images, "labels": labels, "seeds": seeds.clone()}, metadata=metadata)


def read_shard(path: Path) -> dict[str, Tensor]:
    """Open one shard by memory mapping: ``images``, ``labels`` and ``seeds``.

    Raises:
        CorruptFileError: truncated, or something else than a shard.
    """
    _check_header(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CorruptFileError(f"{path}: not a whole shard ({error})") from error
    missing = {"images", "labels", "seeds"} - tensors.keys()
    if missing:
        raise CorruptFileError(f"{path}: a shard has images, labels and seeds; missing: {', '.join(sorted(missing))}")
    return tensors


def shard_metadata(path: Path) -> dict[str, str]:
    """The strings in a shard's header.

    Raises:
        CorruptFileError: truncated, or something else than a shard.
    """
    _check_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise CorruptFileError(f"{path}: not a whole shard ({error})") from error


def _check_header(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise CorruptFileError(f"{path}: the manifest names this shard, but there is no such file") from error
    if length > MAX_HEADER_BYTES:
        raise CorruptFileError(
            f"{path}: its header claims {length:,} bytes; a shard's has at most {MAX_HEADER_BYTES:,}"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest: from now on the folder is a bank. Several processes may write the same one at once."""
    content = asdict(manifest)
    content["shards"] = [asdict(shard) for shard in manifest.shards]
    content["class_counts"] = dict(zip(manifest.classes, manifest.class_counts, strict=True))
    write_json(folder / INDEX, {"format": FORMAT, "format_version": FORMAT_VERSION, **content}, shared=True)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest.

    Raises:
        InputError: no such folder, or no bank in it.
        CorruptFileError: a manifest that is not one.
    """
    if not folder.is_dir():
        raise MissingPathError(f"{folder}: no such bank")
    path = folder / INDEX
    if not path.exists():
        begun = any(is_shard_name(file.name) for file in folder.iterdir())
        raise MissingPathError(
            f"{folder}: no {INDEX}: "
            + (
                "a bank whose filling has not finished; run the same fill again "
                "(with --overwrite if its generator was trained on since)"
                if begun
                else "not a bank"
            )
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = (content["format"], content["format_version"])
        if version != (FORMAT, FORMAT_VERSION):
            raise InputError(
                f"{path}: format {version[0]!r} version {version[1]!r}; this release reads {FORMAT!r} version "
                f"{FORMAT_VERSION}"
            )
        classes = tuple(str(name) for name in content["classes"])
        manifest = Manifest(
            classes=classes,
            dtype=content["dtype"],
            shape=tuple(int(extent) for extent in content["shape"]),
            class_counts=tuple(int(content["class_counts"][name]) for name in classes),
            shards=tuple(
                Shard(file=shard["file"], count=int(shard["count"]), sha256=shard["sha256"])
                for shard in content["shards"]
            ),
            window=None if content["window"] is None else (float(content["window"][0]), float(content["window"][1])),
            provenance=dict(content["provenance"]),
            generation=int(content["generation"]),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not a bank's manifest ({type(error).__name__}: {error})") from error
    if not isinstance(manifest.dtype, str) or manifest.dtype not in PIXEL_DTYPES:
        raise CorruptFileError(f"{path}: pixel type {manifest.dtype!r}; there are {', '.join(PIXEL_DTYPES)}")
    for shard in manifest.shards:
        # A name with a path in it could read any file on the machine.
        if not isinstance(shard.file, str) or not is_shard_name(shard.file):
            raise CorruptFileError(f"{path}: {shard.file!r} is not the name of a shard")
    return manifest


def read_shards(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """All images, labels and seeds of a bank, checked against its manifest.

    One shard stays memory-mapped; several are brought together in memory.
    """
    parts: list[dict[str, Tensor]] = []
    for shard in manifest.shards:
        tensors = read_shard(folder / shard.file)
        expected = ((shard.count, *manifest.shape), PIXEL_DTYPES[manifest.dtype])
        got = (tuple(tensors["images"].shape), tensors["images"].dtype)
        if got != expected or any(tensor.shape[:1] != (shard.count,) for tensor in tensors.values()):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items()))
            raise CorruptFileError(
                f"{folder / shard.file}: the manifest says {expected[0]} {expected[1]}, "
                f"the shard holds {shapes}, {got[1]}"
            )
        first = parts[0] if parts else tensors
        for name in ("labels", "seeds"):
            kind, other = ((tuple(part[name].shape[1:]), part[name].dtype) for part in (first, tensors))
            if kind != other:
                raise CorruptFileError(
                    f"{folder / shard.file}: its {name} are {other[1]} {other[0]} an image, those of "
                    f"{manifest.shards[0].file} {kind[1]} {kind[0]}"
                )
        parts.append(tensors)
    if not parts:
        raise CorruptFileError(f"{folder / INDEX}: names no shards")
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in ("images", "labels", "seeds")}


def corrupt_shards(folder: Path, manifest: Manifest) -> Iterable[str]:
    """The names of the shards that are missing or whose bytes are not those that were written."""
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file() or file_hash(path) != shard.sha256:
            yield shard.file


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
