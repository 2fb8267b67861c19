"""The steps of a training: which images each of them is shown, and with which random numbers."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.pixels import to_signed_unit
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.randomness import DataOrder, reseed, step_seed
from genmix_transforms.generators.state import Stateful


class Trainee(Protocol):
    """What is trained: the loop knows no more of a generator than this."""

    def state_objects(self) -> Mapping[str, Stateful]:
        """Everything that must survive a kill, by name: networks, optimisers, averages, controllers."""
        ...

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One optimiser step.

        Args:
            images: this process's part of the batch, float32 ``(n, C, H, W)`` in [-1, 1], or as ``inputs`` gives it.
            labels: int64 ``(n,)``.
            images_seen: by all processes together, before this step.

        Returns:
            The losses by name, scalars still on the device. Random numbers come from torch's global generators, which
            the loop has seeded for this step.
        """
        ...


class Steps:
    """Takes the steps of a training. A step follows from the number of images seen before it.

    All optimisers average their gradients over the processes, and all moving averages count the batch of all processes.

    Args:
        trainee: what is trained, on the device of ``processes``.
        dataset: the training set; it sits on the device as integers.
        objects: the trainee's state objects, by name.
        batch_size: images in a step, all processes together.
        seed: of the data order and of every step's randomness.
        mixed_precision: "no" or "bf16".
        processes: who trains together.
        inputs: see :func:`~genmix_transforms.generators.training.train`.
    """

    def __init__(
        self,
        trainee: Trainee,
        dataset: PatchDataset,
        *,
        objects: Mapping[str, Stateful],
        batch_size: int,
        seed: int,
        mixed_precision: str,
        processes: Processes,
        inputs: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self._trainee = trainee
        self._batch_size = batch_size
        self._seed = seed
        self._bf16 = mixed_precision == "bf16"
        self._processes = processes
        self._order = DataOrder(len(dataset), seed=seed)
        self._labels = dataset.labels.to(processes.device)
        if inputs is None:
            images = dataset.images.to(processes.device)

            def inputs(index: Tensor) -> Tensor:
                return to_signed_unit(images.index_select(0, index))

        self._inputs = inputs
        for item in objects.values():
            if isinstance(item, MovingAverage):
                item.batch_size = batch_size
            elif isinstance(item, torch.optim.Optimizer) and processes.count > 1:
                item.register_step_pre_hook(
                    lambda optimiser, *_: processes.average_gradients(
                        parameter for group in optimiser.param_groups for parameter in group["params"]
                    )
                )

    def prepare(self, *, progress: bool) -> None:
        """Let a trainee that has a method ``prepare`` compute what its steps look up: no step's time then holds it.

        Args:
            progress: show a bar.
        """
        prepare = getattr(self._trainee, "prepare", None)
        if prepare is not None:
            prepare(progress=progress and self._processes.is_main)

    def batches(self, images_seen: int, until: int) -> tuple[Tensor, ...]:
        """The indices of the images of some whole steps, sent to the device in one copy."""
        index = self._order(images_seen, until).to(self._processes.device, non_blocking=True)
        batches: tuple[Tensor, ...] = index.split(self._batch_size)
        return batches

    def take(self, batch: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """Take one step, and return its losses.

        Args:
            batch: indices into the training set, of all processes.
            images_seen: before the step.
        """
        rank, device = self._processes.rank, self._processes.device
        share = self._batch_size // self._processes.count
        mine = batch[rank * share : (rank + 1) * share]
        reseed(step_seed(self._seed, rank=rank, images_seen=images_seen), device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            return self._trainee.training_step(self._inputs(mine), self._labels.index_select(0, mine), images_seen)
