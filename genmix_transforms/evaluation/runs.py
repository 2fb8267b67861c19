"""What one training of one classifier gave, and where finished ones and finished trials are kept."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import Tensor

from genmix_transforms.evaluation.metrics import Scores, plain_data
from genmix_transforms.files.atomic import write_text

_DIGITS = 6
"""Significant ones of a probability that is kept."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed on one fold.

    Args:
        arm: its name.
        fold: the number of its split, from 0.
        seed: of everything random in it.
        steps: optimiser steps that were taken.
        best_step: the step whose weights were tested.
        validation_macro_f1: of those weights.
        scores: on this fold's test set.
        predictions: the class of each test image, in the test set's order: what a paired test between arms needs.
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
    predictions: tuple[int, ...]
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
            predictions=tuple(int(value) for value in content["predictions"]),
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
        try:
            run = Run.from_dict(_read_kept(self.path(arm, seed, fold=fold), key))
        except _UNREADABLE:
            return None
        return run if (run.arm, run.fold, run.seed) == (arm, fold, seed) else None

    def put(self, run: Run, *, key: str) -> None:
        """Keep a run, whole or not at all; an older one of that arm, fold and seed is replaced."""
        _keep(self.path(run.arm, run.seed, fold=run.fold), key, run.to_dict())

    def path(self, arm: str, seed: int, *, fold: int = 0) -> Path:
        """Its file, whether it is there or not."""
        return self.folder / f"{_as_file_name(arm)}-fold{fold}-seed{seed}.json"


class TrialCache:
    """Scores of finished trials of the tuning in a folder, one file each.

    Args:
        folder: made on the first :meth:`put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, arm: str, value: float, *, fold: int, key: str) -> float | None:
        """The validation macro F1, if it is there and has that key; None if not, or if the file is damaged."""
        try:
            return float(_read_kept(self.path(arm, value, fold=fold), key)["validation_macro_f1"])
        except _UNREADABLE:
            return None

    def put(self, arm: str, value: float, score: float, *, fold: int, key: str) -> None:
        """Keep a score; an older one of that arm, value and fold is replaced."""
        content = {"arm": arm, "fold": fold, "value": value, "validation_macro_f1": score}
        _keep(self.path(arm, value, fold=fold), key, content)

    def path(self, arm: str, value: float, *, fold: int) -> Path:
        """Its file, whether it is there or not."""
        return self.folder / f"{_as_file_name(arm)}-fold{fold}-{value:g}.json"


_UNREADABLE = (OSError, ValueError, KeyError, TypeError)


def _read_kept(path: Path, key: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content["key"] != key:
        raise ValueError("it depended on something else")
    return content


def _keep(path: Path, key: str, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, readable_json({"key": key, **content}))


def _as_file_name(arm: str) -> str:
    """Quoted: the name of an arm has its bank's in it, which may hold what no file name can."""
    return quote(arm, safe="")
