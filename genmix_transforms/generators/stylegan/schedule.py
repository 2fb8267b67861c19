"""How far the networks have grown: doublings beyond 4 pixels, a whole number except during a fade."""

import math
from typing import Any

SMALLEST = 4
"""Both networks begin at 4 x 4 pixels."""


def doublings(resolution: int) -> int:
    """How often 4 pixels are doubled to make ``resolution``."""
    return resolution.bit_length() - 3


def resolution_at(growth: float) -> int:
    """The side of the images at this growth, in pixels: in a fade, the newer one's."""
    return SMALLEST << level_at(growth)


def level_at(growth: float) -> int:
    """The block that makes the images at this growth: 0 for 4 pixels, 1 for 8, ..."""
    return math.ceil(growth)


def fade_at(growth: float) -> float:
    """How much of the newest block counts, in (0, 1]; the rest is the block before it, doubled."""
    return 1.0 - (level_at(growth) - growth)


def channels_up_to(level: int, *, fmap_base: int, fmap_max: int) -> list[int]:
    """Channels of the blocks from 4 pixels up to a level: halved with every doubling, below a maximum."""
    return [max(1, min(fmap_base >> (here + 1), fmap_max)) for here in range(level + 1)]


class GrowingSchedule:
    """How far the networks have grown after so many images: a part of the budget for each doubling, and for each fade.

    A run of ``images`` has ``2 n + 1`` phases for ``n`` doublings: the first resolution, then for each doubling a fade
    and a time at the new resolution. (The published phases, 600,000 images each, would leave the paper's 560,000 in
    the first.) The schedule is a state object: a run that is prolonged keeps the phases it began with, and spends what
    was added at the full resolution.

    Args:
        start: growth at the beginning: doublings beyond 4 pixels.
        full: growth at the end.
        images: of the whole run.
        growing_share: part of the run, in (0, 1), after which the last fade is over; None: all phases are equally
            long.

    Example:
        >>> schedule = GrowingSchedule(start=1, full=4, images=560_000)
        >>> schedule.phase_images
        80000.0
        >>> schedule.growth_at(120_000), schedule.growth_at(559_999)
        (1.5, 4.0)
    """

    def __init__(self, *, start: int, full: int, images: int, growing_share: float | None = None) -> None:
        self.start = start
        self.full = full
        count = 2 * (full - start)
        share = count / (count + 1) if growing_share is None else growing_share
        self.phase_images: Any = share * images / count if count else float(images)
        self.phase: int | None = None

    def phase_at(self, images_seen: int) -> int:
        """0 for the first resolution, then odd numbers for fades and even ones for the resolutions in between."""
        return min(int(images_seen / self.phase_images), 2 * (self.full - self.start))

    def growth_at(self, images_seen: int) -> float:
        """Doublings beyond 4 pixels; within a fade, a fraction of the next one is added."""
        phase = self.phase_at(images_seen)
        growth = float(self.start + phase // 2)
        return growth + (images_seen / self.phase_images - phase if phase % 2 else 0.0)

    def resolution_of(self, phase: int) -> int:
        """The side of the images in a phase, in pixels: in a fade, the newer one's."""
        return resolution_at(self.start + (phase + 1) // 2)

    def enter(self, images_seen: int) -> bool:
        """Note where the run is; whether that is another phase than at the call before."""
        before, self.phase = self.phase, self.phase_at(images_seen)
        return before != self.phase

    def table(self) -> list[tuple[int, int, int]]:
        """``(first image, from resolution, to resolution)`` of every phase."""
        rows = []
        for phase in range(2 * (self.full - self.start) + 1):
            before = resolution_at(self.start + phase // 2)
            rows.append((round(phase * self.phase_images), before, self.resolution_of(phase)))
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The phases' length, and the phase."""
        return {"phase_images": self.phase_images, "phase": self.phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.phase_images = state["phase_images"]
        self.phase = state["phase"]
