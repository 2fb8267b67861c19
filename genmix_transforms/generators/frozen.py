"""Frozen weights in bfloat16, for a training that computes in it: cast once, and not at every pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


class FrozenWeights:
    """The frozen weights of some networks, of which a step under bfloat16 autocast sees copies in bfloat16.

    Autocast keeps what it cast of weights that are trained, and casts all others anew at every pass. A pass with these
    gives the same, bit for bit, without the casts: they are of the layers whose weights autocast casts, rounded as it
    rounds them. Norms and embeddings stay as they are, and so does what is trained.

    Outside of :meth:`narrow` the networks have their own weights. Where a step is computed on another device than the
    CPU these are in the memory of the CPU from the first step on, so that the training takes half as much of the
    device's for them: move a network (``network.to(device)``) before it is used otherwise.

    Args:
        networks: in training; their frozen weights change no more from the first step on.
        trained: parameters that are trained, now or later.
    """

    def __init__(self, *networks: nn.Module, trained: Iterable[nn.Parameter]) -> None:
        self._networks = networks
        self._trained = {id(parameter) for parameter in trained}
        self._weights: list[_Weight] | None = None

    @contextmanager
    def narrow(self, device: torch.device) -> Iterator[None]:
        """Put the copies in for a step; without autocast to bfloat16, nothing.

        Args:
            device: where the step is computed, and the networks are at the first.
        """
        if not (torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.bfloat16):
            yield
            return
        if self._weights is None:  # not before: a run that goes on loads weights first
            self._weights = [_Weight(parameter) for parameter in self._cast_by_autocast()]
        for weight in self._weights:
            weight.parameter.data = weight.narrow
        try:
            yield
        finally:
            for weight in self._weights:
                weight.parameter.data = weight.wide

    def _cast_by_autocast(self) -> list[nn.Parameter]:
        found = {
            id(parameter): parameter
            for network in self._networks
            for layer in network.modules()
            if isinstance(layer, (nn.Linear, _ConvNd))
            for parameter in layer.parameters(recurse=False)
            if id(parameter) not in self._trained and parameter.dtype == torch.float32
        }
        return list(found.values())


class _Weight:
    """A frozen weight: the parameter, its own numbers in the CPU's memory, and their copy where it is."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.narrow: Tensor = parameter.detach().bfloat16()
        self.wide: Tensor = parameter.detach().cpu()
        parameter.data = self.wide  # one after the other: the device never holds all of both
