"""The mean of all processes' gradients: in buckets, meanwhile and afterward (two real gloo processes), and alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from genmix_transforms.generators import gradients
from genmix_transforms.generators.gradients import ON_THEIR_WAY, average_gradients
from genmix_transforms.generators.processes import Processes


def test_buckets_of_any_size_meanwhile_and_afterward_give_the_mean(
    two_processes: Callable[[str], list[dict[str, Any]]],
) -> None:
    for found in two_processes("buckets"):
        assert found["same"]
        assert found["meanwhile"] > 0
        assert found["afterward"] == 0


@dataclass(frozen=True)
class Doubling(Processes):
    """Processes whose mean is twice what this one says; it notes what is under way."""

    said: list[str] = field(default_factory=list)

    def start_average(self, gradients: Sequence[Tensor]) -> Callable[[], None]:
        self.said.append(f"{len(gradients)} sent")

        def finish() -> None:
            self.said.append(f"{len(gradients)} back")
            for gradient in gradients:
                gradient.mul_(2)

        return finish


@pytest.fixture
def processes() -> Doubling:
    return Doubling(0, 2, torch.device("cpu"))


def layers(number: int) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(number)))


def test_the_backward_pass_sends_from_the_last_to_the_first_and_the_step_waits(
    processes: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 2 * 64)
    network = layers(5)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    average_gradients(optimiser, processes)
    for step in range(3):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        processes.said.clear()
        (alone,) = torch.autograd.grad(network(torch.ones(1, 4)).sum(), [network[0].weight])
        assert processes.said == []  # a gradient that is only asked for is no optimizer's
        network(torch.ones(1, 4)).sum().backward()
        # Which parameters take gradients is known after the first.
        assert processes.said == (["2 sent", "2 sent", "1 sent"] if step else [])
        optimiser.step()
        assert processes.said[-3:] == ["2 back", "2 back", "1 back"]
        assert len(processes.said) == 6
        assert torch.allclose(network[0].weight, before[0] - 2 * alone)
        optimiser.zero_grad()


def test_so_many_are_on_their_way_and_no_more(processes: Doubling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 1)
    network = layers(3 * ON_THEIR_WAY)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    average_gradients(optimiser, processes)
    for _ in range(2):
        processes.said.clear()
        network(torch.ones(1, 4)).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        under_way = [said.split()[1] for said in processes.said]
        most = max(under_way[:end].count("sent") - under_way[:end].count("back") for end in range(len(under_way) + 1))
        assert most == ON_THEIR_WAY + 1
        assert under_way.count("sent") == under_way.count("back") == len(network)


def test_who_takes_a_gradient_may_change_from_step_to_step(processes: Doubling) -> None:
    """One bucket; a layer that grows later, or that no image of the batch asks for."""
    network = layers(2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    average_gradients(optimiser, processes)
    said = {
        (True, False): ["1 sent", "1 back"],  # the first step; after it, the same
        (True, True): ["1 sent", "1 sent", "1 back", "1 back"],  # one more than was expected
        (False, False): [],
    }
    for asked in ((True, False), (True, False), (True, True), (False, False), (True, False)):
        processes.said.clear()
        gradients_alone = []
        for layer, wanted in zip(network, asked, strict=True):
            if wanted:
                gradients_alone.append(torch.autograd.grad(layer(torch.ones(1, 4)).sum(), layer.weight)[0])
        if any(asked):
            sum(
                layer(torch.ones(1, 4)).sum() for layer, wanted in zip(network, asked, strict=True) if wanted
            ).backward()
        optimiser.step()
        got = [layer.weight.grad for layer in network if layer.weight.grad is not None]
        assert all(torch.equal(one, 2 * other) for one, other in zip(got, gradients_alone, strict=True))
        assert processes.said == said[asked]
        optimiser.zero_grad()


def test_two_backward_passes_a_step(processes: Doubling) -> None:
    network = layers(1)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    average_gradients(optimiser, processes)
    network(torch.ones(1, 4)).sum().backward()
    with pytest.raises(RuntimeError, match="came twice before the optimizer's step.*accumulate in its settings"):
        network(torch.ones(1, 4)).sum().backward()
    network = layers(1)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    average_gradients(optimiser, processes, meanwhile=False)
    for _ in range(2):
        network(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    assert network[0].weight.grad.tolist() == [[4.0] * 4] * 4
