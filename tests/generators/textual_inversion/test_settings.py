"""Settings of training and sampling: presets, numbers in their places, and what cannot work."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.settings import (
    LEARNING_RATES,
    SamplerSettings,
    TextualInversionNetworkSettings,
    TextualInversionSettings,
)


def settings(**options: Any) -> TextualInversionSettings:
    return TextualInversionSettings.of(options, name="TextualInversion.fit")


def test_presets_and_what_replaces_them() -> None:
    assert (settings().preset, settings().steps, settings().batch_size) == ("gal", 6_100, 8)
    paper = settings(preset="paper", batch_size=4)
    assert (paper.steps, paper.batch_size) == (70_000, 4)


def test_the_learning_rates_of_the_families() -> None:
    assert LEARNING_RATES == {"ldm": 4 * 0.005, "stable-diffusion": 4 * 0.0005}


def test_what_defines_a_run() -> None:
    """The names that the runs of earlier releases have: a run goes on only where all of these agree."""
    plain = settings(learning_rate=0.1, cache_latents=False, accumulate=2, gradient_checkpointing=True)
    assert plain.identity() == {
        "learning_rate": 0.1, "weight_decay": 0.0, "mirror": False, "one_template_a_step": True, "tune": "embeddings",
    }  # fmt: skip
    lora = settings(tune="lora", lora_after=3).identity()
    assert {name: lora[name] for name in lora if name.startswith("lora_")} == {
        "lora_rank": 4, "lora_learning_rate": 1e-4, "lora_after": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "quick"}, "preset must be one of gal, paper, got 'quick'"),
        ({"tune": "all"}, "tune must be one of embeddings, lora, got 'all'"),
        ({"mixed_precision": "fp16"}, "mixed_precision must be one of no, bf16"),
        ({"steps": 0}, "steps must be a whole number, from 1 to 1"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"lora_rank": 0}, "lora_rank must be"),
        ({"checkpoint_every": 0}, "checkpoint_every must be"),
        ({"learning_rate": 0}, "learning_rate must be above 0 and at most 10, got 0"),
        ({"learning_rate": "1"}, "learning_rate must be a number, above 0 and at most 10, got '1'"),
        ({"lora_learning_rate": float("inf")}, "lora_learning_rate must be above 0 and at most 10, got inf"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"lora_after": -1}, "lora_after must be a whole number"),
        ({"tune": "lora", "steps": 5, "lora_after": 5}, "lora_after must be below the number of steps, 5, got 5"),
        ({"dropout": 0.1}, "TextualInversion.fit: no such option: dropout; there are preset, steps"),
    ],
)
def test_what_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(**options)


def test_the_options_of_the_constructor() -> None:
    """Those of the command line: words for classes, vectors for classes, templates."""
    options = {option.name: option for option in TextualInversionNetworkSettings.options()}
    assert options["vectors"].parse("3") == 3
    assert options["vectors"].parse("cyst=1, metastasis=3") == {"cyst": 1, "metastasis": 3}
    assert options["initial_words"].parse("cyst=dark round cyst,metastasis=spot") == {
        "cyst": "dark round cyst", "metastasis": "spot",
    }  # fmt: skip
    assert options["templates"].parse("a scan of {}, {} in grey") == ("a scan of {}", "{} in grey")
    with pytest.raises(InputError, match="initial_words: expected NAME=VALUE"):
        options["initial_words"].parse("cyst")


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"method": "ddpm"}, "method must be one of ddim, dpmsolver\\+\\+, unipc, got 'ddpm'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"eta": 0.5, "method": "unipc"}, "eta is ddim's, from 0 to 1, got 0.5 with unipc"),
        ({"eta": 1.5}, "eta must be from 0 to 1, got 1.5"),
        ({"guidance_scale": -1}, "guidance_scale must be at least 0, got -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be at least 0, got nan"),
        ({"strength": 0}, "strength must be above 0 and at most 1, got 0"),
        ({"strength": 1.01}, "strength must be above 0 and at most 1, got 1.01"),
        ({"strength": True}, "strength must be a number"),
        ({"strength": 0.01}, "strength 0.01 of 50 steps is no step at all.*give a strength of at least 0.02"),
        ({"negative_prompt": None}, "negative_prompt must be a text, got None"),
        (
            {"negative_prompt": "text", "guidance_scale": 1},
            "guidance_scale 1 is no guidance, and negative_prompt 'text'",
        ),
        ({"sampler": "ddim"}, "sampler: no such option: sampler; there are method, steps"),
        ("quick", "must be one of paper, fast, or settings, got 'quick'"),
        (["ddim"], "expected a name \\(paper, fast\\), SamplerSettings or a mapping, got a list"),
    ],
)
def test_samplers_that_cannot_work(sampler: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplerSettings.of(sampler)


@given(
    st.sampled_from(["ddim", "dpmsolver++", "unipc"]),
    st.integers(1, 100),
    st.floats(0, 20),
    st.text(max_size=5),
    st.floats(0.02, 1.0),
)
def test_settings_go_through_json(method: Any, steps: int, scale: float, negative: str, strength: float) -> None:
    if int(steps * strength) == 0 or (negative and scale == 1):
        return
    sampler = SamplerSettings(
        method=method, steps=steps, guidance_scale=scale, negative_prompt=negative, strength=strength
    )
    assert SamplerSettings.of(sampler.to_json()) == sampler
    assert 1 <= sampler.steps_taken <= steps


def test_the_presets() -> None:
    paper = SamplerSettings(method="ddim", steps=50, eta=0.0, guidance_scale=10.0)
    assert (
        SamplerSettings.of("paper") == SamplerSettings.of(None) == SamplerSettings.of({}) == SamplerSettings() == paper
    )
    fast = SamplerSettings.of("fast")
    assert (fast.method, fast.steps, fast.guidance_scale) == ("dpmsolver++", 20, 10.0)
    assert SamplerSettings.of(fast) is fast
    assert all(SamplerSettings(**values) for values in SamplerSettings.SAMPLERS.values())


@pytest.mark.parametrize(("steps", "strength", "taken"), [(50, 1.0, 50), (50, 0.6, 30), (50, 0.55, 27), (20, 0.05, 1)])
def test_the_steps_taken_from_a_real_image(steps: int, strength: float, taken: int) -> None:
    assert SamplerSettings(steps=steps, strength=strength).steps_taken == taken
