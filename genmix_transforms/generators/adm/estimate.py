"""What a training will take, before it starts: bytes counted, and seconds measured in a trial pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.tuning import trained


@dataclass(frozen=True)
class Estimate:
    """What a training will take on the device. Everything is float32, 4 bytes a number.

    Args:
        weights: numbers in the network.
        trained: of them, those that are trained: each has a gradient, two moments of AdamW and an average.
        activations: bytes kept for the backward pass, measured; None: not known.
        seconds: of a step, measured, without the optimiser's part.
    """

    weights: int
    trained: int
    activations: int | None
    seconds: float

    @property
    def bytes(self) -> int:
        """On the device, the average included."""
        return 4 * self.weights + 16 * self.trained + (self.activations or 0)

    @property
    def average_bytes(self) -> int:
        """What the average takes."""
        return 4 * self.trained

    def too_much_for(self, free: int, *, average_elsewhere: bool = False) -> bool:
        """Whether it takes more than ``free`` bytes, with a twentieth to spare for what is not counted."""
        return self.bytes - average_elsewhere * self.average_bytes > 0.95 * free

    def text(self, *, steps: int, average_elsewhere: bool) -> str:
        """A sentence for the log."""
        total = self.bytes - average_elsewhere * self.average_bytes
        where = " on the CPU" if average_elsewhere else ""
        activations = (
            "activations not known (gradient checkpointing)"
            if self.activations is None
            else f"activations {_size(self.activations)}, measured in a trial pass"
        )
        hours = steps * self.seconds / 3600
        takes = f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(hours * 60))} min"
        return (
            f"{self.weights / 1e6:.1f} million weights, {self.trained / 1e6:.1f} million of them trained; memory about "
            f"{_size(total)} (weights {_size(4 * self.weights)}, gradients {_size(4 * self.trained)}, AdamW "
            f"{_size(8 * self.trained)}, average {_size(4 * self.trained)}{where}, "
            f"{activations}); {steps:,} steps take about {takes} ({self.seconds:.2g} s each in the trial), sheets and "
            "optimiser not counted"
        )


def measure(network: nn.Module, one_pass: Callable[[], Tensor], *, parts: int, device: torch.device) -> Estimate:
    """Estimate a training from two trial passes, which leave no trace.

    Args:
        network: as it will be trained.
        one_pass: the loss of one part of a batch; its gradients are computed here.
        parts: of a step.
        device: where it will be trained.

    Raises:
        InputError: the device's memory is too small for one pass.
    """
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        try:
            if on_cuda:
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                loss = one_pass()
            loss.backward()
            start = _now(device)
            one_pass().backward()
            seconds = _now(device) - start
        except torch.OutOfMemoryError as error:
            raise InputError(
                "ADM.fit: the device's memory is too small for one pass; share a step among more parts (accumulate), "
                "keep fewer activations (gradient_checkpointing), tune 'attention' or 'lora', or take smaller images"
            ) from error
        finally:
            for parameter in network.parameters():
                parameter.grad = None
    size = sum(parameter.numel() for parameter in trained(network))
    activations: int | None
    if on_cuda:
        activations = max(0, torch.cuda.max_memory_allocated(device) - before - 4 * size)
    else:
        # What is computed again is not kept, and what is kept instead does not pass the hooks.
        activations = None if getattr(network, "is_gradient_checkpointing", False) else sum(kept.values())
    return Estimate(
        weights=sum(parameter.numel() for parameter in network.parameters()),
        trained=size,
        activations=activations,
        seconds=seconds * parts,
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
