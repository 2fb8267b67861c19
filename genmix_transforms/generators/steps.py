"""The steps of a training: which images each of them is shown, and with which random numbers."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genmix_transforms.bank.rows import take_rows
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.fast_math import fast_math
from genmix_transforms.generators.gradients import average_gradients
from genmix_transforms.generators.job import Job
from genmix_transforms.generators.pixels import to_signed_unit
from genmix_transforms.generators.randomness import DataOrder, reseed, step_seed
from genmix_transforms.generators.state import Stateful


class Steps:
    """Takes the steps of a training. A step follows from the number of images seen before it.

    All optimizers average their gradients over the processes, and all moving averages count the batch of all processes.

    Args:
        job: the training.
        objects: the trainee's state objects, by name.
    """

    def __init__(self, job: Job, objects: Mapping[str, Stateful]) -> None:
        processes = job.processes
        self._job = job
        self._batch_size = job.settings.batch_size
        self._fast = job.settings.fast_math
        self._bf16 = job.settings.mixed_precision == "bf16"
        self._order = DataOrder(len(job.dataset), seed=job.seed)
        self._labels = job.dataset.labels.to(processes.device)
        self._inputs = job.inputs or _images_of(job)
        for item in objects.values():
            if isinstance(item, MovingAverage):
                item.batch_size = self._batch_size
            elif isinstance(item, torch.optim.Optimizer) and processes.count > 1:
                # A batch in parts has several backward passes, and its gradients are whole after the last.
                average_gradients(item, processes, meanwhile=getattr(job.settings, "accumulate", 1) == 1)

    def prepare(self, *, progress: bool) -> None:
        """Let a trainee that has a method ``prepare`` compute what its steps look up: no step's time then holds it.

        Args:
            progress: show a bar.
        """
        prepare = getattr(self._job.trainee, "prepare", None)
        if prepare is not None:
            with fast_math(self._job.processes.device, self._fast):
                prepare(progress=progress and self._job.processes.is_main)

    def batches(self, images_seen: int, until: int) -> tuple[Tensor, ...]:
        """The indices of the images of some whole steps, sent to the device in one copy."""
        index = self._order(images_seen, until).to(self._job.processes.device, non_blocking=True)
        batches: tuple[Tensor, ...] = index.split(self._batch_size)
        return batches

    def take(self, batch: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """Take one step, and return its losses.

        Args:
            batch: indices into the training set, of all processes.
            images_seen: before the step.
        """
        rank, device = self._job.processes.rank, self._job.processes.device
        share = self._batch_size // self._job.processes.count
        mine = batch[rank * share : (rank + 1) * share]
        reseed(step_seed(self._job.seed, rank=rank, images_seen=images_seen), device)
        # Of a step, and not of the run: the sheets of a checkpoint are drawn as their images will be.
        with fast_math(device, self._fast), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            return self._job.trainee.training_step(self._inputs(mine), self._labels.index_select(0, mine), images_seen)


def _images_of(job: Job) -> Callable[[Tensor], Tensor]:
    images = job.dataset.images.to(job.processes.device)
    return lambda index: to_signed_unit(take_rows(images, index))
