"""What a training takes: said beforehand, and measured without a trace."""

import logging
from pathlib import Path

import pytest
import torch

from genmix_transforms.generators import estimate as module
from genmix_transforms.generators.estimate import Estimate, Pace, duration_text, measure, time_text
from tests.generators.jobs import make_job
from tests.generators.tiny_training import Tiny, run, tiny_patches

CPU = torch.device("cpu")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.seconds)

    def pace(self, *, steps: int, done: int = 0) -> tuple[Pace, list[str]]:
        said: list[str] = []
        return Pace(steps=steps, done=done, device=CPU, say=said.append), said


def test_it_is_said_once_after_a_few_steps_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace, said = clock.pace(steps=20_000)
    clock.seconds += 60  # everything is set up in the first step
    pace.after_step(1)
    for step in range(2, 10):
        clock.seconds += 0.77
        pace.after_step(step)
    assert said == [
        "about 4 h 17 min for 19,995 steps here (0.77 s a step); for a first look: --steps 770, about 10 min"
    ]


def test_slow_steps_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace, said = clock.pace(steps=100, done=50)
    for step in (51, 52):
        clock.seconds += 90
        pace.after_step(step)
    assert said == ["about 1 h 12 min for 48 steps here (90 s a step); for a first look: --steps 6, about 9 min"]


def test_a_short_training_needs_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace, said = clock.pace(steps=100)
    for step in range(1, 6):
        clock.seconds += 1
        pace.after_step(step)
    assert said == ["about 96 s for 96 steps here (1 s a step)"]


def test_it_is_said_again_when_steps_get_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """A StyleGAN grows."""
    clock = Clock(monkeypatch)
    pace, said = clock.pace(steps=1000)
    for step in range(1, 51):
        clock.seconds += 1
        pace.after_step(step)
    assert pace.lap(50) == pytest.approx(1)
    clock.seconds += 500  # a checkpoint
    pace.skip(50)
    clock.seconds += 50
    assert pace.lap(100) == pytest.approx(1)
    assert len(said) == 1
    clock.seconds += 250
    assert pace.lap(150) == pytest.approx(5)
    assert said[1:] == ["about 1 h 11 min for 850 steps here (5 s a step) from now on"]


def test_a_run_says_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)

    def wait(images_seen: int) -> None:
        clock.seconds += 4

    with caplog.at_level(logging.INFO, logger="genmix_transforms"):
        run(Tiny(before_step=wait), tmp_path)
    assert "about 64 s for 16 steps here (4 s a step)" in caplog.text


def test_measuring_takes_real_steps_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clock = Clock(monkeypatch)

    def wait(images_seen: int) -> None:
        clock.seconds += 1 if images_seen < 4000 else 3  # the second half of the training is slower

    trainee = Tiny(before_step=wait, width=1000)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = measure(make_job(trainee, tiny_patches(), tmp_path, snapshot=trainee.result, steps=2000))
    assert torch.equal(torch.rand(2), expected)
    assert set(trainee.steps) == {0, 4000, 7996}
    assert found.seconds_per_step == pytest.approx((1 + 3 + 3) / 3)
    assert found.seconds == pytest.approx(2000 * 7 / 3)
    assert found.checkpoint_bytes == 4 * 5000 * 4 + 2 * 4  # weights, average, two moments, and Adam's two clocks
    assert found.memory_bytes >= found.checkpoint_bytes
    assert list(tmp_path.iterdir()) == []


def test_memory_where_the_system_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resource", None)  # as on Windows
    trainee = Tiny(width=10)
    found = measure(make_job(trainee, tiny_patches(), tmp_path, snapshot=trainee.result, steps=3))
    assert found.memory_bytes == found.checkpoint_bytes


def test_what_is_said_of_it() -> None:
    found = Estimate(steps=10, seconds_per_step=2.0, memory_bytes=3 * 10**9, checkpoint_bytes=10**8)
    assert found.text() == "about 20 s for 10 steps here (2 s a step); memory about 3.00 GB, a checkpoint 100.0 MB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h"), (15_480, "4 h 18 min"), (259_200, "72 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_first_look_is_a_round_number_of_about_ten_minutes() -> None:
    assert "--steps 770, about 10 min" in time_text(20_000, 0.777)
    assert "--steps 120,000" not in time_text(10**7, 0.005)
    assert "--steps 120000, about 10 min" in time_text(10**7, 0.005)
    assert "first look" not in time_text(1500, 0.777)
