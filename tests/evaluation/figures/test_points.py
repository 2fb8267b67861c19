"""Images as points: how many of each kind, of which class, and that they are the network's own features."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.classifiers import GreyAsColour, SmallClassifier
from genmix_transforms.evaluation.figures import FeaturePoints, feature_points, features
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.transforms import GenMix

PLAIN = Normalisation(mean=(0.0,), std=(1.0,))
SEES_PIXELS = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
"""Its features are the pixels themselves."""


def test_real_images_alone(shapes):
    train = shapes.patches(30)
    points = feature_points(SEES_PIXELS, train, normalisation=PLAIN)
    assert len(points) == 30
    assert set(points.kinds.tolist()) == {"real"}
    assert points.labels.tolist() == train.labels.tolist()
    assert np.allclose(points.features, train.images.flatten(1) / 255, atol=1e-6)


def test_all_three_kinds(shapes):
    train, bank = shapes.patches(30), shapes.bank(20)
    points = feature_points(SEES_PIXELS, train, normalisation=PLAIN, bank=bank, genmix=GenMix(bank, p=0.0))
    kinds = points.kinds.tolist()
    assert kinds == ["real"] * 30 + ["synthetic"] * 20 + ["genmix"] * 30
    assert np.allclose(points.features[30:50], bank.images.flatten(1) / 255, atol=1e-6)
    assert points.labels[30:50].tolist() == bank.labels.tolist()
    # with p=0 a mixed image is its real one
    assert np.allclose(points.features[50:], points.features[:30], atol=1e-6)
    assert points.labels[50:].tolist() == points.labels[:30].tolist()


def test_a_mixed_image_counts_for_the_larger_share(shapes):
    train, bank = shapes.patches(60), shapes.bank(60)
    points = feature_points(SEES_PIXELS, train, normalisation=PLAIN, genmix=GenMix(bank, alpha=1e9, pairing="other"))
    assert (points.labels[60:] != points.labels[:60]).all()


def test_the_network_s_own_normalisation(shapes):
    train, bank = shapes.patches(12), shapes.bank(12)
    norm = Normalisation(mean=(0.4,), std=(0.2,))
    genmix = GenMix(bank, p=0.0, mean=(0.1,), std=(0.9,))  # another one
    points = feature_points(SEES_PIXELS, train, normalisation=norm, bank=bank, genmix=genmix)
    expected = (train.images.flatten(1) / 255 - 0.4) / 0.2
    assert np.allclose(points.features[:12], expected, atol=1e-5)
    assert np.allclose(points.features[24:], expected, atol=1e-5)


def test_at_most_so_many_of_each(shapes):
    train, bank = shapes.patches(90), shapes.bank(80)
    points = feature_points(SEES_PIXELS, train, normalisation=PLAIN, bank=bank, genmix=GenMix(bank), most=15)
    assert {kind: points.kinds.tolist().count(kind) for kind in ("real", "synthetic", "genmix")} == {
        "real": 15, "synthetic": 15, "genmix": 15,
    }  # fmt: skip
    again = feature_points(SEES_PIXELS, train, normalisation=PLAIN, bank=bank, genmix=GenMix(bank), most=15)
    other = feature_points(SEES_PIXELS, train, normalisation=PLAIN, bank=bank, genmix=GenMix(bank), most=15, seed=1)
    assert np.array_equal(points.features, again.features)
    assert not np.array_equal(points.features, other.features)


def test_a_bank_with_its_classes_in_another_order(shapes):
    train, bank = shapes.patches(9), shapes.bank(9)
    swapped = bank.with_classes(bank.classes[::-1])
    one, other = (feature_points(SEES_PIXELS, train, normalisation=PLAIN, bank=some) for some in (bank, swapped))
    assert sorted(one.labels[9:].tolist()) == sorted(other.labels[9:].tolist())
    pairs = [
        {(row.tobytes(), label) for row, label in zip(p.features[9:], p.labels[9:], strict=True)} for p in (one, other)
    ]
    assert pairs[0] == pairs[1]


def test_points_that_do_not_fit_together():
    for arguments, message in (
        ({"features": np.zeros(3), "labels": [0], "kinds": ["real"]}, r"features \(N, D\), labels \(N,\) and kinds"),
        ({"features": np.zeros((2, 3)), "labels": [0], "kinds": ["real"]}, r"got \(2, 3\), \(1,\) and \(1,\)"),
        ({"features": [[np.nan]], "labels": [0], "kinds": ["real"]}, "not finite"),
        ({"features": [[0.0]], "labels": [0.5], "kinds": ["real"]}, "class numbers from 0 on, got float64"),
        ({"features": [[0.0]], "labels": [-1], "kinds": ["real"]}, "class numbers from 0 on"),
        ({"features": [[0.0]], "labels": [0], "kinds": ["fake"]}, "no kind 'fake'; there are real, synthetic, genmix"),
    ):
        with pytest.raises(InputError, match=message):
            FeaturePoints(**arguments)


def test_images_that_do_not_fit_together(shapes):
    train, bank, small = shapes.patches(9), shapes.bank(9), shapes.bank(9, size=24)
    swapped = GenMix(bank.with_classes(bank.classes[::-1]))
    for options, message in (
        ({"bank": small}, "the bank's 1 x 24 x 24"),
        ({"genmix": GenMix(small)}, "genmix: the patches are 1 x 16 x 16 .*the bank's 1 x 24 x 24"),
        ({"genmix": swapped}, r"build GenMix with bank\.with_classes"),
        ({"most": 0}, "most must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            feature_points(SEES_PIXELS, train, normalisation=PLAIN, **options)
    with pytest.raises(InputError, match="no real images"):
        feature_points(SEES_PIXELS, train.subset(torch.arange(0)), normalisation=PLAIN)


# The features before the last layer: whatever the network, the last layer applied to them gives its logits


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
