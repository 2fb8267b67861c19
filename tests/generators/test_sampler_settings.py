"""What the settings of every diffusion sampler are checked for, and what they are read from."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators.sampler_settings import DiffusionSampler
from genmix_transforms.settings import option


@dataclass(frozen=True, kw_only=True)
class Toy(DiffusionSampler):
    SAMPLERS: ClassVar = {"fast": {"method": "unipc", "steps": 10}}

    method: Literal["ddim", "unipc"] = option("ddim", help="The solver.")
    strength: float = option(1.0, help="Of the toy.", above=0, most=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "euler"}, "sampler: method must be one of ddim, unipc, got 'euler'"),
        ({"precision": "float16"}, "sampler: precision must be one of float32, bfloat16, got 'float16'"),
        ({"steps": 0}, "sampler: steps must be a whole number, at least 1, got 0"),
        ({"steps": 2.5}, "sampler: steps must be a whole number"),
        ({"batch_size": -1}, "sampler: batch_size must be a whole number, at least 1, got -1"),
        ({"guidance_scale": float("inf")}, "sampler: guidance_scale must be at least 0, got inf"),
        ({"guidance_scale": True}, "sampler: guidance_scale must be a number, at least 0, got True"),
        ({"eta": 1.5}, "sampler: eta must be from 0 to 1, got 1.5"),
        ({"eta": 0.5, "method": "unipc"}, "sampler: eta is ddim's, from 0 to 1, got 0.5 with unipc"),
        ({"strength": 0}, "sampler: strength must be above 0 and at most 1, got 0"),
        ({"stepz": 1}, "sampler: no such option: stepz; did you mean steps\\? There are method, steps, eta, "),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Toy.of(settings)


def test_settings_come_from_a_name_a_mapping_themselves_or_nothing() -> None:
    assert Toy.of("fast") == Toy(method="unipc", steps=10)
    assert Toy.of(None) == Toy.of({}) == Toy()
    settings = Toy(steps=100, guidance_scale=2)
    assert Toy.of(settings) is settings
    assert Toy.of(settings.to_json()) == settings
    with pytest.raises(InputError, match=r"sampler: must be one of fast, or settings, got 'slow'"):
        Toy.of("slow")
    with pytest.raises(InputError, match=r"sampler: expected a name \(fast\), Toy or a mapping, got a int"):
        Toy.of(3)  # type: ignore[arg-type]


def test_a_sampler_without_names_takes_no_text() -> None:
    with pytest.raises(InputError, match="sampler: expected DiffusionSampler or a mapping, got a str"):
        DiffusionSampler.of("fast")
