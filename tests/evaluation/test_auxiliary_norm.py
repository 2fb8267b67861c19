"""Auxiliary batch normalization: held against torch's own, on the real and on the synthetic images apart."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.auxiliary_norm import AuxiliaryNorms, check_norms
from genmix_transforms.evaluation.classifiers import Pretrained


def network(channels=3):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(1, channels, 3), norm, nn.ReLU())


def close(one, other):
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_each_kind_has_torchs_own_normalization_of_its_own_images():
    ours, real_alone = network(), network()
    fake_alone = deepcopy(real_alone)
    norms, images = AuxiliaryNorms(ours), torch.randn(7, 1, 6, 6) * 3 + 1
    synthetic = torch.tensor([1, 0, 0, 1, 0, 1, 0], dtype=torch.bool)
    for _ in range(3):
        norms.synthetic = synthetic
        out = ours(images)
        real, fake = real_alone(images[~synthetic]), fake_alone(images[synthetic])
        assert close(out[~synthetic], real)
        assert close(out[synthetic], fake)
    (out.square().sum()).backward()
    (real.square().sum() + fake.square().sum()).backward()
    assert close(ours[1].main.weight.grad, real_alone[1].weight.grad)
    assert close(ours[1].auxiliary.bias.grad, fake_alone[1].bias.grad)
    assert close(ours[0].weight.grad, real_alone[0].weight.grad + fake_alone[0].weight.grad)
    # Running statistics too: the main ones are those of a network that saw the real images only.
    tested, alone = norms.removed().eval(), real_alone.eval()
    assert isinstance(tested[1], nn.BatchNorm2d)
    assert set(tested.state_dict()) == set(alone.state_dict())
    assert all(
        close(tested.state_dict()[name], tensor) for name, tensor in alone.state_dict().items() if "num" not in name
    )
    assert close(tested(images), alone(images))


@pytest.mark.parametrize("all_synthetic", [True, False])
def test_a_batch_of_one_kind_leaves_the_others_statistics(all_synthetic):
    ours = network()
    norms = AuxiliaryNorms(ours)
    kept, moved = (ours[1].main, ours[1].auxiliary) if all_synthetic else (ours[1].auxiliary, ours[1].main)
    norms.synthetic = torch.full((4,), all_synthetic)
    ours(torch.randn(4, 1, 6, 6) + 5).sum().backward()
    assert kept.running_mean.tolist() == [0.0] * 3
    assert kept.running_var.tolist() == [1.0] * 3
    assert kept.num_batches_tracked == 0
    assert all(value != 0 for value in moved.running_mean.tolist())
    assert all(torch.isfinite(parameter.grad).all() for parameter in ours.parameters() if parameter.grad is not None)


def test_without_a_word_and_in_evaluation_it_is_the_main_one():
    plain, ours = network(), network()
    norms, images = AuxiliaryNorms(ours), torch.randn(4, 1, 6, 6)
    assert torch.equal(ours(images), plain(images))
    norms.synthetic = torch.ones(4, dtype=torch.bool)
    assert torch.equal(ours.eval()(images), plain.eval()(images))


def test_networks_that_cannot_have_it():
    with pytest.raises(InputError, match="aux_norm: this classifier has no batch normalization"):
        check_norms(nn.Sequential(nn.Conv2d(1, 2, 3)))
    frozen = Pretrained(network(), mean=(0.5,), std=(0.5,)).train()
    with pytest.raises(InputError, match="keeps the statistics of its pre-training"):
        AuxiliaryNorms(frozen)
