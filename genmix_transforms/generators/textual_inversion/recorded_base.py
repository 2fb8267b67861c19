"""The base model as a generator's configuration records it, and how it is found again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.generators.textual_inversion.base_model import BaseSource, find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.folder import read_place
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion

_NOISE_SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one", "clip_sample", "clip_sample_range",
    "thresholding", "final_sigmas_type",
)  # fmt: skip
"""What of a scheduler's configuration images can depend on; None where its kind does not say."""


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
