"""What one training of one classifier gave, and where finished ones are kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genmix_transforms.evaluation.metrics import Scores
from genmix_transforms.files.atomic import write_json


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed.

    Args:
        arm: its name.
        seed: of everything random in it.
        steps: optimiser steps that were taken.
        best_step: the step whose weights were tested.
        validation_macro_f1: of those weights.
        scores: on the test set.
        predictions: the class of each test image, in the test set's order: what a paired test between arms needs.
        seconds: wall time.
    """

    arm: str
    seed: int
    steps: int
    best_step: int
    validation_macro_f1: float
    scores: Scores
    predictions: tuple[int, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "arm": self.arm,
            "seed": self.seed,
            "steps": self.steps,
            "best_step": self.best_step,
            "validation_macro_f1": self.validation_macro_f1,
            "seconds": self.seconds,
            "scores": self.scores.to_dict(),
            "predictions": list(self.predictions),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Run":
        """The inverse of :meth:`to_dict`."""
        return cls(
            arm=str(content["arm"]),
            seed=int(content["seed"]),
            steps=int(content["steps"]),
            best_step=int(content["best_step"]),
            validation_macro_f1=float(content["validation_macro_f1"]),
            scores=Scores.from_dict(content["scores"]),
            predictions=tuple(int(value) for value in content["predictions"]),
            seconds=float(content["seconds"]),
        )


def run_key(dependencies: Mapping[str, Any]) -> str:
    """A hash of everything that a run depends on: other dependencies, another key."""
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()


class RunCache:
    """Finished runs in a folder, one file each, so that a killed comparison goes on where it stopped.

    Args:
        folder: made on the first :meth:`put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, arm: str, seed: int, *, key: str) -> Run | None:
        """The run, if it is there and has that key; None if not, or if the file is damaged: it is then run again."""
        try:
            content = json.loads(self._path(arm, seed).read_text(encoding="utf-8"))
            if content["key"] != key:
                return None
            run = Run.from_dict(content)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return run if (run.arm, run.seed) == (arm, seed) else None

    def put(self, run: Run, *, key: str) -> None:
        """Keep a run, whole or not at all; an older one of that arm and seed is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(run.arm, run.seed), {"key": key, **run.to_dict()})

    def _path(self, arm: str, seed: int) -> Path:
        return self.folder / f"{arm}-{seed}.json"
