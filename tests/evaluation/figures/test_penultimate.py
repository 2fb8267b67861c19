"""The features before the last layer: whatever the network, the last layer applied to them gives its logits."""

import pytest
import torch
from torch import nn
from torchvision import models

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.classifiers import GreyAsColour, SmallClassifier
from genmix_transforms.evaluation.figures import features


def logits(network, images):
    modes = network.training
    with torch.no_grad():
        found = network.eval()(images)
    network.train(modes)
    return found


def test_small_classifier():
    torch.manual_seed(0)
    network, images = SmallClassifier(channels=1, classes=3), torch.randn(7, 1, 32, 32)
    found = features(network, images, batch_size=3)
    assert found.shape == (7, 192)
    assert found.dtype == torch.float32
    assert torch.allclose(network[-1](found), logits(network, images), atol=1e-5)
    assert network.training


@pytest.mark.parametrize(
    ("name", "width", "last"),
    [
        ("resnet18", 512, "fc"),
        ("mobilenet_v3_small", 1024, "classifier.3"),
        ("shufflenet_v2_x0_5", 1024, "fc"),
    ],
)
def test_networks_of_torchvision(name, width, last):
    torch.manual_seed(0)
    inner = models.get_model(name, weights=None, num_classes=3)
    network, images = GreyAsColour(inner), torch.randn(3, 1, 32, 32)
    found = features(network, images)
    assert found.shape == (3, width)
    assert torch.allclose(inner.get_submodule(last)(found), logits(network, images), atol=1e-5)


def test_vgg16_without_its_memory():
    """Of VGG the last of three linear layers; built small here, for its own has 130 million weights."""
    torch.manual_seed(0)
    network = models.VGG(nn.Sequential(nn.Conv2d(3, 512, 3), nn.ReLU(inplace=True)), num_classes=3, init_weights=False)
    network.classifier[0], network.classifier[3] = nn.Linear(512 * 49, 16), nn.Linear(16, 12)
    network.classifier[6] = nn.Linear(12, 3)
    images = torch.randn(4, 3, 16, 16)
    found = features(network, images)
    assert found.shape == (4, 12)
    assert torch.allclose(network.classifier[6](found), logits(network, images), atol=1e-5)


def test_a_last_convolution_gives_the_mean_of_its_map():
    network = models.squeezenet1_1(num_classes=3)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().features(images).mean(dim=(2, 3))
    assert torch.allclose(features(network, images), expected, atol=1e-5)


def test_efficientnet_lite0():
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    network = lite.EfficientNet.from_name("efficientnet-lite0", num_classes=3)
    images = torch.randn(2, 3, 64, 64)
    found = features(network, images)
    assert found.shape == (2, 1280)
    assert torch.allclose(network._fc(found), logits(network, images), atol=1e-4)


def test_frozen_parts_stay_in_eval_and_no_hook_is_left():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    network[2].eval()
    images = torch.randn(5, 1, 4, 4)
    assert torch.equal(features(network, images), features(network, images))  # no dropout
    assert [module.training for module in network] == [True, True, False, True]
    assert all(not module._forward_pre_hooks for module in network.modules())


def test_the_network_is_as_before_after_an_error():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).train()
    with pytest.raises(RuntimeError):
        features(network, torch.randn(5, 1, 5, 5))
    assert network.training
    assert not network[1]._forward_pre_hooks


def test_what_cannot_work():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    for images in (torch.zeros(0, 1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"images must be float \(N, C, H, W\)"):
            features(network, images)
    with pytest.raises(InputError, match="batch_size must be a whole number"):
        features(network, torch.zeros(2, 1, 4, 4), batch_size=0)
    with pytest.raises(InputError, match="no linear layer and no convolution"):
        features(nn.Flatten(), torch.zeros(2, 1, 4, 4))
