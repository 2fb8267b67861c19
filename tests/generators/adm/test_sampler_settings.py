"""A sampler's settings: what can be asked for, and what cannot."""

from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import SamplerSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "euler"}, "method must be one of ddpm, ddim, dpmsolver\\+\\+, unipc, got 'euler'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"eta": 0.5, "method": "ddpm"}, "eta is ddim's, from 0 to 1, got 0.5 with ddpm"),
        ({"eta": 1.5}, "eta is ddim's, from 0 to 1, got 1.5"),
        ({"guidance_scale": -1}, "guidance_scale must be a number, at least 0, got -1"),
        ({"classifier_scale": float("nan")}, "classifier_scale must be a number, at least 0, got nan"),
        ({"classifier_scale": "1"}, "classifier_scale must be a number"),
        ({"sampler": "ddim"}, "no such setting: sampler; there are method, steps"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplerSettings.of(settings)


def test_settings_go_through_json() -> None:
    settings = SamplerSettings(method="ddpm", steps=100, guidance_scale=2)
    assert SamplerSettings.of(settings.to_json()) == settings
    assert SamplerSettings.of(None) == SamplerSettings() == SamplerSettings.of({})
    with pytest.raises(InputError, match="expected SamplerSettings or a mapping, got a str"):
        SamplerSettings.of("ddim")  # type: ignore[arg-type]
