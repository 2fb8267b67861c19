"""Stopping from outside: what is heard, when all stop, and that nothing is lost."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.errors import Terminated
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.stopping import ONE_PRESS, Stopping
from tests.generators.tiny_training import Tiny, position, run, same_end

ALONE = Processes(0, 1, torch.device("cpu"))

TwoProcesses = Callable[[str], list[dict[str, Any]]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_the_run_goes_on_exactly(number: signal.Signals, tmp_path: Path) -> None:
    run(Tiny(), tmp_path / "whole")
    before = signal.getsignal(number)

    def ask(images_seen: int) -> None:
        if images_seen == 28:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(Tiny(before_step=ask), tmp_path / "stopped")
    assert isinstance(stopped.value, Terminated) == (number == signal.SIGTERM)
    assert signal.getsignal(number) == before
    assert position(tmp_path / "stopped") == 32
    again = Tiny()
    run(again, tmp_path / "stopped")
    assert again.steps[0] == 32
    assert same_end(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("name", ["interrupt_one", "terminate_both"])
def test_two_processes_stop_at_the_same_step_and_go_on_exactly(name: str, two_processes: TwoProcesses) -> None:
    for found in two_processes(name):
        assert found["how"].startswith("Terminated" if name == "terminate_both" else "KeyboardInterrupt")
        assert found["stopped_at"] == 36  # asked in the step from 28 on, known to all a step later
        assert found["steps"] == list(range(0, 36, 4))
        assert found["restored"]
        assert found["again"] == "done"
        assert found["went_on"][0] == 36
        assert found["same"]


def test_a_bad_loss_in_one_process_ends_all_and_keeps_the_checkpoint(two_processes: TwoProcesses) -> None:
    for found in two_processes("bad_loss_on_one"):
        assert found["how"].startswith("FloatingPointError: the squared loss is nan at 40 images")
        assert found["kept"] == 20
        assert found["again"] == "done"
        assert found["same"]


def test_a_signal_in_the_last_checkpoint_is_not_forgotten(tmp_path: Path) -> None:
    """A network for each class: the next class must not be begun."""
    trainee = Tiny()

    def snapshot() -> Any:
        if trainee.steps[-1] == 76:
            os.kill(os.getpid(), signal.SIGTERM)
        return trainee.result()

    with pytest.raises(KeyboardInterrupt):
        run(trainee, tmp_path, snapshot=snapshot)
    assert position(tmp_path) == 80


def test_ctrl_c_twice_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stopping(ALONE) as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # passed on by a launcher: the same press
        assert stopping.after_step()
        clock = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 2 * ONE_PRESS)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler never means more than it said
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stopping.at_end()


def test_nothing_is_heard_in_another_thread(tmp_path: Path) -> None:
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(bool(run(Tiny(), tmp_path))))
    thread.start()
    thread.join()
    assert ended == [True]
