"""Training state on disk: nested state dicts as one safetensors file and one small JSON, never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from genmix_transforms.errors import CorruptFileError
from genmix_transforms.files.atomic import new_file, remove_leftovers, write_json
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.files.tensors import file_pieces

INDEX = "checkpoint.json"
"""Written last: a checkpoint exists when this file names it."""

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The layout with channels last, by the number of axes: weights of convolutions of two and of three dimensions."""


class Stateful(Protocol):
    """Anything that hands out its state and takes it up again: networks, optimizers, averages, controllers."""

    def state_dict(self) -> dict[str, Any]:
        """Nested dicts, lists and tuples of tensors, numbers and strings."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Take up what :meth:`state_dict` gave."""
        ...


def pack(state: Any, *, prefix: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Take a nested state apart into a JSON outline and named tensors.

    Returns:
        The outline, in which dicts are ``{"dict": [[key, value], ...]}`` (optimizers have whole-number keys, which JSON
        objects cannot hold), tuples ``{"tuple": [...]}`` and tensors ``{"tensor": name, "channels_last": bool}``; and
        the tensors by name. The memory layout is part of the state: a fused optimizer steps through a weight and its
        moments side by side, and with another layout in one of them it adds up in another order, if not the wrong
        elements.
    """
    tensors: dict[str, Tensor] = {}

    def take_apart(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {"tensor": name, "channels_last": _is_channels_last(value)}
        if isinstance(value, Mapping):
            return {"dict": [[key, take_apart(item, f"{name}/{key}")] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [take_apart(item, f"{name}/{number}") for number, item in enumerate(value)]}
        if isinstance(value, list):
            return [take_apart(item, f"{name}/{number}") for number, item in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"{name}: a {type(value).__name__} cannot go into a checkpoint")

    return take_apart(state, prefix), tensors


def unpack(outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what :func:`pack` took apart."""
    if isinstance(outline, list):
        return [unpack(item, tensors) for item in outline]
    if isinstance(outline, dict):
        if "tensor" in outline:
            tensor = tensors[outline["tensor"]]
            return tensor.contiguous(memory_format=_LAST[tensor.ndim]) if outline["channels_last"] else tensor
        if "tuple" in outline:
            return tuple(unpack(item, tensors) for item in outline["tuple"])
        return {key: unpack(item, tensors) for key, item in outline["dict"]}
    return outline


def state_bytes(objects: Mapping[str, Stateful]) -> int:
    """How large a checkpoint of these objects is, in bytes.

    An optimizer that has not taken a step is counted with the two moments of Adam, which it will have.
    """
    size = 0
    for item in objects.values():
        size += sum(tensor.nbytes for tensor in pack(item.state_dict())[1].values())
        if isinstance(item, torch.optim.Optimizer) and not item.state:
            size += sum(2 * parameter.nbytes for group in item.param_groups for parameter in group["params"])
    return size


def all_finite(objects: Mapping[str, Stateful]) -> bool:
    """Whether every number in the state is finite."""
    _, tensors = pack({name: item.state_dict() for name, item in objects.items()})
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point():
            by_device.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(found).all()) for found in by_device.values())


def _is_channels_last(tensor: Tensor) -> bool:
    layout = _LAST.get(tensor.ndim)
    return layout is not None and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()


def write_checkpoint(
    folder: Path, outline: Any, tensors: Mapping[str, Tensor], *, images_seen: int, record: Mapping[str, Any]
) -> None:
    """Write what :func:`pack` has taken apart, the index last: until then, the checkpoint before is whole.

    ``tensors`` are on the CPU and contiguous; ``record`` is what else the run must know of itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"state-{images_seen:012d}.safetensors"
    digest = hashlib.sha256()
    with new_file(file) as content:
        # Piece by piece: the whole is never in memory, and other threads work meanwhile.
        for piece in file_pieces(tensors, {}):
            digest.update(piece)
            content.write(piece)
    index = {"images_seen": images_seen, "file": file.name, "sha256": digest.hexdigest(), **record, "outline": outline}
    write_json(folder / INDEX, index)
    for other in folder.glob("state-*.safetensors"):
        if other != file:
            other.unlink()


def read_record(folder: Path) -> dict[str, Any] | None:
    """What the last checkpoint in ``folder`` says of itself, or None where there is none."""
    if not (folder / INDEX).exists():
        return None
    try:
        record: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CorruptFileError(f"{folder / INDEX}: not readable ({error}); start again with --restart") from error
    return record


def load_checkpoint(folder: Path, record: dict[str, Any], objects: Mapping[str, Stateful]) -> int:
    """Take up the checkpoint that ``record`` describes, and return the number of images seen."""
    file = folder / Path(record["file"]).name
    if not file.exists() or file_hash(file) != record["sha256"]:
        raise CorruptFileError(f"{file}: not the file that {INDEX} describes; start again with --restart")
    state = unpack(record["outline"], safetensors.torch.load_file(file))
    for name, item in objects.items():
        item.load_state_dict(state[name])
    return int(record["images_seen"])


def clear(folder: Path) -> None:
    """Remove the checkpoint in ``folder``, index first, and what a killed run left."""
    if folder.exists():
        (folder / INDEX).unlink(missing_ok=True)
        remove_leftovers(folder)
        for file in folder.glob("state-*.safetensors"):
            file.unlink()


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of named tensors, independent of their order and device: the identity of a network's weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
