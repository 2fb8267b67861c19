"""Training settings: presets, what replaces them, and every value that cannot work."""

from collections.abc import Callable
from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.settings import PRESETS, TrainingSettings, label_dropout


def test_the_presets() -> None:
    assert PRESETS["adm"].learning_rate == 1e-4  # Dhariwal, Nichol, appendix I
    paper = PRESETS["paper"]  # the budget of Lee et al., section 3.1
    assert (paper.steps, paper.batch_size, paper.learning_rate) == (70_000, 8, 1e-4)
    assert TrainingSettings().schedule == PRESETS["adm"]
    assert TrainingSettings().ema_decay == 0.9999


def test_single_numbers_replace_those_of_the_preset() -> None:
    schedule = TrainingSettings.of({"preset": "paper", "steps": 5, "learning_rate": 1e-3}).schedule
    assert (schedule.steps, schedule.batch_size, schedule.learning_rate) == (5, 8, 1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "quick"}, "preset must be one of adm, fine-tune, paper, got 'quick'"),
        ({"timesteps": "importance"}, "timesteps must be one of uniform, loss-second-moment"),
        ({"tune": "heads"}, "tune must be one of all, attention, lora"),
        ({"mixed_precision": "fp16"}, "mixed_precision must be one of no, bf16"),
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"accumulate": 0}, "accumulate must be a whole number, at least 1"),
        ({"lora_rank": 0}, "lora_rank must be a whole number, at least 1"),
        ({"checkpoint_every": -1}, "checkpoint_every must be a whole number"),
        ({"learning_rate": 0}, "learning_rate must be positive, got 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"ema_decay": 1.0}, "ema_decay must be above 0 and below 1, got 1.0"),
        ({"ema_device": "gpu"}, "no device 'gpu' here"),
        ({"label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
        ({"augment": ()}, "no such option: augment; there are preset, steps"),
    ],
)
def test_values_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings.of(options)


def test_label_dropout_goes_with_the_row_for_no_class(tiny_adm: Callable[..., ADM]) -> None:
    without, with_row = tiny_adm(), tiny_adm(null_class=True)
    assert label_dropout(without, TrainingSettings()) == 0
    assert label_dropout(with_row, TrainingSettings()) == 0.1
    assert label_dropout(with_row, TrainingSettings(label_dropout=0.3)) == 0.3
    with pytest.raises(InputError, match='needs a network with a row for "no class": make it with null_class=True'):
        label_dropout(without, TrainingSettings(label_dropout=0.1))
    with pytest.raises(InputError, match="which label_dropout 0 would never teach"):
        label_dropout(with_row, TrainingSettings(label_dropout=0.0))
