"""The files of a Textual Inversion's folder, and the base model that they were learned for.

``model.safetensors`` holds the vectors of all classes, the adapters and the provenance: one rename replaces them all,
and whoever opens the folder while it is trained finds those of one moment. For diffusers the same is written once more,
as a folder for each class with its ``learned_embeds.safetensors``, and as ``unet_lora/``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.atomic import write_json, write_tensors
from genmix_transforms.files.checks import name_fault
from genmix_transforms.generators.folder import CONFIG, TRAINING, WEIGHTS, read_weights, write_weights
from genmix_transforms.generators.lora import ADAPTERS
from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.embeddings_file import EMBEDDINGS, save_embeddings
from genmix_transforms.generators.textual_inversion.network import BaseSource, LatentDiffusion
from genmix_transforms.generators.textual_inversion.tokens import placeholder

BASE = "base_model.json"
"""Where the base model lies on this machine: the one file with a path in it. Leave it out of what you publish."""

LORA = "unet_lora"

RESERVED = (CONFIG, WEIGHTS, BASE, LORA, TRAINING, "samples", "evolution.png")
"""Names in the folder that no class may have."""

_EMBEDDING = "embedding."

_NOISE_SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one", "clip_sample", "clip_sample_range",
    "thresholding", "final_sigmas_type",
)  # fmt: skip
"""What of a scheduler's configuration images can depend on; None where its kind does not say."""


def check_reserved(classes: Sequence[str]) -> None:
    """Raise an :class:`InputError` for a class that is called like a file of the folder."""
    for name in classes:
        if name.lower() in RESERVED:
            raise InputError(f"TextualInversion: no class can be called {name!r}: a file of the folder is; rename it")


def save_learned(
    folder: Path, embeddings: Mapping[str, Tensor], adapters: Mapping[str, Tensor], *, provenance: dict[str, Any]
) -> None:
    """Write what was learned, and the copies for other tools.

    Args:
        folder: it exists.
        embeddings: of each class ``(V, D)``.
        adapters: as :func:`adapter_state` names them; empty: none.
        provenance: travels inside the file.
    """
    earlier = _classes_of(folder / WEIGHTS)
    tensors = {f"{_EMBEDDING}{name}": rows for name, rows in embeddings.items()} | dict(adapters)
    write_weights(folder / WEIGHTS, tensors, provenance=provenance)
    for name, rows in embeddings.items():
        save_embeddings(folder / name, placeholder(name), rows)
    for name in earlier - set(embeddings):  # of a generator that was here before; other people's files stay
        _remove(folder / name / EMBEDDINGS)
    if adapters:
        (folder / LORA).mkdir(exist_ok=True)
        write_tensors(folder / LORA / ADAPTERS, adapters)
    else:
        _remove(folder / LORA / ADAPTERS)


def _remove(file: Path) -> None:
    """Remove a file of ours, and its folder if nothing else is in there."""
    file.unlink(missing_ok=True)
    if file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()


def _classes_of(file: Path) -> set[str]:
    """The classes whose embeddings a file of weights holds; none if there is no such file, or another generator's."""
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            tensors = content.keys()
    except (OSError, safetensors.SafetensorError):
        return set()
    names = [name.removeprefix(_EMBEDDING) for name in tensors if name.startswith(_EMBEDDING)]
    return {name for name in names if name_fault(name) is None}


def load_learned(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Embeddings, adapters and provenance, as :func:`save_learned` got them.

    Raises:
        MissingPathError: there are none.
        InputError: not a whole file.
        CorruptFileError: damaged.
    """
    tensors, provenance = read_weights(folder / WEIGHTS)
    embeddings = {
        name.removeprefix(_EMBEDDING): tensor for name, tensor in tensors.items() if name.startswith(_EMBEDDING)
    }
    adapters = {name: tensor for name, tensor in tensors.items() if not name.startswith(_EMBEDDING)}
    return embeddings, adapters, provenance


def save_place(folder: Path, source: BaseSource) -> None:
    """Note where the base model lies on this machine."""
    write_json(folder / BASE, {"folder": str(source.folder.resolve())})


def read_place(folder: Path) -> Path | None:
    """Where the base model lay when :func:`save_place` was called; None: nothing is noted.

    Raises:
        InputError: the note cannot be read.
    """
    if not (folder / BASE).exists():
        return None
    try:
        return Path(json.loads((folder / BASE).read_text(encoding="utf-8"))["folder"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / BASE}: not readable ({error}); say where the base model is: --base FOLDER"
        ) from error


def record_of(model: LatentDiffusion, source: BaseSource) -> dict[str, Any]:
    """Name, revision, hash of the weights, and what of the noise schedule the weights do not tell: never a path."""
    return {
        "name": source.name,
        "revision": source.revision,
        "weights": f"sha256:{model.weights_hash}",
        "noise_schedule": {name: model.scheduler_config.get(name) for name in _NOISE_SCHEDULE},
    }


def open_recorded(
    folder: Path, record: Mapping[str, Any], *, given: str | Path | LatentDiffusion | None = None
) -> tuple[LatentDiffusion, BaseSource]:
    """The base model of a record, and its source under the name that it was recorded by.

    Args:
        folder: of the generator.
        record: as :func:`record_of` makes it.
        given: where the base model is, or itself; None: where it was when the folder was written, else the hub's.

    Raises:
        MissingPathError: it is not there.
        InputError: it is another.
    """
    if set(record) != {"name", "revision", "weights", "noise_schedule"}:
        raise InputError(f"{folder}: its config.json does not say which base model it was learned for")
    model = given if isinstance(given, LatentDiffusion) else open_base_model(_find(folder, record, given))
    place = model.source.folder if model.source else Path("in memory")
    source = BaseSource(name=record["name"], revision=record["revision"], folder=place)
    found = record_of(model, source)
    for key, what in (("weights", "other weights"), ("noise_schedule", "another noise schedule")):
        if differing := _differing(found[key], record[key]):
            raise InputError(
                f"{folder}: learned for the base model {record['name']}, and the one at {place} has {what} "
                f"({differing}); say where that one is: base=FOLDER (--base FOLDER)"
            )
    return model, source


def _differing(found: Any, recorded: Any) -> str:
    if isinstance(found, Mapping) and isinstance(recorded, Mapping):
        return ", ".join(
            f"{name} {found.get(name)!r}, where {value!r} is expected"
            for name, value in recorded.items()
            if found.get(name) != value
        )
    return "" if found == recorded else f"{found}, where {recorded} is expected"


def _find(folder: Path, record: Mapping[str, Any], given: str | Path | None) -> BaseSource:
    if given is not None:
        return find_base_model(given)
    place = read_place(folder)
    if place is not None and place.is_dir():
        return find_base_model(place)
    if record["revision"] is not None:
        return find_base_model(record["name"], revision=record["revision"])
    where = "and nothing says where that is" if place is None else f"which is no longer at {place}"
    raise MissingPathError(
        f"{folder}: learned for the base model {record['name']}, {where}; say where it is: base=FOLDER (--base FOLDER)"
    )
