"""The exponential moving average of a network's weights and buffers."""

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class MovingAverage:
    """An average network that follows a training network.

    ``average <- decay * average + (1 - decay) * weights`` with ``decay = 0.5 ** (batch / half_life)``: counted in
    images, so that it does not change with the batch size. Early on the half-life is a twentieth of the images seen, so
    that the average forgets the random start. Floating-point buffers (BatchNorm's running statistics) are averaged too:
    they belong to the weights; integer buffers are copied.

    Args:
        network: the network to follow; ``average`` starts as its copy.
        half_life: images after which an old weight counts for half.
    """

    def __init__(self, network: nn.Module, *, half_life: float) -> None:
        self.half_life = half_life
        self.average = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, *, batch: int, images_seen: int) -> None:
        """Follow ``network`` after a step on ``batch`` images."""
        half_life = min(self.half_life, 0.05 * (images_seen + batch))
        decay = 0.5 ** (batch / half_life)
        averages, values = [], []
        for average, value in zip(_tensors(self.average), _tensors(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average network's state."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up a saved state."""
        self.average.load_state_dict(state)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
