"""The mean of all processes' gradients: sent in buckets, while the backward pass computes those that are left."""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genmix_transforms.generators.processes import Processes

BUCKET_BYTES = 32 * 2**20
"""Gradients are averaged in messages of about this size."""

ON_THEIR_WAY = 4
"""Messages at a time: one of all gradients would take as much memory as they do."""


def average_gradients(optimiser: torch.optim.Optimizer, processes: Processes, *, meanwhile: bool = True) -> None:
    """Let an optimizer's steps be taken with the mean of all processes' gradients.

    Args:
        optimiser: every process has the same parameters in it, and at every step gradients of the same ones.
        processes: who trains together.
        meanwhile: send gradients as soon as a backward pass has computed them, not after it. Each parameter's gradient
            must then be whole after one backward pass.
    """
    average = _Average(optimiser, processes)
    optimiser.register_step_pre_hook(lambda *_: average.finish())
    if meanwhile:
        average.watch()


class _Average:
    """The buckets of one optimizer.

    They are sent in the same order in every process, whichever is ready first: from the last parameters to the first,
    which is about the order of a backward pass. A bucket is ready when those have a gradient that had one in the step
    before; any others are sent at the end.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, processes: Processes) -> None:
        self._processes = processes
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self._buckets = [_Bucket(bucket) for bucket in _split(parameters[::-1], BUCKET_BYTES)]
        self._bucket_of = {id(parameter): bucket for bucket in self._buckets for parameter in bucket.parameters}
        self._sent = 0
        self._on_their_way: deque[Callable[[], None]] = deque()

    def watch(self) -> None:
        """Send a bucket as soon as it is ready."""
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._arrived)

    def finish(self) -> None:
        """Send what is left, and wait for all."""
        for bucket in self._buckets:
            self._send(bucket.left())
        while self._on_their_way:
            self._on_their_way.popleft()()
        self._sent = 0
        for bucket in self._buckets:
            bucket.begin_again()

    def _arrived(self, parameter: Tensor) -> None:
        bucket = self._bucket_of[id(parameter)]
        if id(parameter) in bucket.arrived:
            raise RuntimeError(
                "a gradient came twice before the optimizer's step, and its mean over the processes is under way: "
                "a trainee that goes backward several times a step has accumulate in its settings"
            )
        bucket.arrived.add(id(parameter))
        while self._sent < len(self._buckets) and self._buckets[self._sent].is_ready:
            self._send(self._buckets[self._sent].ready())
            self._sent += 1

    def _send(self, parameters: Sequence[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            self._on_their_way.append(self._processes.start_average(gradients))
        if len(self._on_their_way) > ON_THEIR_WAY:
            self._on_their_way.popleft()()


class _Bucket:
    """Parameters whose gradients travel in one message."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.arrived: set[int] = set()  # in this step, as all below, by the parameters' ids
        self._expected: set[int] = set()
        self._sent: set[int] = set()

    @property
    def is_ready(self) -> bool:
        """Whether all gradients are there that are expected."""
        return self._expected <= self.arrived

    def ready(self) -> list[Tensor]:
        """Those that are expected, which are sent now."""
        self._sent = self._expected
        return [parameter for parameter in self.parameters if id(parameter) in self._sent]

    def left(self) -> list[Tensor]:
        """Those that have a gradient and were not sent."""
        return [each for each in self.parameters if each.grad is not None and id(each) not in self._sent]

    def begin_again(self) -> None:
        """Another step: expect what there was in this one."""
        self._expected = {id(parameter) for parameter in self.parameters if parameter.grad is not None}
        self.arrived, self._sent = set(), set()


def _split(parameters: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    """In order, into buckets of at most ``size`` bytes, or of one parameter."""
    buckets: list[list[Tensor]] = []
    left = 0
    for parameter in parameters:
        if not buckets or parameter.nbytes > left:
            buckets.append([])
            left = size
        buckets[-1].append(parameter)
        left -= parameter.nbytes
    return buckets
