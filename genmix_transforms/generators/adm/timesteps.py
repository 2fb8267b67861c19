"""Which timesteps a batch is trained on: all alike, or more often those whose loss is large."""

from typing import Any, Literal

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.noise_schedule import widest_float
from genmix_transforms.generators.processes import Processes


class UniformTimesteps:
    """All ``count`` timesteps alike, as Ho et al. and the published ADM networks; by torch's global generator."""

    def __init__(self, count: int, *, device: str | torch.device = "cpu") -> None:
        self.count = count
        self.device: torch.device = torch.device(device)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Timesteps int64 ``(count,)``, and the weights of their losses, which keep the mean unbiased, ``(count,)``."""
        return torch.randint(0, self.count, (count,), device=self.device), torch.ones(count, device=self.device)

    def update(self, timesteps: Tensor, losses: Tensor) -> None:
        """Take note of the losses ``(n,)`` of this process's images: here, nothing is learned from them."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill: here, nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""


class LossSecondMomentTimesteps(UniformTimesteps):
    """Timesteps in proportion to the root of their loss's second moment, from the last losses of each.

    Uniform until every timestep has its history. It never waits for the device.

    Args:
        count: of timesteps.
        device: where to draw them.
        history: losses to remember of each timestep.
        uniform_share: of the draws that stay uniform, so that no timestep is forgotten.
        processes: who trains together: each learns from the losses of all, and all draw alike.

    Source: Nichol, Dhariwal (arXiv 2102.09672), section 3.3.
    """

    def __init__(
        self,
        count: int,
        *,
        device: str | torch.device = "cpu",
        history: int = 10,
        uniform_share: float = 0.001,
        processes: Processes | None = None,
    ) -> None:
        super().__init__(count, device=device)
        self.uniform_share = uniform_share
        self.processes = processes
        # One row more than there are timesteps: what is out of date before it is written goes there.
        self._history = torch.zeros(count + 1, history, dtype=widest_float(self.device), device=self.device)
        self._seen = torch.zeros(count + 1, dtype=torch.int64, device=self.device)

    @property
    def probabilities(self) -> Tensor:
        """Of each timestep, float64 ``(count,)`` where the device has it."""
        history, seen = self._history[:-1], self._seen[:-1]
        roots = history.square().mean(1).sqrt()
        learnt = roots / roots.sum().clamp(min=torch.finfo(roots.dtype).tiny)
        learnt = learnt * (1 - self.uniform_share) + self.uniform_share / self.count
        ready = (seen >= history.shape[1]).all() & (roots.sum() > 0)
        return torch.where(ready, learnt, torch.full_like(learnt, 1 / self.count))

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Timesteps, and one over (their number times the probability of each)."""
        probabilities = self.probabilities
        timesteps = torch.multinomial(probabilities, count, replacement=True)
        return timesteps, (1 / (self.count * probabilities[timesteps])).float()

    def update(self, timesteps: Tensor, losses: Tensor) -> None:
        """Take note of the losses, the oldest of a timestep making room."""
        losses = losses.detach().to(self._history.dtype)
        if self.processes is not None:
            timesteps, losses = self.processes.gather(timesteps), self.processes.gather(losses)
        size = self._history.shape[1]
        same = timesteps[:, None] == timesteps[None, :]
        before = same.tril(-1).sum(1)  # of the same timestep, earlier in the batch
        place = (self._seen[timesteps] + before) % size
        # Two writes to one place would come in any order: of more than fit, only the last are written.
        outdated = same.sum(1) - before > size
        rows = torch.where(outdated, torch.full_like(timesteps, self.count), timesteps)
        self._history.index_put_((rows, place), losses)
        self._seen.index_add_(0, timesteps, torch.ones_like(timesteps))

    def state_dict(self) -> dict[str, Any]:
        """The losses remembered, and how many each timestep has seen."""
        return {"history": self._history[:-1].clone(), "seen": self._seen[:-1].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up."""
        if state["history"].shape != self._history[:-1].shape:
            raise InputError(
                f"timesteps: a history of {tuple(state['history'].shape)}, expected {tuple(self._history[:-1].shape)}"
            )
        self._history[:-1] = state["history"].to(self.device)
        self._seen[:-1] = state["seen"].to(self.device)


def make_timesteps(
    name: Literal["uniform", "loss-second-moment"],
    count: int,
    *,
    device: str | torch.device = "cpu",
    processes: Processes | None = None,
) -> UniformTimesteps:
    """The sampler of a name."""
    if name == "uniform":
        return UniformTimesteps(count, device=device)
    return LossSecondMomentTimesteps(count, device=device, processes=processes)
