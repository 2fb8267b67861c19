"""Several processes: who am I, and the mean of everyone's gradients (two real gloo processes)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators.processes import Processes, own_device, share_from_environment


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
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    processes.average_gradients([parameter])
    processes.wait()
    assert parameter.grad.tolist() == [1, 2]
    assert processes.gather(parameter.grad).tolist() == [1, 2]


SCRIPT = """
import torch
from genmix_transforms.errors import InputError
from genmix_transforms.generators.processes import Processes
processes = Processes.join("cpu")
assert processes.count == 2
a, b, c = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2,), (1, 2), (3,)))
a.grad = torch.tensor([1.0, 2.0]) * (processes.rank + 1)
b.grad = torch.tensor([[10.0, 0.0]]) * processes.rank
processes.average_gradients([a, b, c])
assert a.grad.tolist() == [1.5, 3.0], a.grad
assert b.grad.tolist() == [[5.0, 0.0]], b.grad
assert c.grad is None
everyone = processes.gather(torch.tensor([[10, processes.rank]]))
assert everyone.tolist() == [[10, 0], [10, 1]], everyone
processes.wait()
torch.distributed.destroy_process_group()
"""


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    script = tmp_path / "average.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr


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
