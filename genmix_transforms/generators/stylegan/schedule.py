"""Named budgets, and the growing schedule that follows from a budget."""

from dataclasses import dataclass
from typing import Any

from genmix_transforms.generators.stylegan.growth import resolution_at


@dataclass(frozen=True)
class Preset:
    """A named budget."""

    steps: int  # optimiser iterations, each of both networks
    batch_size: int  # images, all processes together
    learning_rate: float  # of Adam up to 64 pixels; see learning_rate_factor
    gamma: float | None  # weight of R1; None: from resolution and batch, see r1_weight


PRESETS = {
    # Karras et al.'s learning rate; a budget and an R1 that suit a few hundred images.
    "stylegan": Preset(steps=20_000, batch_size=32, learning_rate=0.001, gamma=None),
    # Lee et al. (arXiv 2405.20650), section 3.1: 70,000 iterations, batch 8, learning rate 0.001. The rest is as
    # Karras et al. published it.
    "paper": Preset(steps=70_000, batch_size=8, learning_rate=0.001, gamma=10.0),
}

_FASTER = {128: 1.5, 256: 2.0, 512: 3.0, 1024: 3.0}


def learning_rate_factor(resolution: int) -> float:
    """What the learning rate is multiplied by at a resolution (Karras et al. 2019, appendix C).

    Example:
        >>> learning_rate_factor(64), learning_rate_factor(128)
        (1.0, 1.5)
    """
    return _FASTER.get(resolution, 1.0)


def r1_weight(resolution: int, batch_size: int) -> float:
    """A weight gamma of R1 that fits a resolution and a batch: ``0.0002 * resolution ** 2 / batch_size``.

    The gradient's squared norm sums over the pixels, so that the weight grows with them. Source: Karras et al.,
    "Training Generative Adversarial Networks with Limited Data" (arXiv 2006.06676), appendix C.

    Example:
        >>> round(r1_weight(256, 8), 3)
        1.638
    """
    return 0.0002 * resolution**2 / batch_size


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
        self.phase_images = share * images / count if count else float(images)
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
