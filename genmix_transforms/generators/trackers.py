"""What a run tells trackers of experiments: TensorBoard, Weights & Biases, MLflow, through Accelerate's trackers."""

import importlib.util
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.files.atomic import write_json
from genmix_transforms.generators.processes import Processes

TRACKERS = {
    "tensorboard": "pip install 'genmix-transforms[trackers]'",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
}
"""The names, and how to install each."""

RUNS = "runs.json"
"""Under which ids the services know this run, so that it goes on there after a stop."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        InputError: one of them is not.
        MissingExtraError: Accelerate, which speaks to them, is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"report_to {name!r} needs the package {name}, which is not installed: {TRACKERS[name]}")
    if names and importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError.naming("accelerate", extra="trackers", needed_by="report_to")


class Trackers:
    """Tells all trackers of one run. A run that is resumed goes on in the same log.

    TensorBoard's files are in the run's folder; steps that happen again after a kill replace those of before. Weights &
    Biases keeps what it was told first, MLflow both. Both services take their address and key from their own
    environment variables.

    Args:
        names: which; none is allowed. On other processes than the main one, there are none.
        folder: where local files go; made if need be.
        title: of the run.
        settings: what is shown as the run's configuration.
        step: the steps taken before.
        processes: who trains together.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        folder: Path,
        title: str,
        settings: Mapping[str, Any],
        step: int,
        processes: Processes,
    ) -> None:
        self._trackers: list[Any] = []
        if not names or not processes.is_main:
            return
        from accelerate import PartialState

        PartialState(cpu=processes.device.type == "cpu")  # Accelerate's trackers ask it who they are
        folder.mkdir(parents=True, exist_ok=True)
        runs = folder / RUNS
        ids: dict[str, str] = json.loads(runs.read_text(encoding="utf-8")) if runs.exists() else {}
        flat = dict(_flat(settings))
        for name in dict.fromkeys(names):
            tracker, ids[name] = _start(name, folder=folder, title=title, step=step, known=ids.get(name))
            if not step and name == "tensorboard":
                tracker.log({"settings": f"```\n{json.dumps(flat, indent=1)}\n```"}, step=0)
            elif not step:
                tracker.store_init_configuration(flat)
            self._trackers.append(tracker)
        write_json(runs, ids)

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Tell numbers by name."""
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def show(self, name: str, picture: Image.Image, file: Path, *, step: int) -> None:
        """Show a picture, which is in ``file`` too."""
        for tracker in self._trackers:
            if tracker.name == "tensorboard":
                pixels = np.asarray(picture.convert("RGB"))[None]
                tracker.log_images({name: pixels}, step=step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({name: [picture]}, step=step)
            else:
                tracker.log_artifact(str(file), artifact_path=name)

    def finish(self) -> None:
        """Close the logs."""
        for tracker in self._trackers:
            tracker.finish()
        self._trackers = []


def _start(name: str, *, folder: Path, title: str, step: int, known: str | None) -> tuple[Any, str]:
    """A tracker at work, and the id of its run."""
    from accelerate import tracking

    tracker: Any
    if name == "tensorboard":
        # What was logged from purge_step on, by a run that was killed, is hidden: those steps happen again.
        tracker = tracking.TensorBoardTracker(name, folder, purge_step=step + 1 if step else None)
    elif name == "wandb":
        known = known or secrets.token_hex(8)
        tracker = tracking.WandBTracker("genmix", name=title, id=known, resume="allow", dir=str(folder))
    else:
        tracker = tracking.MLflowTracker(experiment_name="genmix", run_name=title, run_id=known)
    if hasattr(tracker, "start"):  # older releases of Accelerate start in the constructor
        tracker.start()
    if name == "mlflow":
        known = tracker.tracker.info.run_id
    return tracker, known or title


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as names with dots, and values that every tracker takes."""
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, (bool, int, float, str))
            found.append((f"{prefix}{name}", value if plain else json.dumps(value)))
    return found
