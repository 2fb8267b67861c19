"""The growing schedule from a budget: phases, fades, resume; learning rates and R1 by resolution."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.generators.stylegan.schedule import (
    PRESETS,
    GrowingSchedule,
    learning_rate_factor,
    r1_weight,
)


def test_the_presets_are_the_papers() -> None:
    paper = PRESETS["paper"]
    assert (paper.steps, paper.batch_size, paper.learning_rate, paper.gamma) == (70_000, 8, 0.001, 10.0)
    assert PRESETS["stylegan"].learning_rate == 0.001


@pytest.mark.parametrize(("full", "phase"), [(4, 80_000), (5, 560_000 / 9), (6, 560_000 / 11)])
def test_the_papers_budget_reaches_the_full_resolution(full: int, phase: float) -> None:
    schedule = GrowingSchedule(start=1, full=full, images=560_000)
    assert schedule.phase_images == pytest.approx(phase)
    assert schedule.growth_at(559_992) == full


def test_the_phases_of_a_64_pixel_run() -> None:
    schedule = GrowingSchedule(start=1, full=4, images=7000)
    assert schedule.table() == [
        (0, 8, 8),
        (1000, 8, 16),
        (2000, 16, 16),
        (3000, 16, 32),
        (4000, 32, 32),
        (5000, 32, 64),
        (6000, 64, 64),
    ]
    assert [schedule.growth_at(seen) for seen in (0, 999, 1250, 2000, 3500, 5750, 6000)] == [
        *(1, 1, 1.25, 2, 2.5, 3.75, 4)
    ]


def test_a_share_of_the_run_for_growing() -> None:
    schedule = GrowingSchedule(start=1, full=4, images=6000, growing_share=0.5)
    assert schedule.phase_images == 500
    assert schedule.growth_at(2999) < 4
    assert schedule.growth_at(3000) == 4


def test_no_growing() -> None:
    schedule = GrowingSchedule(start=4, full=4, images=100)
    assert {schedule.growth_at(seen) for seen in (0, 50, 100, 1000)} == {4.0}
    assert schedule.table() == [(0, 64, 64)]


@settings(max_examples=50)
@given(st.integers(1, 8), st.integers(0, 7), st.integers(1, 10**7), st.integers(1, 10**7))
def test_growth_only_grows(start: int, more: int, images: int, step: int) -> None:
    full = min(8, start + more)
    schedule = GrowingSchedule(start=start, full=full, images=images)
    before = start
    for seen in range(0, 10 * step, step):
        growth = schedule.growth_at(seen)
        assert before <= growth <= full
        before = growth
    assert schedule.growth_at(images) == full


def test_a_phase_is_entered_once_and_after_a_resume_not_again() -> None:
    schedule = GrowingSchedule(start=1, full=2, images=30)
    assert [schedule.enter(seen) for seen in (0, 4, 9, 10, 19, 20, 29)] == [
        *(True, False, False, True, False, True, False)
    ]
    other = GrowingSchedule(start=1, full=2, images=300)  # a run that was prolonged keeps the phases it began with
    other.load_state_dict(schedule.state_dict())
    assert not other.enter(29)
    assert other.growth_at(29) == 2


def test_larger_images_learn_faster() -> None:
    assert [learning_rate_factor(side) for side in (8, 64, 128, 256, 512, 1024)] == [1, 1, 1.5, 2, 3, 3]


def test_r1_weighs_more_for_larger_images() -> None:
    assert r1_weight(256, 32) == pytest.approx(0.4096)
    assert r1_weight(64, 8) == pytest.approx(0.1024)
