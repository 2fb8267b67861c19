"""The exponential moving average of a network's weights and buffers."""

import copy
import math

import torch
from torch import nn

from genmix_transforms.errors import InputError


class MovingAverage:
    """An average network that follows a training network.

    ``average <- decay * average + (1 - decay) * weights`` with ``decay = 0.5 ** (batch / half_life)``: counted in
    images, so that it does not change with the batch size. Early on the half-life is a twentieth of the images seen, so
    that the average forgets the random start. Floating-point buffers (BatchNorm's running statistics) are averaged too:
    they belong to the weights; integer buffers are copied.

    The batch is that of all processes together. The loop knows it and sets :attr:`batch_size`, so that no generator can
    take its own process's part for it.

    Args:
        network: the network to follow; ``average`` starts as its copy.
        half_life: images after which an old weight counts for half.
        device: where the average is kept; None: beside the network. On the CPU it takes no memory of the GPU, and
            every step takes a copy of the weights longer.

    Attributes:
        average: the average network.
        batch_size: images in a step, all processes together; None until the loop or the user sets it.
    """

    batch_size: int | None = None

    def __init__(self, network: nn.Module, *, half_life: float, device: str | torch.device | None = None) -> None:
        self.half_life = half_life
        self.average: nn.Module = copy.deepcopy(network).eval().requires_grad_(False)
        if device is not None:
            self.average.to(device)

    @torch.no_grad()
    def update(self, network: nn.Module, *, images_seen: int, batch: int | None = None) -> None:
        """Follow ``network`` after a step.

        Args:
            network: in training.
            images_seen: before the step.
            batch: images in the step, all processes together, where nobody has set :attr:`batch_size`.
        """
        decay = self.decay(images_seen=images_seen, batch=batch)
        averages, values = [], []
        for average, value in zip(_tensors(self.average), _tensors(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value.detach().to(average.device))
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def decay(self, *, images_seen: int, batch: int | None = None) -> float:
        """The share that the average keeps of itself in the step after ``images_seen`` images."""
        batch = batch if self.batch_size is None else self.batch_size
        if batch is None:
            raise ValueError("MovingAverage: set batch_size, or give batch: the images in a step, in all processes")
        half_life = min(self.half_life, 0.05 * (images_seen + batch))
        return float(0.5 ** (batch / half_life))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average network's state."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up a saved state."""
        self.average.load_state_dict(state)


def half_life_of(decay: float, *, batch_size: int) -> float:
    """The half-life, in images, of an average that keeps a share ``decay`` of itself at every step.

    Example:
        >>> round(half_life_of(0.9999, batch_size=1))
        6931
    """
    if not 0 < decay < 1:
        raise InputError(f"ema_decay must be above 0 and below 1, got {decay}")
    return batch_size * math.log(0.5) / math.log(decay)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
