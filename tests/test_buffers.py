"""Modules whose tensors are data: a conversion of the model around them changes no number in them."""

import pytest
import torch
from torch import nn

from genmix_transforms.buffers import KeepsDtypes


class Data(KeepsDtypes):
    """Pixels and, beside them, numbers that bfloat16 could not hold."""

    def __init__(self):
        super().__init__()
        self.register_buffer("pixels", torch.arange(5, dtype=torch.uint8), persistent=False)
        self.register_buffer("scale", torch.tensor([1 / 255, 1 + 2**-20]), persistent=False)
        self.register_buffer("nothing", None, persistent=False)


CONVERSIONS = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "double": lambda module: module.double(),
    "to": lambda module: module.to(torch.float16),
    "type": lambda module: module.type(torch.float64),  # converts even integers
}


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_conversion_changes_no_number(name, inside):
    data = Data()
    model = nn.ModuleList([nn.Linear(2, 2), data]) if inside else data
    assert CONVERSIONS[name](model) is model
    assert data.pixels.dtype == torch.uint8
    assert data.pixels.tolist() == [0, 1, 2, 3, 4]
    assert data.scale.dtype == torch.float32
    assert torch.equal(data.scale, torch.tensor([1 / 255, 1 + 2**-20]))
    assert data.nothing is None
    if inside:
        assert model[0].weight.dtype != torch.float32


def test_devices_are_followed_also_with_a_conversion():
    data = Data().to("meta", torch.bfloat16)
    assert (data.scale.device.type, data.scale.dtype) == ("meta", torch.float32)
    assert (data.pixels.device.type, data.pixels.dtype) == ("meta", torch.uint8)


def test_buffers_are_still_buffers():
    data = Data().half()
    assert dict(data.named_buffers()).keys() == {"pixels", "scale"}
    assert data.state_dict() == {}
