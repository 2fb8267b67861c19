"""Checkpoints beside the training: the state of the step at which they were asked for, whatever comes after."""

import errno
import json
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.errors import DiskFullError
from genmix_transforms.generators import checkpoints as module
from genmix_transforms.generators.checkpoints import Checkpoints
from genmix_transforms.generators.state import load_checkpoint, read_record
from tests.generators.tiny_training import Tiny, position, run, same_end

WRITE = module.write_checkpoint


def model_of(value: float) -> torch.nn.Linear:
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def saved_value(folder: Path) -> float:
    record, model = read_record(folder), torch.nn.Linear(3, 2)
    assert record is not None
    load_checkpoint(folder, record, {"model": model})
    return float(model.bias[0].detach())


class Gate:
    """Writing that waits until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open, self.at_work = threading.Event(), threading.Event(), 0
        monkeypatch.setattr(module, "write_checkpoint", self.write)

    def write(self, *given: Any, **named: Any) -> None:
        self.at_work += 1
        assert self.at_work == 1, "two checkpoints at once"
        self.begun.set()
        assert self.open.wait(60)
        WRITE(*given, **named)
        self.at_work -= 1


def test_training_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, model = Gate(monkeypatch), model_of(1.0)
    with Checkpoints(tmp_path, {"seed": 5}) as checkpoints:
        checkpoints.save({"model": model}, images_seen=8)
        assert gate.begun.wait(60)
        with torch.no_grad():
            model.bias.fill_(7.0)  # the next step, while nothing is written yet
        assert not (tmp_path / "checkpoint.json").exists()
        gate.open.set()
        checkpoints.finish()
        assert saved_value(tmp_path) == 1.0
        checkpoints.save({"model": model}, images_seen=16)
    assert saved_value(tmp_path) == 7.0  # the end of the block waits
    record = read_record(tmp_path)
    assert record is not None
    assert (record["seed"], record["images_seen"]) == (5, 16)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.json", "state-000000000016.safetensors"]


def test_never_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, model = Gate(monkeypatch), model_of(1.0)
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save({"model": model}, images_seen=8)
        assert gate.begun.wait(60)
        threading.Timer(0.2, gate.open.set).start()
        for seen in (16, 24, 32):
            checkpoints.save({"model": model}, images_seen=seen)
    assert saved_value(tmp_path) == 1.0


def failing_at(seen: int) -> Callable[..., None]:
    def write(*given: Any, images_seen: int, **named: Any) -> None:
        if images_seen == seen:
            raise DiskFullError(errno.ENOSPC, "the disk is full")
        WRITE(*given, images_seen=images_seen, **named)

    return write


def test_an_error_is_raised_by_the_next_one_and_the_one_before_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "write_checkpoint", failing_at(40))
    whole, trainee = tmp_path / "whole", Tiny()
    out = tmp_path / "run"
    with pytest.raises(DiskFullError, match="the disk is full"):
        run(trainee, out)
    assert trainee.steps[-1] == 56  # the next checkpoint was due after this step
    assert position(out) == 20
    monkeypatch.setattr(module, "write_checkpoint", WRITE)
    run(Tiny(), out)
    run(Tiny(), whole)
    assert same_end(out, whole)


def test_a_disk_that_runs_full_leaves_the_checkpoint_and_names_the_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the state does not fit, the losses do."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(images_seen: int) -> None:
        if images_seen == 24:
            deadline = time.monotonic() + 60
            while not (out / "training/checkpoint.json").exists() and time.monotonic() < deadline:
                time.sleep(0.01)  # the first one is on its way
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))

    trainee, out, whole = Tiny(before_step=fill_up, width=1000), tmp_path / "run", tmp_path / "whole"
    try:
        with pytest.raises(DiskFullError) as caught:
            run(trainee, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"{out / 'training/state-000000000040.safetensors'}: the disk is full")
    assert "60.0 kB of this file" in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert position(out) == 20
    run(Tiny(width=1000), out)
    run(Tiny(width=1000), whole)
    assert same_end(out, whole)


def test_an_error_in_the_last_one_is_raised_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_checkpoint", failing_at(80))
    with pytest.raises(DiskFullError, match="the disk is full"):
        run(Tiny(), tmp_path)
    assert position(tmp_path) == 60


def test_an_error_of_the_training_waits_for_the_checkpoint_and_comes_through(tmp_path: Path) -> None:
    def fail(images_seen: int) -> None:
        if images_seen == 24:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(Tiny(before_step=fail), tmp_path)
    assert position(tmp_path) == 20
    assert not any(thread.name == "genmix checkpoint" for thread in threading.enumerate())


def test_shapes_and_objects_may_change_between_checkpoints(tmp_path: Path) -> None:
    """StyleGAN forgets Adam's moments at every doubling, and an evolution grows."""

    class Growing:
        def __init__(self) -> None:
            self.state: dict[str, Any] = {}

        def state_dict(self) -> dict[str, Any]:
            return self.state

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.state = state

    growing = Growing()
    states = [
        {"a": torch.ones(2), "b": torch.ones(3, dtype=torch.bfloat16)},
        {"a": torch.ones(2, 4, 3, 3).to(memory_format=torch.channels_last)},
        {"a": torch.arange(4).view(2, 2).T, "c": [torch.tensor(3), torch.zeros(0, 5), torch.tensor([True])]},
    ]
    with Checkpoints(tmp_path, {}) as checkpoints:
        for number, growing.state in enumerate(states):
            checkpoints.save({"growing": growing}, images_seen=number)
            checkpoints.finish()
            record, other = read_record(tmp_path), Growing()
            assert record is not None
            load_checkpoint(tmp_path, record, {"growing": other})
            assert other.state.keys() == growing.state.keys()
            assert torch.equal(other.state["a"], growing.state["a"])
            assert other.state["a"].is_contiguous(memory_format=torch.channels_last) == (number == 1)
    assert torch.equal(other.state["c"][1], torch.zeros(0, 5))
    assert json.loads((tmp_path / "checkpoint.json").read_text())["images_seen"] == 2
