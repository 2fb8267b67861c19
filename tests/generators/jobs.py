"""A job for the loop, made of names and values: what the loop's tests share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators.job import Job, Saveable, Trainee
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.settings import TrainingSettings

SETTINGS = {setting.name for setting in TrainingSettings.options()}


def make_job(
    trainee: Trainee, dataset: PatchDataset, out: Path, *, snapshot: Callable[[], Saveable], **options: Any
) -> Job:
    """``options`` are fields of the settings or of the job."""
    given = {name: value for name, value in options.items() if name in SETTINGS}
    others = {name: value for name, value in options.items() if name not in SETTINGS}
    return Job(
        trainee=trainee, dataset=dataset, out=out, snapshot=snapshot,
        settings=TrainingSettings(**{"preset": "tests", "batch_size": 4, **given}),
        **{"seed": 0, "options": {}, "processes": Processes.join("cpu"), **others},
    )  # fmt: skip
