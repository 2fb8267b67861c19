"""Frozen weights in bfloat16: what a step sees is what autocast would have made of them, and nothing else changes."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genmix_transforms.generators.frozen import FrozenWeights

CPU = torch.device("cpu")


class Net(nn.Module):
    """A layer of every kind that matters: what autocast casts, what it does not, and one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.linear = nn.Linear(6, 8)
        self.norm = nn.GroupNorm(2, 8)
        self.trained = nn.Linear(8, 16)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False)
        self.requires_grad_(False)
        self.trained.requires_grad_(True)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.trained(self.norm(self.linear(self.table(ids))))
        seen: Tensor = self.up(self.conv(hidden.view(-1, 1, 4, 4)))
        return seen


CAST = {"linear.weight", "linear.bias", "conv.weight", "conv.bias", "up.weight"}


def bf16(on: bool = True) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=on)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().to(memory_format=torch.channels_last)


def frozen_of(net: Net) -> FrozenWeights:
    return FrozenWeights(net, trained=net.trained.parameters())


def step(net: Net) -> list[Tensor]:
    """What a pass says, and the gradients."""
    said = net(torch.arange(5))
    said.float().square().sum().backward()
    gradients = [parameter.grad for parameter in net.trained.parameters()]
    net.zero_grad()
    return [said.detach(), *(gradient for gradient in gradients if gradient is not None)]


def test_a_pass_is_autocasts_bit_for_bit(net: Net) -> None:
    frozen = frozen_of(net)
    with bf16():
        expected = step(net)
        for _ in range(2):
            with frozen.narrow(CPU):
                got = step(net)
            assert len(got) == len(expected) == 3
            assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_within_a_step_the_cast_ones_are_narrow_and_after_it_none(net: Net) -> None:
    before = {name: (value.data_ptr(), value.clone()) for name, value in net.state_dict().items()}
    frozen = frozen_of(net)
    for _ in range(2):
        with bf16(), frozen.narrow(CPU):
            narrow = {name for name, value in net.named_parameters() if value.dtype == torch.bfloat16}
            assert narrow == CAST
            assert net.conv.weight.is_contiguous(memory_format=torch.channels_last)
        for name, value in net.state_dict().items():
            assert value.data_ptr() == before[name][0]
            assert torch.equal(value, before[name][1])


def test_a_step_that_fails_leaves_them_as_they_were(net: Net) -> None:
    with pytest.raises(RuntimeError, match="power cut"), bf16(), frozen_of(net).narrow(CPU):
        raise RuntimeError("power cut")
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


@pytest.mark.parametrize("context", [bf16(on=False), torch.autocast("cpu", dtype=torch.float16)])
def test_without_bfloat16_they_are_left_alone(net: Net, context: torch.autocast) -> None:
    with context, frozen_of(net).narrow(CPU):
        assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_weights_that_are_loaded_before_the_first_step_count(net: Net) -> None:
    frozen = frozen_of(net)
    with torch.no_grad():
        net.linear.weight.fill_(0.5)
    with bf16(), frozen.narrow(CPU):
        assert (net.linear.weight == 0.5).all()


def test_one_that_is_trained_later_stays_as_it_is(net: Net) -> None:
    """An adapter takes no gradient at first."""
    net.trained.requires_grad_(False)
    with bf16(), frozen_of(net).narrow(CPU):
        assert net.trained.weight.dtype == torch.float32


def test_a_weight_of_two_layers_stays_one(net: Net) -> None:
    other = nn.Linear(6, 8).requires_grad_(False)
    other.weight = net.linear.weight
    frozen = FrozenWeights(net, other, trained=())
    with bf16(), frozen.narrow(CPU):
        assert other.weight is net.linear.weight
        assert other.weight.dtype == other.bias.dtype == torch.bfloat16
    assert other.weight.dtype == other.bias.dtype == torch.float32


class Casts(TorchDispatchMode):
    """Counts what is cast to bfloat16, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten._to_copy and (kwargs or {}).get("dtype") == torch.bfloat16:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def test_no_frozen_weight_is_cast_after_the_first_step(net: Net) -> None:
    frozen = frozen_of(net)
    weights = [tuple(value.shape) for name, value in net.named_parameters() if name in CAST]
    counts = []
    for _ in range(2):
        with Casts() as casts, bf16(), frozen.narrow(CPU):
            step(net)
        counts.append([casts.shapes.count(shape) for shape in weights])
    with Casts() as plain, bf16():
        step(net)
    assert [plain.shapes.count(shape) for shape in weights] == counts[0]  # each of them, at every pass
    assert all(itertools.chain(counts[0]))
    assert not any(counts[1])
