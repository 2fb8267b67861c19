"""How embeddings are learned: presets, numbers in their places, and what cannot work."""

from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.settings import PRESETS, Schedule, TrainingSettings


def test_presets_and_what_replaces_them() -> None:
    assert (PRESETS["gal"], PRESETS["paper"]) == (Schedule(6_100, 8), Schedule(70_000, 8))
    assert TrainingSettings().schedule == PRESETS["gal"]
    assert TrainingSettings(preset="paper", batch_size=4).schedule == Schedule(70_000, 4)
    assert TrainingSettings.of({"steps": 5}).schedule == Schedule(5, 8)


def test_the_learning_rate_is_that_of_the_family() -> None:
    assert TrainingSettings().rate("ldm") == 4 * 0.005
    assert TrainingSettings().rate("stable-diffusion") == 4 * 0.0005
    assert TrainingSettings(learning_rate=0.1).rate("ldm") == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "quick"}, "preset must be one of gal, paper, got 'quick'"),
        ({"tune": "all"}, "tune must be one of embeddings, lora, got 'all'"),
        ({"mixed_precision": "fp16"}, "mixed_precision must be one of no, bf16"),
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"lora_rank": 0}, "lora_rank must be"),
        ({"checkpoint_every": 0}, "checkpoint_every must be"),
        ({"learning_rate": 0}, "learning_rate must be positive, got 0"),
        ({"learning_rate": "1"}, "learning_rate must be a number, got '1'"),
        ({"lora_learning_rate": float("inf")}, "lora_learning_rate must be positive"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"lora_after": -1}, "lora_after must be a whole number"),
        ({"tune": "lora", "steps": 5, "lora_after": 5}, "lora_after must be below the number of steps, 5, got 5"),
        ({"dropout": 0.1}, "TextualInversion.fit: no such option: dropout; there are preset, steps"),
    ],
)
def test_what_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings.of(options)
