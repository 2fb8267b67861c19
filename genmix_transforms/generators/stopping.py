"""Stopping a training from outside: a signal is heard, all processes agree on the step, and a checkpoint is written."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from genmix_transforms.errors import Terminated
from genmix_transforms.generators.processes import Processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers (Slurm, Kubernetes) and launchers send some time before they kill."""

ONE_PRESS = 1.0
"""Seconds. A launcher may pass on a Ctrl-C that the terminal has sent to its processes already."""


class Stopping:
    """Listens for signals within a ``with`` block, and tells all processes of them at the same step.

    One process alone stops after the step under way. Several ask each other at every step whether anybody was told to
    stop, and look at the answer a step later: by then it has come, so that nobody waits for it, and all stop after the
    same step, one step later. Ctrl-C a second time stops at once. In a thread that is not the main one, no signals can
    be heard.

    Args:
        processes: who trains together.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._heard_at: float | None = None
        self._heard: int | None = None
        self._answer: Callable[[], bool] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, and cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def after_step(self) -> bool:
        """Whether to stop now. Every process calls it once after every step."""
        if self._processes.count == 1:
            return self._heard_at is not None
        stop = self._answer is not None and self._answer()
        self._answer = None if stop else self._processes.ask(self._heard_at is not None)
        return stop

    def at_end(self) -> bool:
        """Whether anybody was told to stop at all. Every process calls it once, when nothing is left to do."""
        before = self._answer is not None and self._answer()
        self._answer = None
        return self._processes.any(before or self._heard_at is not None)

    def as_exception(self) -> KeyboardInterrupt:
        """What to raise once all is saved: its type says whether it was SIGTERM."""
        return Terminated() if self._heard == signal.SIGTERM else KeyboardInterrupt()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._heard_at is None:
            self._heard_at, self._heard = now, number
        elif number == signal.SIGINT and now - self._heard_at > ONE_PRESS:
            raise KeyboardInterrupt
