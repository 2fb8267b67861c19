"""How long a training takes here, and how much memory and disk: measured in a few real steps."""

import math
import mmap
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from genmix_transforms.files.disk import size_text
from genmix_transforms.generators.job import Job
from genmix_transforms.generators.state import state_bytes
from genmix_transforms.generators.steps import Steps

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

FIRST_LOOK = 600.0
"""Seconds of a training that shows whether anything is learned."""

LONG = 2 * FIRST_LOOK
"""Seconds. Only for a training that takes longer, fewer steps are proposed."""

QUICK = 2.0
"""Seconds. Steps shorter than this are taken twice, for the first of a kind is slower than the rest."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training will take.

    Attributes:
        steps: of the whole training.
        seconds_per_step: measured here, on average over the training; sheets and checkpoints are not counted.
        memory_bytes: at the peak: on the GPU, or what the steps added to the state on the CPU, and that. On Windows the
            state alone is counted.
        checkpoint_bytes: of one checkpoint. While one replaces another, both are on the disk.
    """

    steps: int
    seconds_per_step: float
    memory_bytes: int
    checkpoint_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return self.steps * self.seconds_per_step

    def text(self) -> str:
        """Sentences for people.

        Example:
            >>> Estimate(steps=20_000, seconds_per_step=0.77, memory_bytes=2 * 10**9, checkpoint_bytes=10**8).text()
            'about 4 h 17 min for 20,000 steps here (0.77 s a step); for a first look: --steps 770, about 10 min; memory about 2.00 GB, a checkpoint 100.0 MB'
        """  # noqa: E501
        return (
            f"{time_text(self.steps, self.seconds_per_step)}; memory about {size_text(self.memory_bytes)}, "
            f"a checkpoint {size_text(self.checkpoint_bytes)}"
        )


def measure(job: Job) -> Estimate:
    """Take a few steps at the beginning, the middle and the end of a training, and write nothing.

    The trainee is trained by it, and is of no use afterward.
    """
    steps, batch_size = job.settings.steps, job.settings.batch_size
    device = job.processes.device
    objects = job.state_objects()
    before = _resident_bytes()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taker = Steps(job, objects)

    taker.prepare(progress=False)

    def seconds_at(images_seen: int) -> float:
        (batch,) = taker.batches(images_seen, images_seen + batch_size)
        start = now(device)
        taker.take(batch, images_seen)
        return now(device) - start

    times = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        first = seconds_at(0)
        for step in sorted({0, steps // 2, steps - 1}):
            taken = seconds_at(step * batch_size) if step or first < 10 * QUICK else first
            if step and taken < QUICK:  # another part of the training may have other shapes: again a first step
                taken = seconds_at(step * batch_size)
            times.append(taken)
    state = state_bytes(objects)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = state + max(0, _peak_bytes() - before)
    return Estimate(steps=steps, seconds_per_step=sum(times) / len(times), memory_bytes=memory, checkpoint_bytes=state)


class Pace:
    """How fast a training goes, and what it says of that: once after a few steps, and again if that was wrong.

    Args:
        steps: of the whole training.
        done: of them, before this run.
        device: where it trains.
        say: what to do with a sentence; None: nothing is said.
    """

    def __init__(self, *, steps: int, done: int, device: torch.device, say: Callable[[str], None] | None) -> None:
        self._steps = steps
        self._device = device
        self._say = say
        self._mark: tuple[float, int] | None = None
        self._first = done + 1
        self._said: float | None = None

    def after_step(self, step: int) -> None:
        """Take note of a step. The first one, which sets everything up, is not timed."""
        if self._said is not None or self._say is None:
            return
        if step <= self._first or self._mark is None:
            self._mark = (now(self._device), step)
            return
        since, began = self._mark
        # The processor may be ahead of a GPU, which is waited for once enough seems to have been done.
        waited, taken = time.perf_counter() - since, step - began
        if (taken >= 3 and waited >= 3) or waited >= 15:
            pace = (now(self._device) - since) / taken
            self._tell(pace, step)

    def lap(self, step: int) -> float | None:
        """Seconds a step since the last mark, which is moved here. Call it where the device has been waited for."""
        time_now, mark = time.perf_counter(), self._mark
        self._mark = (time_now, step)
        if mark is None or step == mark[1]:
            return None
        pace = (time_now - mark[0]) / (step - mark[1])
        if self._said is not None and not self._said / 1.5 < pace < self._said * 1.5 and time_now - mark[0] > QUICK:
            self._tell(pace, step)
        return pace

    def skip(self, step: int) -> None:
        """Leave out of the time what has passed since the last mark: a checkpoint."""
        self._mark = (now(self._device), step)

    def _tell(self, pace: float, step: int) -> None:
        again, self._said = self._said is not None, pace
        if self._say is not None and step < self._steps:
            left = time_text(self._steps - step, pace, first_look=not again)
            self._say(f"{left} from now on" if again else left)


def time_text(steps: int, seconds_per_step: float, *, first_look: bool = True) -> str:
    """How long some steps take, and how many to take for a first look at a long training.

    Example:
        >>> time_text(500, 0.1)
        'about 50 s for 500 steps here (0.1 s a step)'
    """
    text = f"about {duration_text(steps * seconds_per_step)} for {steps:,} steps here ({seconds_per_step:.2g} s a step)"
    if first_look and steps * seconds_per_step > LONG:
        few = max(1, _two_digits(FIRST_LOOK / seconds_per_step))
        text += f"; for a first look: --steps {few}, about {duration_text(few * seconds_per_step)}"
    return text


def duration_text(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration_text(15_480), duration_text(600), duration_text(12), duration_text(2 * 86_400)
        ('4 h 18 min', '10 min', '12 s', '48 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{minutes} min"] if minutes else [])])


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _two_digits(number: float) -> int:
    digits = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return int(number // digits * digits)


def _peak_bytes() -> int:
    """The most memory that this process has held; 0 on Windows, where the standard library does not say."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _resident_bytes() -> int:
    """The memory that this process holds now, as far as the system tells."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return _peak_bytes()
