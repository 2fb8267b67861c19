"""What happens to trainings by two processes, in one start of the interpreters: a script, run as rank 0 and rank 1.

Each scenario leaves a JSON file for each rank; the tests of the loop's parts read them.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.errors import DiskFullError
from genmix_transforms.generators import processes as processes_module
from genmix_transforms.generators import training
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.run_folder import held
from tests.generators.tiny_training import Tiny, position, run, same_end

SCENARIOS: list[Callable[[Path, Processes], dict[str, Any]]] = []


def scenario(function: Callable[[Path, Processes], dict[str, Any]]) -> Callable[[Path, Processes], dict[str, Any]]:
    SCENARIOS.append(function)
    return function


def ended(trainee: Tiny, out: Path, processes: Processes) -> str:
    """How a training ended."""
    try:
        run(trainee, out, processes=processes)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def stopped_by(asks: Callable[[int], None], out: Path, processes: Processes) -> dict[str, Any]:
    """A training in which ``asks`` happens at every step, and another that goes on from there."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    first = Tiny(before_step=asks)
    how = ended(first, out, processes)
    processes.wait()
    stopped_at = position(out)
    restored = handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    processes.wait()
    second = Tiny()
    again = ended(second, out, processes)
    processes.wait()
    return {
        "how": how, "steps": first.steps, "stopped_at": stopped_at, "restored": restored, "again": again,
        "went_on": second.steps, "same": same_end(out, out.parent / "unbroken"),
    }  # fmt: skip


@scenario
def unbroken(out: Path, processes: Processes) -> dict[str, Any]:
    decays: list[float] = []
    trainee = Tiny()
    decay = trainee.average.decay

    def recorded(**given: Any) -> float:
        decays.append(decay(**given))
        return decays[-1]

    trainee.average.decay = recorded  # type: ignore[method-assign]
    how = ended(trainee, out, processes)
    processes.wait()
    return {"how": how, "decays": decays}


@scenario
def interrupt_one(out: Path, processes: Processes) -> dict[str, Any]:
    def ask(images_seen: int) -> None:
        if images_seen == 28 and processes.rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

    return stopped_by(ask, out, processes)


@scenario
def terminate_both(out: Path, processes: Processes) -> dict[str, Any]:
    def ask(images_seen: int) -> None:
        if images_seen == (28 if processes.rank == 1 else 32):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # launchers repeat themselves

    return stopped_by(ask, out, processes)


@scenario
def bad_loss_on_one(out: Path, processes: Processes) -> dict[str, Any]:
    def spoil(images_seen: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * torch.nan if images_seen == 28 and processes.rank == 1 else loss

    how = ended(Tiny(loss=spoil), out, processes)
    processes.wait()
    kept = position(out)
    processes.wait()
    again = ended(Tiny(), out, processes)
    processes.wait()
    return {"how": how, "kept": kept, "again": again, "same": same_end(out, out.parent / "unbroken")}


@scenario
def locked_out(out: Path, processes: Processes) -> dict[str, Any]:
    if processes.is_main:
        with held(out, restart=False):
            how = ended(Tiny(), out, processes)
    else:
        how = ended(Tiny(), out, processes)
    return {"how": how}


@scenario
def full_disk(out: Path, processes: Processes) -> dict[str, Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise DiskFullError("no space at all")

    before, training.check_free_space = training.check_free_space, refuse
    how = ended(Tiny(), out, processes)
    training.check_free_space = before
    processes.wait()
    return {"how": how, "again": ended(Tiny(), out, processes)}


@scenario
def averages(out: Path, processes: Processes) -> dict[str, Any]:
    a, b, c = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2,), (1, 2), (3,)))
    a.grad = torch.tensor([1.0, 2.0]) * (processes.rank + 1)
    b.grad = torch.tensor([[10.0, 0.0]]) * processes.rank
    processes.average_gradients([a, b, c])
    gathered = processes.gather(torch.tensor([[10, processes.rank]]))
    return {
        "gradients": [None if each.grad is None else each.grad.tolist() for each in (a, b, c)],
        "gathered": gathered.tolist(),
        "mean": processes.mean([processes.rank, 2.0]),
        "any": [processes.any(processes.rank == 1), processes.any(False)],
    }


@scenario
def buckets(out: Path, processes: Processes) -> dict[str, Any]:
    """Averages of gradients in buckets of several sizes, and in one message."""

    def averaged() -> list[torch.Tensor]:
        random = torch.Generator().manual_seed(processes.rank)
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 5), (7,), (2, 2, 2, 2), (1,), (40,))]
        for parameter in parameters[:-1]:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        parameters[2].grad = parameters[2].grad.to(memory_format=torch.channels_last)  # type: ignore[union-attr]
        processes.average_gradients(parameters)
        assert parameters[-1].grad is None
        return [parameter.grad for parameter in parameters[:-1] if parameter.grad is not None]

    whole = averaged()
    same = True
    for size in (1, 40, 70, 100):
        processes_module.BUCKET_BYTES = size
        same &= all(torch.equal(one, other) for one, other in zip(whole, averaged(), strict=True))
    everyone = processes.gather(torch.cat([grad.flatten() for grad in whole])[None])
    return {"same": same, "alike": bool(torch.equal(everyone[0], everyone[1]))}


def main(folder: Path) -> None:
    processes = Processes.join("cpu")
    for each in SCENARIOS:
        found = each(folder / each.__name__, processes)
        (folder / f"{each.__name__}.{processes.rank}.json").write_text(json.dumps(found))
        processes.wait()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
