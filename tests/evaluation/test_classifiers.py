"""The classifiers: their size, their seeds, and what they refuse."""

import pytest
import torch
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.classifiers import GreyAsColour, build_classifier


def build(name="small", *, channels=1, classes=3, size=(32, 32), seed=0):
    return build_classifier(name, channels=channels, classes=classes, size=size, seed=seed)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (64, 64), (128, 128), (48, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_one_takes_any_size(size, channels):
    network = build(channels=channels, classes=5, size=size)
    assert network(torch.zeros(2, channels, *size)).shape == (2, 5)


def test_the_small_one_is_small():
    assert 100_000 < sum(parameter.numel() for parameter in build().parameters()) < 400_000


def test_every_weight_of_the_small_one_is_trained():
    network = build()
    nn.functional.cross_entropy(network(torch.randn(8, 1, 32, 32)), torch.arange(8) % 3).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", ["small", "squeezenet1_1"])
def test_the_seed_alone_makes_the_weights(name):
    torch.manual_seed(1)
    one = build(name, seed=7, size=(64, 64)).state_dict()
    torch.manual_seed(2)
    same = build(name, seed=7, size=(64, 64)).state_dict()
    other = build(name, seed=8, size=(64, 64)).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_the_callers_random_numbers_stay():
    before = torch.random.get_rng_state()
    build("squeezenet1_1", size=(64, 64))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_torchvision_network_sees_grey_images_as_colour_ones():
    grey, colour = (build("resnet18", channels=channels, seed=3).eval() for channels in (1, 3))
    assert isinstance(grey, GreyAsColour)
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(grey(images), colour(images.repeat(1, 3, 1, 1)))
    assert grey(images).shape == (2, 3)


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_networks_come_ready_to_train(name):
    network = build(name)
    assert network.training
    assert all(module.training for module in network.modules())
    statistics = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert statistics.num_batches_tracked == 0  # trying them out has left nothing behind


@pytest.mark.parametrize("name", ["resnet19", "googlenet", "inception_v3", "fcn_resnet50", ""])
def test_unknown_networks(name):
    with pytest.raises(InputError, match=f"no classifier '{name}'; there is 'small', .*resnet18"):
        build(name)


def test_a_network_for_one_size_only():
    with pytest.raises(InputError, match=r"'vit_b_32' cannot take images of 1 x 32 x 32 \(.*resize the images"):
        build("vit_b_32")


def test_a_network_that_pools_too_often():
    with pytest.raises(InputError, match="'alexnet' cannot take images of 1 x 32 x 32"):
        build("alexnet")


def test_patches_too_small_for_the_small_one():
    with pytest.raises(InputError, match="'small' takes patches of at least 16 pixels, got 16x12"):
        build(size=(16, 12))


def test_channels_that_torchvision_does_not_know():
    assert build(channels=5)(torch.zeros(2, 5, 32, 32)).shape == (2, 3)
    with pytest.raises(InputError, match="'resnet18' takes images of 1 or 3 channels, got 5; 'small' takes any number"):
        build("resnet18", channels=5)


def test_one_class():
    with pytest.raises(InputError, match="at least 2 classes, got 1"):
        build(classes=1)
