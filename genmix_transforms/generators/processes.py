"""The processes of one training run: who am I, how many are we, what all agree on, and the mean of all gradients.

Starting several processes is Accelerate's and torchrun's job; here is only what the loop asks of them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.errors import InputError, MissingExtraError


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together.

    Args:
        rank: 0 for the one that writes files and shows progress.
        count: how many there are.
        device: where this one computes.
        host: the group that talks between the processors' memories; None: the default group does.
    """

    rank: int
    count: int
    device: torch.device
    host: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def join(cls, device: str | torch.device | None = None) -> "Processes":
        """Join the group that ``accelerate launch`` or ``torchrun`` started; alone where neither did.

        Raises:
            InputError: several tasks of a Slurm step, of which none knows of the others; or no such device.
            MissingExtraError: several processes, and Accelerate is not installed.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise MissingExtraError.naming(
                    "accelerate", extra="generators", needed_by="training in several processes"
                ) from error

            state = PartialState(cpu=device is not None and torch.device(device).type == "cpu")
            # What is agreed on at every step is agreed on by the processors: nobody waits for a GPU's queue.
            talks = torch.distributed.get_backend() == "gloo"
            host = None if talks else torch.distributed.new_group(backend="gloo")
            return cls(state.process_index, state.num_processes, state.device, host)
        refuse_unjoined_tasks()
        return cls(0, 1, own_device(device))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()

    def ask(self, flag: bool) -> Callable[[], bool]:
        """Begin to find out whether any process says so, and go on working.

        Every process must call this, and then the function that is returned, which waits for the answer: the same
        one on all.
        """
        if self.count == 1:
            return lambda: flag
        message = torch.tensor([int(flag)])
        work = torch.distributed.all_reduce(message, torch.distributed.ReduceOp.MAX, group=self.host, async_op=True)

        def answer() -> bool:
            work.wait()
            return bool(message.item())

        return answer

    def any(self, flag: bool) -> bool:
        """Whether any process says so. All processes must ask, and wait for each other."""
        return self.ask(flag)()

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean over the processes of each number; one that is not finite in any process is not finite in all."""
        if self.count == 1 or not values:
            return list(values)
        message = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(message, group=self.host)
        return [float(value) for value in message / self.count]

    def on_main(self, work: Callable[[], object], *, failure: str) -> None:
        """Do something on the main process alone, while the others wait. If it fails there, it fails for all.

        Args:
            work: what to do.
            failure: what the other processes say where the main one fails, and says why itself.

        Raises:
            RuntimeError: on the other processes, if the main one fails; that one raises its own error.
        """
        error = None
        if self.is_main:
            try:
                work()
            except Exception as caught:
                error = caught
        failed = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise RuntimeError(f"{failure}; process 0 says why")

    @torch.no_grad()
    def start_average(self, gradients: Sequence[Tensor]) -> Callable[[], None]:
        """Begin to replace gradients by their means over the processes, in one message, and go on working.

        Args:
            gradients: the same ones in every process, not empty, and in the same order of calls. Nothing else may touch
                them meanwhile.

        Returns:
            What waits for the means and puts them in place; on a GPU it is the GPU that waits.
        """
        # A gradient of a bucket of its own is averaged where it lies.
        alone = len(gradients) == 1 and gradients[0].is_contiguous()
        message = gradients[0].view(-1) if alone else torch.cat([gradient.reshape(-1) for gradient in gradients])
        work = torch.distributed.all_reduce(message, async_op=True)

        @torch.no_grad()
        def finish() -> None:
            work.wait()
            message.div_(self.count)
            if not alone:
                for gradient, mean in zip(gradients, message.split([g.numel() for g in gradients]), strict=True):
                    gradient.copy_(mean.view_as(gradient))

        return finish

    def gather(self, values: Tensor) -> Tensor:
        """Everyone's values, in the order of the ranks: ``(n, ...)`` from each to ``(count * n, ...)`` for all."""
        if self.count == 1:
            return values
        everyone = [torch.empty_like(values) for _ in range(self.count)]
        torch.distributed.all_gather(everyone, values.contiguous())
        return torch.cat(everyone)


def refuse_unjoined_tasks(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to train in a step of several Slurm tasks that no launcher has joined: each would train all by itself.

    A batch script, an array's task, and a step of one task are not several tasks: Slurm tells a step alone how many it
    has.

    Raises:
        InputError: ``srun`` started several of this command, and ``WORLD_SIZE`` is not set.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" in environment or "SLURM_PROCID" not in environment or tasks in ("", "0", "1"):
        return
    raise InputError(
        f"srun started this command {tasks} times, and each would train all by itself: for one training by several "
        f"processes, start a launcher in one task a node (srun --ntasks-per-node=1 torchrun --nproc_per_node={tasks} "
        "-m genmix_transforms train ..., or accelerate launch), for one process srun -n 1, and for trainings of their "
        "own, each into its own folder, set WORLD_SIZE=1"
    )


def own_device(device: str | torch.device | None = None, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device asked for; else a GPU of this process's own, where the machine has any; else the CPU."""
    if device is not None:
        try:
            torch.empty(1, device=device)
            return torch.device(device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
            raise InputError(
                f"no device {str(device)!r} here ({str(error).splitlines()[0]}); 'cpu' always works"
            ) from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(environment.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
