"""The processes of one training run: who am I, how many are we, and the mean of everyone's gradients.

Starting several processes is Accelerate's and torchrun's job; here is only what the loop asks of them.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.processes import share_from_environment

__all__ = ["Processes", "own_device", "share_from_environment"]


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together.

    Args:
        rank: 0 for the one that writes files and shows progress.
        count: how many there are.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str | torch.device | None = None) -> "Processes":
        """Join the group that ``accelerate launch`` or ``torchrun`` started; alone where neither did."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState(cpu=device is not None and torch.device(device).type == "cpu")
            return cls(state.process_index, state.num_processes, state.device)
        return cls(0, 1, own_device(device))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes, in one message."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        message = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(message)
        message /= self.count
        for gradient, mean in zip(gradients, message.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def gather(self, values: Tensor) -> Tensor:
        """Everyone's values, in the order of the ranks: ``(n, ...)`` from each to ``(count * n, ...)`` for all."""
        if self.count == 1:
            return values
        everyone = [torch.empty_like(values) for _ in range(self.count)]
        torch.distributed.all_gather(everyone, values.contiguous())
        return torch.cat(everyone)


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
