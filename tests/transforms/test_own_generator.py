"""The state of GenMix's own generator, in its checkpoints."""

import copy

import pytest
import torch
from torch import nn

from genmix_transforms import GenMix
from genmix_transforms.errors import InputError

SHAPE = (3, 8, 8)


@pytest.fixture
def bank(random_bank):
    return random_bank(12, shape=SHAPE)


def equal(one, other):
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_the_state_dict_continues_a_run(bank, batch):
    """Also from a file, as a part of a model, and into a GenMix that has drawn something else meanwhile."""
    model = nn.ModuleList([GenMix(bank, generator=torch.Generator().manual_seed(0)), nn.Linear(2, 2)])
    sample = batch(shape=SHAPE)
    model[0](*sample)
    checkpoint = copy.deepcopy(model.state_dict())
    assert checkpoint.keys() == {"0.generator_state", "1.weight", "1.bias"}
    assert checkpoint["0.generator_state"].dtype == torch.uint8
    expected = [model[0](*sample) for _ in range(3)]
    again = nn.ModuleList([GenMix(bank, generator=torch.Generator().manual_seed(7)), nn.Linear(2, 2)])
    again[0](*sample)
    again.load_state_dict(checkpoint, strict=True)
    assert all(equal(again[0](*sample), one) for one in expected)


def test_a_state_that_is_missing_or_none_of_this_generators(bank):
    own, plain = GenMix(bank, generator=torch.Generator()), GenMix(bank)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"generator_state\""):
        own.load_state_dict({})
    assert own.load_state_dict({}, strict=False).missing_keys == ["generator_state"]
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"generator_state\""):
        plain.load_state_dict(own.state_dict())
    for wrong in (torch.zeros(3, dtype=torch.uint8), torch.zeros(3)):
        with pytest.raises(RuntimeError, match="GenMix: generator_state is no state of a generator on cpu"):
            own.load_state_dict({"generator_state": wrong})


def test_the_generator_can_be_replaced(bank, batch):
    genmix, sample = GenMix(bank), batch(shape=SHAPE)
    assert genmix.generator is None
    assert genmix.state_dict() == {}
    found = []
    for _ in range(2):
        genmix.generator = torch.Generator().manual_seed(3)
        assert genmix.state_dict().keys() == {"generator_state"}
        found.append(genmix(*sample))
    assert equal(*found)


def test_what_is_no_generator_is_refused(bank):
    genmix = GenMix(bank)
    with pytest.raises(InputError, match="generator must be a torch.Generator, got int"):
        genmix.generator = 3
