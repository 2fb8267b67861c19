"""Several processes: who am I, what all agree on, and the mean of everyone's gradients (two real gloo processes)."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.files.processes import share_from_environment
from genmix_transforms.generators.processes import (
    Processes,
    own_device,
    refuse_unjoined_tasks,
)

TwoProcesses = Callable[[str], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, (2, 3)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"}, (2, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "9"}, (1, 2)),
        ({"RANK": "1"}, (0, 1)),
    ],
)
def test_the_share_comes_from_the_environment(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert share_from_environment(environment) == expected


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes = Processes.join("cpu")
    assert (processes.rank, processes.count, processes.device) == (0, 1, torch.device("cpu"))
    assert processes.is_main
    processes.wait()
    assert processes.gather(torch.tensor([1.0, 2.0])).tolist() == [1, 2]


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'genmix-transforms\[generators\]'"):
        Processes.join("cpu")


def test_two_processes_average_and_agree(two_processes: TwoProcesses) -> None:
    for found in two_processes("averages"):
        assert found["gradients"] == [[1.5, 3.0], [[5.0, 0.0]], None]
        assert found["gathered"] == [[10, 0], [10, 1]]
        assert found["mean"] == [0.5, 2.0]
        assert found["any"] == [True, False]


def test_what_fails_on_the_main_process_fails_on_all(two_processes: TwoProcesses) -> None:
    main, other = two_processes("full_disk")
    assert main["how"] == "DiskFullError: no space at all"
    assert other["how"].startswith("RuntimeError: ")
    assert other["how"].endswith("the training cannot begin; process 0 says why")
    assert main["again"] == other["again"] == "done"


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_ARRAY_TASK_ID": "1"},
    ],
    ids=["srun -n 4", "srun -n 4 in an array"],
)
def test_tasks_that_no_launcher_has_joined_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match="srun started this .* 4 times.*torchrun --nproc_per_node=4.*WORLD_SIZE=1"):
        refuse_unjoined_tasks(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "WORLD_SIZE": "1"},
    ],
    ids=["no Slurm", "a batch script", "an array's task", "srun -n 1", "told to be alone"],
)
def test_a_lone_process_under_slurm_trains(environment: dict[str, str]) -> None:
    refuse_unjoined_tasks(environment)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(InputError, match=f"no device '{device}' here .*'cpu' always works"):
        own_device(device)


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(own_device(environment={"LOCAL_RANK": str(rank)})) for rank in range(3)] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
    ]
    assert str(own_device(environment={})) == "cuda:0"
    assert str(own_device("cpu", {"LOCAL_RANK": "1"})) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(own_device(environment={"LOCAL_RANK": "1"})) == "cpu"
