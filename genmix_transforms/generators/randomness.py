"""Noise that follows from a seed alone: not from the batch, the device, the process or what was drawn before."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def noise(seeds: Iterable[int], shape: Sequence[int], *, stream: int = 0) -> Tensor:
    """Standard normal noise, one draw for each seed.

    Drawn on the CPU with the counter-based Philox generator, keyed with all 64 bits of the seed (torch's own CPU
    generator looks at the lower 32 only, so that seeds of large banks would collide).

    Args:
        seeds: non-negative, below 2**63.
        shape: of the draw for one seed.
        stream: a second number; the streams of one seed are independent (one for each step of a sampler, say).

    Returns:
        float32 ``(len(seeds), *shape)``, on the CPU.

    Example:
        >>> noise([7, 8], (2,)).shape
        torch.Size([2, 2])
        >>> torch.equal(noise([7, 8], (2,))[1:], noise([8], (2,)))
        True
    """
    draws = [
        np.random.Generator(np.random.Philox(key=[seed, stream])).standard_normal(tuple(shape), dtype=np.float32)
        for seed in seeds
    ]
    return torch.from_numpy(np.stack(draws)) if draws else torch.empty(0, *shape)


def step_seed(seed: int, *, rank: int, images_seen: int) -> int:
    """The seed of one training step on one process: another for every step and process, the same after a resume."""
    return int(np.random.SeedSequence([seed, rank, images_seen]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def reseed(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of one device, as ``torch.manual_seed`` seeds those of all devices.

    That notes its call stack down for every device that is not in use yet: 0.2 to 0.3 milliseconds in a CUDA build
    without a GPU, too much for something that is done in every step.

    Args:
        seed: as for ``torch.manual_seed``.
        device: where random numbers will be drawn, besides the CPU.

    Example:
        >>> reseed(7, torch.device("cpu"))
        >>> first = torch.rand(2)
        >>> _ = torch.manual_seed(7)
        >>> torch.equal(torch.rand(2), first)
        True
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class DataOrder:
    """Which images each batch holds: every image once, in random order, then all again in another order.

    The position follows from the number of images seen, so that there is nothing to save.

    Args:
        count: number of images.
        seed: of the orders.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._orders: dict[int, np.ndarray] = {}

    def __call__(self, start: int, stop: int) -> Tensor:
        """The images at positions ``start`` to ``stop`` (exclusive): indices, int64 ``(stop - start,)``."""
        positions = np.arange(start, stop)
        epochs = positions // self.count
        index = np.empty(len(positions), dtype=np.int64)
        for epoch in range(start // self.count, (stop - 1) // self.count + 1):
            here = epochs == epoch
            index[here] = self._order(epoch)[positions[here] % self.count]
        return torch.from_numpy(index)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key >= epoch - 1}
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._orders[epoch]
