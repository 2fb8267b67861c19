"""The folder of a run: who works in it, which run it holds, whether that may go on, and where its weights come from."""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genmix_transforms.data.identity import join_training_sets
from genmix_transforms.errors import InputError
from genmix_transforms.files.atomic import remove_leftovers
from genmix_transforms.files.locking import locked
from genmix_transforms.generators.folder import CONFIG, TRAINING, WEIGHTS
from genmix_transforms.generators.state import clear

EVOLUTION = "evolution.png"
LOSSES = "losses.jsonl"
SAMPLES = "samples"
TRACKED = "tracked"
LOCK = "lock"
HOLDER = "lock.json"

_MAY_DIFFER = ("processes", "training_set.images")
"""Of a run's record. The images follow from the fingerprint; earlier releases did not record them."""


@contextmanager
def held(out: Path, *, restart: bool) -> Iterator[None]:
    """Be the one training in a folder, made if need be, for as long as the block lasts.

    Raises:
        InputError: it holds a generator that was not trained there, and ``restart`` is False.
        OverwriteError: another training is at work there.
    """
    folder = out / TRAINING
    if (out / CONFIG).exists() and not (folder.exists() or restart):
        raise InputError(f"{out}: holds a generator but no training to go on with; give another folder or --restart")
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{out}: another training is at work in this folder; wait for it, stop it, or give another folder"
    with locked(folder / LOCK, busy=busy, note=folder / HOLDER):
        if restart:
            _forget(out)
        else:
            remove_leftovers(folder)
        yield


def _forget(out: Path) -> None:
    """Throw an earlier run away: its generator too, which would otherwise be taken for the new run's."""
    for name in (CONFIG, WEIGHTS, EVOLUTION):
        (out / name).unlink(missing_ok=True)
    clear(out / TRAINING)
    (out / TRAINING / LOSSES).unlink(missing_ok=True)
    for folder in (out / SAMPLES, out / TRAINING / TRACKED):
        shutil.rmtree(folder, ignore_errors=True)


def provenance_of(record: Mapping[str, Any], started_from: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where the weights come from, those they started from included: they too saw their training set."""
    provenance = dict(record)
    if started_from is not None:
        provenance["started_from"] = dict(started_from)
        provenance["training_set"] = join_training_sets(started_from.get("training_set", {}), record["training_set"])
    return provenance


def check_same_run(
    out: Path, earlier: Mapping[str, Any], record: Mapping[str, Any], *, assumed: Mapping[str, Any] | None = None
) -> None:
    """Refuse to go on with another run's checkpoint, whose record is ``earlier``; name what differs.

    ``assumed`` has options that a release may not have recorded yet, with the values that they then had.

    Raises:
        InputError: they differ in more than the number of processes.
    """
    earlier = {**earlier, "options": {**(assumed or {}), **earlier["options"]}}
    differing = [
        f"{key}: {was!r} there, {now!r} now"
        for key, was, now in _differences(earlier, json.loads(json.dumps(record)))
        if key not in _MAY_DIFFER
    ]
    if differing:
        raise InputError(
            f"{out}: holds a run with other settings ({'; '.join(differing)}); "
            "give the same settings, another folder, or --restart"
        )
    if earlier["processes"] != record["processes"]:
        warnings.warn(
            f"{out}: begun with {earlier['processes']} processes, going on with {record['processes']}: "
            "the result will not be bit for bit that of an unbroken run",
            stacklevel=3,
        )


def _differences(
    earlier: Mapping[str, Any], now: Mapping[str, Any], *, prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key, value in now.items():
        was = earlier.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, value, prefix=f"{prefix}{key}.")
        elif was != value:
            yield f"{prefix}{key}", was, value
