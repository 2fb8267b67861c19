"""The processes of one training, forked from this one: an interpreter's start takes longer than most tests."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_ranks(work: Callable[[], None], *, said: Path, count: int = 2, timeout: float = 300) -> list[int | None]:
    """Call ``work`` in so many processes, each with the environment that a launcher gives; their exit codes.

    What each prints goes to ``said/RANK.out`` and ``said/RANK.err``. None stands for one that had to be killed.
    """
    environment = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def begin(rank: int) -> None:
        for number, name in ((1, "out"), (2, "err")):
            with open(said / f"{rank}.{name}", "w") as file:
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank), CUDA_VISIBLE_DEVICES="")
        code = 0
        try:
            work()
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)  # what this process would clean up belongs to the one it was forked from

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=begin, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    codes: list[int | None] = []
    for process in processes:
        process.join(timeout)
        codes.append(process.exitcode)
        process.kill()
        process.join()
    return codes
