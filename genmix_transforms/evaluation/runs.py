"""What one training of one classifier gave, and where finished ones and finished trials are kept."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from torch import Tensor

from genmix_transforms.evaluation.metrics import Scores, plain_data
from genmix_transforms.files.atomic import write_text

T = TypeVar("T")

_DIGITS = 6
"""Significant ones of a probability that is kept."""


Prediction = int | tuple[int, ...]
"""Of an image: its class; or, where it has several labels, 0 or 1 for each class."""


def as_prediction(value: Any) -> Prediction:
    """A prediction as JSON has it."""
    return tuple(int(one) for one in value) if isinstance(value, list | tuple) else int(value)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed on one fold.

    Args:
        arm: its name.
        fold: the number of its split, from 0.
        seed: of everything random in it.
        steps: optimizer steps that were taken.
        best_step: the step whose weights were tested.
        validation_macro_f1: of those weights.
        scores: on this fold's test set.
        predictions: the class of each test image, in the test set's order: what a paired test between arms needs; where
            an image has several labels, a row of 0 and 1.
        probabilities: of each test image, those of the classes, see :func:`kept_probabilities`; empty: not kept.
        knob: the value of the arm's tuned option; None: nothing was tuned.
        seconds: wall time.
    """

    arm: str
    fold: int = 0
    seed: int
    steps: int
    best_step: int
    validation_macro_f1: float
    knob: float | None = None
    seconds: float
    scores: Scores
    predictions: tuple[Prediction, ...]
    probabilities: tuple[tuple[float, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        found: dict[str, Any] = plain_data(self)
        return found

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Run":
        """The inverse of :meth:`to_dict`."""
        return cls(
            arm=str(content["arm"]),
            fold=int(content["fold"]),
            seed=int(content["seed"]),
            steps=int(content["steps"]),
            best_step=int(content["best_step"]),
            validation_macro_f1=float(content["validation_macro_f1"]),
            scores=Scores.from_dict(content["scores"]),
            predictions=tuple(map(as_prediction, content["predictions"])),
            probabilities=tuple(tuple(float(value) for value in row) for row in content["probabilities"]),
            knob=None if content["knob"] is None else float(content["knob"]),
            seconds=float(content["seconds"]),
        )


def kept_probabilities(probabilities: Tensor) -> tuple[tuple[float, ...], ...]:
    """Probabilities ``(N, K)`` as a :class:`Run` keeps them: to six significant digits.

    Digits behind the point would make equals of the small ones, and with them of images that a sure classifier ranks.

    Example:
        >>> import torch
        >>> kept_probabilities(torch.tensor([[0.25, 1e-9]], dtype=torch.float64))
        ((0.25, 1e-09),)
    """
    rows = probabilities.double().cpu().tolist()
    return tuple(tuple(float(f"{value:.{_DIGITS}g}") for value in row) for row in rows)


def readable_json(content: Any) -> str:
    """JSON with an indented line for each entry, but lists of numbers on one line: a run has thousands."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    # A line break stands between entries only: in a text it is escaped.
    return re.sub(r"\[\n\s+([^\[\]{}\"]*?)\n\s+\]", _on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{' '.join(found[1].split())}]"


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

    def get(self, arm: str, seed: int, *, fold: int = 0, key: str) -> Run | None:
        """The run, if it is there and has that key; None if not, or if the file is damaged: it is then run again."""
        run = read_finished(self.path(arm, seed, fold=fold), Run.from_dict, key=key)
        return run if run is not None and (run.arm, run.fold, run.seed) == (arm, fold, seed) else None

    def put(self, run: Run, *, key: str) -> None:
        """Keep a run, whole or not at all; an older one of that arm, fold and seed is replaced."""
        write_finished(self.path(run.arm, run.seed, fold=run.fold), run.to_dict(), key=key)

    def path(self, arm: str, seed: int, *, fold: int = 0) -> Path:
        """Its file, whether it is there or not."""
        return self.folder / finished_name(arm, fold, f"seed{seed}")


def finished_name(arm: str, fold: int, which: str) -> str:
    """The name of the file of a finished training.

    Quoted: the name of an arm has its bank's in it, which may hold what no file name can.

    Example:
        >>> finished_name("genmix:a/b", 0, "seed3")
        'genmix%3Aa%2Fb-fold0-seed3.json'
    """
    return f"{quote(arm, safe='')}-fold{fold}-{which}.json"


def read_finished(path: Path, read: Callable[[Mapping[str, Any]], T], *, key: str) -> T | None:
    """What a finished training gave, if it is there and has that key; None if not, or if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return read(content) if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_finished(path: Path, content: Mapping[str, Any], *, key: str) -> None:
    """Keep what a training gave, whole or not at all, with the hash of all that it depends on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, readable_json({"key": key, **content}))
