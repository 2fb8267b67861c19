"""Settings of training and sampling: presets, numbers in their places, and what cannot work."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.settings import (
    METHODS,
    PRESETS,
    SamplerSettings,
    Schedule,
    TrainingSettings,
)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "ddpm"}, "method must be one of ddim, dpmsolver\\+\\+, unipc, got 'ddpm'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"eta": 0.5, "method": "unipc"}, "eta is ddim's, from 0 to 1, got 0.5 with unipc"),
        ({"eta": 1.5}, "eta is ddim's, from 0 to 1, got 1.5"),
        ({"guidance_scale": -1}, "guidance_scale must be a number, at least 0, got -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a number, at least 0, got nan"),
        ({"strength": 0}, "strength must be above 0 and at most 1, got 0"),
        ({"strength": 1.01}, "strength must be above 0 and at most 1, got 1.01"),
        ({"strength": True}, "strength must be a number"),
        ({"strength": 0.01}, "strength 0.01 of 50 steps is no step at all.*give a strength of at least 0.02"),
        ({"negative_prompt": None}, "negative_prompt must be a text, got None"),
        (
            {"negative_prompt": "text", "guidance_scale": 1},
            "guidance_scale 1 is no guidance, and negative_prompt 'text'",
        ),
        ({"sampler": "ddim"}, "no such setting: sampler; there are method, steps"),
        ("quick", "must be one of paper, fast, or settings, got 'quick'"),
        (["ddim"], "expected a preset \\(paper, fast\\), SamplerSettings or a mapping, got a list"),
    ],
)
def test_settings_that_cannot_work(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplerSettings.of(settings)


@given(
    st.sampled_from(METHODS), st.integers(1, 100), st.floats(0, 20), st.text(max_size=5), st.floats(0.02, 1.0)
)  # fmt: skip
def test_settings_go_through_json(method: str, steps: int, scale: float, negative: str, strength: float) -> None:
    if int(steps * strength) == 0 or (negative and scale == 1):
        return
    settings = SamplerSettings(
        method=method, steps=steps, guidance_scale=scale, negative_prompt=negative, strength=strength
    )
    assert SamplerSettings.of(settings.to_json()) == settings
    assert 1 <= settings.steps_taken <= steps


def test_the_presets() -> None:
    paper = SamplerSettings(method="ddim", steps=50, eta=0.0, guidance_scale=10.0)
    assert (
        SamplerSettings.of("paper") == SamplerSettings.of(None) == SamplerSettings.of({}) == SamplerSettings() == paper
    )
    fast = SamplerSettings.of("fast")
    assert (fast.method, fast.steps, fast.guidance_scale) == ("dpmsolver++", 20, 10.0)
    assert SamplerSettings.of(fast) is fast
    assert all(SamplerSettings(**values) for values in PRESETS.values())


@pytest.mark.parametrize(("steps", "strength", "taken"), [(50, 1.0, 50), (50, 0.6, 30), (50, 0.55, 27), (20, 0.05, 1)])
def test_the_steps_taken_from_a_real_image(steps: int, strength: float, taken: int) -> None:
    assert SamplerSettings(steps=steps, strength=strength).steps_taken == taken
