"""Growth as a number, and the growing schedule from a budget: phases, fades, resume."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.generators.stylegan.schedule import (
    GrowingSchedule,
    channels_up_to,
    doublings,
    fade_at,
    level_at,
    resolution_at,
)


@pytest.mark.parametrize(("side", "count"), [(4, 0), (8, 1), (64, 4), (1024, 8)])
def test_doublings_and_back(side: int, count: int) -> None:
    assert doublings(side) == count
    assert resolution_at(float(count)) == side


def test_within_a_fade_the_next_block_is_there_already() -> None:
    assert (level_at(2.25), fade_at(2.25), resolution_at(2.25)) == (3, 0.25, 32)
    assert (level_at(3.0), fade_at(3.0), resolution_at(3.0)) == (3, 1.0, 32)


def test_widths_are_the_papers_and_scale() -> None:
    paper = channels_up_to(8, fmap_base=8192, fmap_max=512)
    assert paper == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert channels_up_to(5, fmap_base=64, fmap_max=16) == [16, 16, 8, 4, 2, 1]
    assert channels_up_to(8, fmap_base=64, fmap_max=16)[-1] == 1  # never none


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
