"""The settings of a StyleGAN: presets, and what is refused."""

from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.settings import StyleGANSettings


def test_the_preset_of_the_paper_is_the_papers() -> None:
    """R1 of weight 10 at every step and no augmentation (Karras et al. 2019); the budget is Lee et al.'s."""
    paper = StyleGANSettings.of({"preset": "paper"}, name="test")
    assert (paper.steps, paper.batch_size, paper.learning_rate) == (70_000, 8, 0.001)
    assert (paper.gamma, paper.r1_interval, paper.augment, paper.augment_target) == (10.0, 1, (), None)
    assert (paper.style_mixing, paper.ema_half_life, paper.growing_share) == (0.9, 10_000, None)
    ours = StyleGANSettings.of({}, name="test")
    assert (ours.steps, ours.batch_size, ours.learning_rate) == (20_000, 32, 0.001)
    assert (ours.gamma, ours.r1_interval, ours.augment) == (None, 1, ("color", "translation", "cutout"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast"}, "preset must be one of stylegan, paper, got 'fast'"),
        ({"learning_rate": 0}, "learning_rate must be above 0 and at most 10, got 0"),
        ({"ema_half_life": float("nan")}, "ema_half_life must be positive, got nan"),
        ({"augment_ramp": -1}, "augment_ramp must be positive"),
        ({"gamma": -1}, "gamma must be from 0 to"),
        ({"r1_interval": 0}, "r1_interval must be a whole number, at least 1"),
        ({"style_mixing": 1.1}, "style_mixing must be from 0 to 1, got 1.1"),
        ({"growing_share": 1.0}, "growing_share must be above 0 and below 1, got 1.0"),
        ({"augment_target": 1.5}, "augment_target must be above -1 and below 1"),
        ({"augment_target": 0.6, "augment": ()}, r"nothing to adapt with augment=\(\)"),
        ({"augment_target": 0.6, "preset": "paper"}, r"nothing to adapt with augment=\(\)"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"augment": ("blur",)}, "augment must be one of color, translation, cutout, got 'blur'"),
        ({"stepz": 3}, "no such option: stepz; did you mean steps"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StyleGANSettings.of(options, name="test")


def test_the_start_is_filled_in_and_checked_against_the_networks() -> None:
    settings = StyleGANSettings.of({}, name="test")
    assert settings.resolved(full=64, start=8, processes=1).start_resolution == 8
    chosen = StyleGANSettings.of({"start_resolution": 32}, name="test")
    assert chosen.resolved(full=64, start=8, processes=1) is chosen
    for start in (12, 32):
        with pytest.raises(InputError, match=f"must be a power of two from 8 to the networks' 16, got {start}"):
            StyleGANSettings.of({"start_resolution": start}, name="test").resolved(full=16, start=8, processes=1)


@pytest.mark.parametrize(
    ("batch_size", "group", "processes", "message"),
    [
        (6, 4, 1, "the batch has 6 images, which groups of 4 do not divide .*: give a multiple of 4, or another"),
        (4, 3, 1, "has 4 images, which groups of 3 do not divide"),
        (12, 4, 2, "each process's part of the batch of 12 has 6 images, .*: give a multiple of 8"),
    ],
)
def test_a_batch_that_does_not_make_groups(batch_size: int, group: int, processes: int, message: str) -> None:
    settings = StyleGANSettings.of({"batch_size": batch_size, "minibatch_group": group}, name="test")
    with pytest.raises(InputError, match=message):
        settings.resolved(full=16, start=8, processes=processes)
    StyleGANSettings.of({"batch_size": 2}, name="test").resolved(full=16, start=8, processes=1)  # one group of two
