"""What every diffusion sampler's settings are checked for."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.sampler_options import check_sampler, known_settings


@dataclass(frozen=True)
class Settings:
    method: str = "ddim"
    steps: int = 25
    eta: float = 0.0
    precision: str = "float32"
    batch_size: int = 8
    scale: float = 1.0


def check(settings: Settings) -> None:
    check_sampler(settings, methods=("ddim", "unipc"), numbers=("eta", "scale"))


@given(
    steps=st.integers(1, 1000),
    eta=st.floats(0, 1),
    scale=st.floats(0, 1e6),
    precision=st.sampled_from(["float32", "bfloat16"]),
)
def test_settings_within_their_ranges_pass(steps: int, eta: float, scale: float, precision: str) -> None:
    check(Settings(steps=steps, eta=eta, scale=scale, precision=precision))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(method="ddpm"), "sampler: method must be one of ddim, unipc, got 'ddpm'"),
        (Settings(precision="float16"), "sampler: precision must be one of float32, bfloat16, got 'float16'"),
        (Settings(steps=0), "sampler: steps must be a whole number, at least 1, got 0"),
        (Settings(batch_size=-1), "sampler: batch_size must be a whole number, at least 1, got -1"),
        (Settings(scale=float("inf")), "sampler: scale must be a number, at least 0, got inf"),
        (Settings(scale=True), "sampler: scale must be a number, at least 0, got True"),
        (Settings(eta=1.5), "sampler: eta is ddim's, from 0 to 1, got 1.5 with ddim"),
        (Settings(eta=0.5, method="unipc"), "sampler: eta is ddim's, from 0 to 1, got 0.5 with unipc"),
    ],
)
def test_settings_that_cannot_work(settings: Settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(settings)


def test_names_that_are_no_settings() -> None:
    assert known_settings(Settings, {"steps": 3}) == {"steps": 3}
    with pytest.raises(InputError, match="sampler: no such setting: stepz, 3; there are method, steps, eta, "):
        known_settings(Settings, {"stepz": 1, "steps": 3, 3: 4})  # type: ignore[dict-item]
