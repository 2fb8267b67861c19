"""The device that is not there: it computes what the CPU does, and catches every way to wait for it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.pretend_cuda import DEVICE, PretendCuda, PretendTensor


@pytest.fixture
def device():
    with PretendCuda() as entered:
        yield entered


WAITS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0, 0]),
    "a branch": lambda x: bool(x.sum() > 0),
    "a comparison of all": lambda x: torch.equal(x, x + 1),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to, with a dtype": lambda x: x.to(torch.device("cpu"), torch.float64),
    "to, by name": lambda x: x.to(device="cpu"),
    "to, like another": lambda x: x.to(torch.zeros(1)),
    "a copy into the host's memory": lambda x: torch.empty(4, 3).copy_(x),
    "one that could only go on if it were pinned": lambda x: torch.empty(4, 3).copy_(x, non_blocking=True),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "a mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: (x > 0).long().flatten().bincount(),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.int64, device=DEVICE), 0),
    "one draw": lambda x: torch.multinomial(x.abs(), 1),
    "an index on the host": lambda x: x[torch.tensor([0, 1])],
    "an index in a list": lambda x: x[[0, 1]],
    "numbers": lambda x: torch.tensor([1.0, 2.0], device=DEVICE),
    "numbers like others": lambda x: x.new_tensor([1.0], device=DEVICE),
    "a copy to the device": lambda x: torch.zeros(3).to(DEVICE),
    "a copy into the device's memory": lambda x: x.copy_(torch.zeros(4, 3)),
    "cuda": lambda x: torch.zeros(3).cuda(),
    "synchronize": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_waits_is_found(device, what):
    values = torch.randn(4, 3, device=DEVICE)
    if what != "numpy":  # which CUDA's tensors do not have, waiting or not
        WAITS[what](values)
    with (
        pytest.raises(AssertionError, match="waits for the device|on the host beside the device's"),
        device.no_waiting(),
    ):
        WAITS[what](values)


def test_what_does_not_wait_is_let_through(device):
    values = torch.randn(4, 3, device="cuda")
    pinned = torch.empty(4, 3, pin_memory=True)
    with device.no_waiting():
        pinned.copy_(values, non_blocking=True)
        sent = torch.ones(4, 3).to("cuda", non_blocking=True) + torch.ones(3).pin_memory().cuda(non_blocking=True)
        values[values > 0] = 0.0
        values += 2 * sent.float() + torch.tensor(1.0)  # a number on the host is a number
        torch.multinomial(values.abs(), 2, replacement=True)
        values.index_select(0, torch.arange(2, device=values.device)).sum(0, keepdim=True).expand(2, -1)
    assert pinned.is_cpu
    assert values.device == sent.device == DEVICE
    assert values.is_cuda
    assert (values.cpu() <= 5).all()


def test_tensors_of_two_devices_do_not_mix(device):
    values = torch.ones(2, 3, device="cuda")
    for wrong in (
        lambda: values + torch.ones(3),
        lambda: values @ torch.ones(3, 2),
        lambda: torch.cat([values, torch.ones(2, 3)]),
        lambda: values.index_select(0, torch.tensor([0])),
        lambda: torch.where(torch.ones(3) > 0, values, 0.0),
        lambda: nn.Linear(3, 1)(values),
    ):
        with pytest.raises(AssertionError, match="on the host beside the device's"):
            wrong()


def test_uint16_is_not_gathered(device):
    pixels = torch.arange(4, dtype=torch.int32, device="cuda").to(torch.uint16)
    for gather in (lambda: pixels[torch.tensor([0], device="cuda")], lambda: pixels.flip(0)):
        with pytest.raises(AssertionError, match="may have no CUDA kernel for torch.uint16"):
            gather()
    assert pixels.float().tolist() == [0, 1, 2, 3]


class Twice(torch.autograd.Function):
    """Its backward pass asks where it is."""

    @staticmethod
    def forward(ctx, values):
        return 2 * values

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.full((), 2.0, device=gradient.device)


def train(where, precision):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    network.to(device=where, memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, fused=True)
    images, labels = torch.randn(8, 1, 8, 8).to(where), (torch.arange(8) % 3).to(where)
    for _ in range(2):
        with PretendCuda.entered.no_waiting():
            with torch.autocast(where.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits = network(Twice.apply(images))
            assert logits.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), labels).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 0.5)
    assert all(parameter.device == where for parameter in network.parameters())
    return {name: value.cpu() for name, value in average.state_dict().items()}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_training_ends_as_on_the_cpu(device, precision):
    expected, found = (train(where, precision) for where in (torch.device("cpu"), DEVICE))
    assert device.operations > 100
    for name, value in expected.items():
        assert type(found[name]) is torch.Tensor
        assert torch.allclose(found[name], value, atol=1e-6), name


def test_modules_and_their_copies_are_where_they_were_sent(device):
    module = nn.Linear(2, 2).to("cuda")
    other = copy.deepcopy(module).requires_grad_(False)
    assert isinstance(other.weight, PretendTensor)
    assert isinstance(other.weight, nn.Parameter)
    other.weight.zero_()
    assert module.weight.abs().sum() > 0
    module.load_state_dict({name: torch.zeros_like(value.cpu()) for name, value in other.state_dict().items()})
    assert module.weight.device == DEVICE
    assert type(module.cpu().weight) is nn.Parameter
    assert module.weight.abs().sum() == 0


def test_what_it_stands_in_for_is_put_back():
    before = torch.autocast, torch.cuda.synchronize
    device = PretendCuda()
    with pytest.raises(ZeroDivisionError), device:
        1 / 0  # noqa: B018
    assert (torch.autocast, torch.cuda.synchronize) == before
    assert torch.zeros(1).device.type == "cpu"
