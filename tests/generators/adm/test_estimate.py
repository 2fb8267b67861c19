"""What a training takes: bytes that can be counted by hand, and no trace left behind."""

import pytest
import torch
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.estimate import Estimate, measure

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 20, bias=False), nn.Tanh(), nn.Linear(20, 5, bias=False))


def test_bytes_are_those_counted_by_hand() -> None:
    model = network()
    model[0].requires_grad_(False)
    inputs = torch.randn(3, 10, requires_grad=True)
    estimate = measure(model, lambda: model(inputs).sum(), parts=2, device=CPU)
    assert (estimate.weights, estimate.trained) == (300, 100)
    # What Tanh kept, which the last layer keeps too: 3 x 20 numbers.
    assert estimate.activations == 4 * 3 * 20
    # Weights; gradients, two moments and an average of what is trained; activations.
    assert estimate.bytes == 4 * 300 + 16 * 100 + 4 * 60
    assert estimate.average_bytes == 400
    assert estimate.seconds > 0


def test_it_leaves_no_trace() -> None:
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.random.get_rng_state()
    measure(model, lambda: model(torch.randn(3, 10)).sum(), parts=1, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_too_little_memory_is_said_with_the_ways_out() -> None:
    def one_pass() -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(InputError, match="memory is too small for one pass; .*accumulate.*gradient_checkpointing"):
        measure(network(), one_pass, parts=1, device=CPU)


def test_what_is_too_much() -> None:
    estimate = Estimate(weights=100, trained=100, activations=0, seconds=1)  # 2000 bytes, 400 of them the average
    assert not estimate.too_much_for(2200)
    assert estimate.too_much_for(2050)  # not enough to spare
    assert not estimate.too_much_for(2050, average_elsewhere=True)
    assert estimate.too_much_for(1600, average_elsewhere=True)


def test_the_sentence() -> None:
    estimate = Estimate(weights=2**28, trained=2**28, activations=2**30, seconds=0.5)
    text = estimate.text(steps=72_000, average_elsewhere=False)
    assert "268.4 million weights, 268.4 million of them trained; memory about 6.0 GiB" in text
    assert "weights 1.0 GiB, gradients 1.0 GiB, AdamW 2.0 GiB, average 1.0 GiB, activations 1.0 GiB" in text
    assert "72,000 steps take about 10.0 h (0.5 s each in the trial)" in text
    assert "memory about 5.0 GiB" in estimate.text(steps=1, average_elsewhere=True)
    assert "average 1.0 GiB on the CPU" in estimate.text(steps=1, average_elsewhere=True)
    unknown = Estimate(weights=2**18, trained=0, activations=None, seconds=0.5).text(steps=1, average_elsewhere=False)
    assert "memory about 1 MiB" in unknown
    assert "activations not known (gradient checkpointing)" in unknown
