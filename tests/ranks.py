"""The processes of one training, forked from a server that has imported what they need, which is what takes long.

They are not forked from pytest's process, since what its tests have left there, such as the rank that a module read
when it was imported, would be theirs too.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch", "torchvision", "accelerate", "numba", "genmix_transforms.generators.stylegan.training",
    "genmix_transforms.generators.adm.training", "genmix_transforms.generators.textual_inversion.training",
)  # fmt: skip
"""Nothing of ours that reads the rank when it is imported. What is missing is left out."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _begin(rank: int, said: Path, environment: dict[str, str], work: Callable[..., None], arguments: Any) -> None:
    for number, name in ((1, "out"), (2, "err")):
        with open(said / f"{rank}.{name}", "w") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        work(*arguments)
    except SystemExit:
        raise  # with its own code
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def run_ranks(
    work: Callable[..., None], *arguments: Any, said: Path, count: int = 2, timeout: float = 300, **environment: str
) -> list[int | None]:
    """Call ``work(*arguments)`` in so many processes, each with what a launcher sets; their exit codes.

    What each prints goes to ``said/RANK.out`` and ``said/RANK.err``. One that takes too long is killed: -9.
    """
    shared = {
        "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", **environment,
    }  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    processes = [context.Process(target=_begin, args=(rank, said, shared, work, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        if process.is_alive():
            process.kill()
        process.join()
    return [process.exitcode for process in processes]
