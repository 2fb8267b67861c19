"""Who am I among the processes: from the variables that torchrun, Accelerate and Slurm set."""

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.files.processes import share_from_environment


def array(task, *, first=0, last=3, step=1, count=4):
    """What Slurm sets in a task of an array."""
    numbers = {"ID": task, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, (2, 3)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"}, (2, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2", **array(3), "SLURM_PROCID": "0", "SLURM_NTASKS": "9"}, (1, 2)),
        ({**array(3), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (3, 4)),
        ({"RANK": "1"}, (0, 1)),
    ],
)
def test_the_first_that_says_both(environment, expected):
    assert share_from_environment(environment) == expected


@pytest.mark.parametrize(("first", "step", "count"), [(0, 1, 4), (1, 1, 3), (3, 5, 4), (0, 2, 5), (7, 1, 1)])
def test_the_tasks_of_an_array_have_every_rank_once(first, step, count):
    last = first + (count - 1) * step
    tasks = range(first, last + 1, step)
    shares = [share_from_environment(array(task, first=first, last=last, step=step, count=count)) for task in tasks]
    assert shares == [(rank, count) for rank in range(count)]


@pytest.mark.parametrize("task", [1, 3, 7])
def test_an_array_with_gaps(task):
    with pytest.raises(
        InputError, match=r"a Slurm array of 3 tasks from 1 to 7: with gaps, .*submit it as --array=0-2"
    ):
        share_from_environment(array(task, first=1, last=7, count=3))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "the environment variable RANK must be a whole number, got 'one'"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "the environment variable WORLD_SIZE must be a whole number, got ''"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK says that this is process 2, WORLD_SIZE that there are 2"),
        ({"SLURM_PROCID": "-1", "SLURM_NTASKS": "2"}, "SLURM_PROCID says that this is process -1, SLURM_NTASKS that"),
    ],
)
def test_what_cannot_be(environment, message):
    with pytest.raises(InputError, match=message):
        share_from_environment(environment)
