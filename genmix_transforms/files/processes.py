"""Who am I among the processes of one piece of work that needs no communication, and how many are we."""

import os
from collections.abc import Mapping

from genmix_transforms.errors import InputError


def share_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's (rank, count) for work that needs no communication: torchrun, accelerate, Slurm or none.

    Read from RANK and WORLD_SIZE (torchrun, ``accelerate launch``), else from a Slurm array's or step's variables.

    Raises:
        InputError: numbers that are none, or a rank that is not below the count: an array with gaps, such as 1,3,7.
    """
    for rank_name, count_name in (
        ("RANK", "WORLD_SIZE"),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
    ):
        if rank_name in environment and count_name in environment:
            rank, count = _number(environment, rank_name), _number(environment, count_name)
            if rank_name == "SLURM_ARRAY_TASK_ID":
                first = _number(environment, "SLURM_ARRAY_TASK_MIN", "0")
                step = max(1, _number(environment, "SLURM_ARRAY_TASK_STEP", "1"))
                last = _number(environment, "SLURM_ARRAY_TASK_MAX", str(first + (count - 1) * step))
                rank, odd = divmod(rank - first, step)
                if odd or last != first + (count - 1) * step:
                    raise InputError(
                        f"a Slurm array of {count} tasks from {first} to {last}: with gaps, nobody can tell whose "
                        f"share is whose; submit it as --array=0-{count - 1}"
                    )
            if not 0 <= rank < count:
                raise InputError(f"{rank_name} says that this is process {rank}, {count_name} that there are {count}")
            return rank, count
    return 0, 1


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name, default)
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"the environment variable {name} must be a whole number, got {text!r}") from error
