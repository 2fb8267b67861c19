"""Every arm chooses its one option on the validation part, among as many values as any other arm.

An arm that is searched beside one that is not wins by the search. Which option it is stands with the arm
(:class:`genmix_transforms.evaluation.arms.ArmKind`): for "blend" the share of synthetic images, for the arms "genmix"
the alpha of Beta(alpha, 1), for the baseline, which has no option of its own, the weight decay.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from genmix_transforms.evaluation.arms import arm_kind
from genmix_transforms.evaluation.protocol import GRID, Protocol
from genmix_transforms.files.atomic import write_json

TUNING_SEED = 2**31 - 1
"""Of the trials' weights, data order and draws: none of the seeds whose scores are reported."""


def trial_values(arm: str, count: int) -> tuple[float, ...]:
    """The values that an arm tries: so many of its grid, its ends among them; none for a count of 0.

    Example:
        >>> trial_values("blend", 3), trial_values("genmix", 0)
        ((0.1, 0.3, 0.5), ())
    """
    if not count:
        return ()
    grid = arm_kind(arm).grid
    return tuple(grid[round(number * (GRID - 1) / (count - 1))] for number in range(count))


def with_value(protocol: Protocol, arm: str, value: float | None) -> Protocol:
    """The protocol of a run that is not tuned further: with that value of the arm's option, or, for None, its own.

    Example:
        >>> with_value(Protocol(tune=3), "blend", 0.1).blend_share
        0.1
    """
    if value is None:
        return replace(protocol, tune=0)
    knob = arm_kind(arm).knob
    whole = next(field.type for field in fields(protocol) if field.name == knob) is int
    changes: dict[str, Any] = {knob: int(value) if whole else value}
    return replace(protocol, tune=0, **changes)


def choose(trials: Mapping[float, float]) -> float:
    """The value with the best validation score; of several, the one that changes the images least.

    Args:
        trials: the macro F1 on the validation part, by value.

    Example:
        >>> choose({0.5: 0.7, 0.1: 0.6, 0.3: 0.7})
        0.3
    """
    return min(trials, key=lambda value: (-trials[value], value))


class TrialCache:
    """Scores of finished trials in a folder, one file each.

    Args:
        folder: made on the first :meth:`put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, arm: str, value: float, *, fold: int, key: str) -> float | None:
        """The validation macro F1, if it is there and has that key; None if not, or if the file is damaged."""
        try:
            content = json.loads(self.path(arm, value, fold=fold).read_text(encoding="utf-8"))
            return float(content["validation_macro_f1"]) if content["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, arm: str, value: float, score: float, *, fold: int, key: str) -> None:
        """Keep a score; an older one of that arm, value and fold is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(
            self.path(arm, value, fold=fold),
            {"key": key, "arm": arm, "fold": fold, "value": value, "validation_macro_f1": score},
        )

    def path(self, arm: str, value: float, *, fold: int) -> Path:
        """Its file, whether it is there or not."""
        return self.folder / f"{quote(arm, safe='')}-fold{fold}-{value:g}.json"
