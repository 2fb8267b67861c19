"""Timestep sampling: uniform, and by the losses' second moment, against the original's rule written as a plain loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.timesteps import LossSecondMomentTimesteps, UniformTimesteps
from genmix_transforms.generators.state import pack, unpack


class PlainHistory:
    """The rule, one loss at a time: the last losses of each timestep in a list."""

    def __init__(self, count: int, size: int) -> None:
        self.losses: list[list[float]] = [[] for _ in range(count)]
        self.size = size

    def update(self, timesteps: list[int], losses: list[float]) -> None:
        for timestep, loss in zip(timesteps, losses, strict=True):
            self.losses[timestep] = [*self.losses[timestep], loss][-self.size :]

    def probabilities(self, uniform_share: float) -> np.ndarray:
        count = len(self.losses)
        if any(len(losses) < self.size for losses in self.losses):
            return np.full(count, 1 / count)
        roots = np.sqrt([np.mean(np.square(losses)) for losses in self.losses])
        return roots / roots.sum() * (1 - uniform_share) + uniform_share / count


def test_uniform_covers_all_timesteps_alike() -> None:
    sampler = UniformTimesteps(20)
    torch.manual_seed(0)
    timesteps, weights = sampler.draw(20_000)
    counts = torch.bincount(timesteps, minlength=20)
    assert len(counts) == 20
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    assert torch.equal(weights, torch.ones(20_000))
    sampler.update(timesteps, weights)
    assert sampler.state_dict() == {}


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10)), min_size=1, max_size=30), min_size=1, max_size=6)
)
def test_the_history_is_that_of_the_plain_rule(batches: list[list[tuple[int, float]]]) -> None:
    sampler, plain = LossSecondMomentTimesteps(4, history=3), PlainHistory(4, 3)
    for batch in batches:
        timesteps, losses = [t for t, _ in batch], [loss for _, loss in batch]
        sampler.update(torch.tensor(timesteps), torch.tensor(losses, dtype=torch.float64))
        plain.update(timesteps, losses)
        expected = plain.probabilities(0.001)
        if np.isfinite(expected).all():
            assert np.allclose(sampler.probabilities.numpy(), expected, atol=1e-12)
        else:  # all losses zero: nothing to go by
            assert torch.equal(sampler.probabilities, torch.full((4,), 0.25, dtype=torch.float64))


def warmed() -> LossSecondMomentTimesteps:
    sampler = LossSecondMomentTimesteps(5, history=2, uniform_share=0.1)
    for _ in range(2):
        sampler.update(torch.arange(5), torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]))
    return sampler


def test_large_losses_are_drawn_more_often_and_weigh_less() -> None:
    sampler = warmed()
    expected = torch.tensor([0.0, 1, 2, 3, 4], dtype=torch.float64) / 10 * 0.9 + 0.02
    assert torch.allclose(sampler.probabilities, expected)
    torch.manual_seed(0)
    timesteps, weights = sampler.draw(50_000)
    shares = torch.bincount(timesteps, minlength=5) / 50_000
    assert torch.allclose(shares.double(), expected, atol=0.01)
    assert torch.allclose(weights.double(), 1 / (5 * expected[timesteps]), rtol=1e-6)
    values = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0])
    assert (weights * values[timesteps]).mean().item() == pytest.approx(values.mean().item(), rel=0.05)  # unbiased


def test_uniform_until_every_timestep_has_its_history() -> None:
    sampler = LossSecondMomentTimesteps(3, history=2)
    sampler.update(torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([9.0, 9, 9, 1, 1, 1]))
    assert torch.allclose(sampler.probabilities, torch.full((3,), 1 / 3, dtype=torch.float64))
    _, weights = sampler.draw(7)
    assert torch.allclose(weights, torch.ones(7))


def test_its_state_goes_through_a_checkpoint() -> None:
    first, second = warmed(), LossSecondMomentTimesteps(5, history=2, uniform_share=0.1)
    second.load_state_dict(unpack(*pack(first.state_dict())))
    for sampler in (first, second):
        sampler.update(torch.tensor([3, 3, 1]), torch.tensor([7.0, 8.0, 9.0]))
    assert torch.equal(first.probabilities, second.probabilities)
    with pytest.raises(InputError, match=r"a history of \(5, 2\), expected \(6, 2\)"):
        LossSecondMomentTimesteps(6, history=2).load_state_dict(first.state_dict())


def test_two_processes_learn_from_each_others_losses(two_processes: Callable[[str], list[dict[str, Any]]]) -> None:
    for found in two_processes("loss_second_moment"):
        assert found["shared"] == found["alone"]
        assert torch.tensor(found["shared"]).std() > 0.01
