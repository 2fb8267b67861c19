"""Named tensors in a safetensors file that carries a checksum of itself.

Any safetensors reader opens such a file. The checksum is in the header, not in a file beside it: one rename replaces
weights, metadata and checksum together, so that a kill in between leaves no file that seems damaged.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import torch
import xxhash
from torch import Tensor

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError

CHECKSUM = "genmix_xxh3"
"""The header's key of the checksum: xxh3 (64 bits) of the whole file, computed with zeros in the checksum's place."""

SPELLED = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}
"""How safetensors spells each dtype."""

_SIZES = {spelled: dtype.itemsize for dtype, spelled in SPELLED.items()}
_NONE_YET = "0" * 16
_PIECE_BYTES = 2**24


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file, up to its first tensor.

    The safetensors library writes several metadata keys in random order; this keeps their order, so that equal content
    makes equal files.

    Args:
        tensors: dtype as safetensors spells it, and shape, of each, in the order in which they will follow.
        metadata: texts by name.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (spelled, shape) in tensors.items():
        end = position + math.prod(shape) * _SIZES[spelled]
        header[name] = {"dtype": spelled, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def file_pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The content of a safetensors file with a checksum, piece by piece: no second copy of the tensors is made.

    Args:
        tensors: by name, on any device.
        metadata: texts by name.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Widest numbers first, as the library has it, so that each tensor lies where its type may.
    names = sorted(held, key=lambda name: (-held[name].itemsize, name))
    places = {name: (SPELLED[held[name].dtype], tuple(held[name].shape)) for name in names}
    header = header_bytes(places, {**metadata, CHECKSUM: _NONE_YET})
    pieces = [held[name].reshape(-1).view(torch.uint8).numpy().data for name in names if held[name].numel()]
    digest = xxhash.xxh3_64(header)
    for piece in pieces:
        digest.update(piece)
    yield header.replace(_entry(_NONE_YET), _entry(digest.hexdigest()), 1)
    yield from pieces


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file, and compare it with its checksum if it has one.

    Args:
        path: the file.

    Returns:
        The tensors by name, on the CPU, and the metadata without the checksum.

    Raises:
        MissingPathError: no such file.
        InputError: not a whole safetensors file.
        CorruptFileError: other bytes than were written.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            _check(path, metadata.pop(CHECKSUM, None))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (no mapping)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error


def _check(path: Path, checksum: str | None) -> None:
    """Compare a file with its checksum; None: it was written without one, by an older release or another program."""
    if checksum is None:
        return
    with open(path, "rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        digest = xxhash.xxh3_64(length + header.replace(_entry(checksum), _entry(_NONE_YET), 1))
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    if digest.hexdigest() != checksum:
        raise CorruptFileError(
            f"{path}: damaged: not the bytes that were written (its checksum differs); take it from a copy, or make it "
            f"again. If another program has rewritten it on purpose, leave {CHECKSUM!r} out of its metadata"
        )


def _entry(checksum: str) -> bytes:
    return f'"{CHECKSUM}":"{checksum}"'.encode()
