"""Pre-training without labels: the loss written out, what a seed decides, and that something is learned."""

import math
from dataclasses import replace

import pytest
import torch

from genmix_transforms.data import LesionPhantom
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.evaluation import pretrain_classifier
from genmix_transforms.evaluation.classifiers import build_classifier
from genmix_transforms.evaluation.self_supervised import PretrainingSettings, contrastive_loss, view

QUICK = {"steps": 3, "batch_size": 8, "progress": False}


def test_the_loss_written_out():
    """Chen et al. (arXiv 2002.05709), Eq. (1), pair by pair, in float64."""
    projected = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    unit = projected.double() / projected.double().norm(dim=1, keepdim=True)
    total = 0.0
    for one in range(8):
        other = (one + 4) % 8
        similar = {k: math.exp(float(unit[one] @ unit[k]) / 0.3) for k in range(8) if k != one}
        total -= math.log(similar[other] / sum(similar.values()))
    assert contrastive_loss(projected, temperature=0.3).item() == pytest.approx(total / 8, rel=1e-5)


def test_a_view_is_another_image_of_the_same_shape():
    images = torch.randn(6, 3, 20, 16)
    torch.manual_seed(0)
    one = view(images, PretrainingSettings())
    assert one.shape == images.shape
    assert not torch.equal(one, view(images, PretrainingSettings()))
    # The grey levels of an image are changed alike in all channels, and nothing else where the crop is all of it.
    flat = view(torch.ones(4, 3, 20, 16), PretrainingSettings(grey_levels=0.5))
    assert all(len(image.round(decimals=4).unique()) == 1 for image in flat)
    assert len(flat[:, 0, 0, 0].round(decimals=4).unique()) == 4


def test_a_seed_gives_the_same_weights(shapes, tmp_path):
    pool = shapes.patches(20)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = pretrain_classifier(pool, out=tmp_path / "a.safetensors", seed=3, **QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    pretrain_classifier(pool, out=tmp_path / "b.safetensors", seed=3, **QUICK)
    other = pretrain_classifier(pool, out=tmp_path / "c.safetensors", seed=4, **QUICK)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert not torch.equal(first.tensors["0.weight"], other.tensors["0.weight"])


def test_labels_are_not_looked_at(shapes, tmp_path):
    pool = shapes.patches(20)
    blind = PatchDataset(images=pool.images, labels=torch.zeros(20, dtype=torch.int64), classes=("unlabelled",))
    one, other = (
        pretrain_classifier(some, out=tmp_path / f"{name}.safetensors", **QUICK)
        for name, some in (("with", pool), ("without", blind))
    )
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def probe(network, train, test):
    """Balanced accuracy of a linear classifier of the features, by ridge regression to the labels."""
    network.network[-1] = torch.nn.Identity()
    with torch.no_grad():
        fitted, tested = (network.eval()(part.images.float() / 255).double() for part in (train, test))
    mean, std = fitted.mean(dim=0), fitted.std(dim=0) + 1e-9
    fitted, tested = (torch.cat([(f - mean) / std, torch.ones(len(f), 1).double()], 1) for f in (fitted, tested))
    wanted = torch.eye(3).double()[train.labels]
    weights = torch.linalg.solve(fitted.T @ fitted + 10 * torch.eye(fitted.shape[1]).double(), fitted.T @ wanted)
    right = (tested @ weights).argmax(dim=1) == test.labels
    return sum(right[test.labels == label].double().mean().item() for label in range(3)) / 3


def test_a_linear_probe_beats_random_features(tmp_path):
    """On lesions of the phantom: features that were learned without labels tell classes apart, random ones less."""
    counts = {"train": (30, 30, 30), "val": (1, 1, 1), "test": (30, 30, 30)}
    train, _, test = LesionPhantom(size=20, **counts, seed=2).dataset().split()
    file = tmp_path / "small.safetensors"
    learned = pretrain_classifier(train, out=file, steps=50, batch_size=64, learning_rate=4e-3, progress=False)
    pretrained = build_classifier("small", channels=1, classes=3, size=(20, 20), seed=0, weights=str(file))
    score = probe(pretrained, train, test)
    for seed in range(2):
        random = build_classifier("small", channels=1, classes=3, size=(20, 20), seed=seed)
        wrapped = type(pretrained)(random, mean=learned.mean, std=learned.std)
        assert score > probe(wrapped, train, test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "pretrain_classifier: steps must be a whole number, from 1"),
        ({"batch_size": 1}, "batch_size must be a whole number, from 2"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"stepps": 1}, "no such option: stepps; did you mean steps"),
        ({"seed": -1}, "seed"),
        ({"out": "weights.pth"}, r"weights.pth: weights are saved as .safetensors"),
    ],
)
def test_arguments_that_cannot_be(shapes, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        pretrain_classifier(shapes.patches(20), **{"out": tmp_path / "a.safetensors", **QUICK, **options})
    assert not list(tmp_path.iterdir())


def test_pools_that_cannot_be(shapes, tmp_path):
    with pytest.raises(InputError, match="at least 2 images of at least 16 pixels, got 1 of 16x16"):
        pretrain_classifier(shapes.patches(1), out=tmp_path / "a.safetensors", **QUICK)
    with pytest.raises(InputError, match="got 20 of 12x12"):
        pretrain_classifier(shapes.patches(20, size=12), out=tmp_path / "a.safetensors", **QUICK)
    pool = shapes.patches(20)
    volumes = replace(pool, images=pool.images[:, :, None].expand(-1, -1, 16, -1, -1))
    with pytest.raises(InputError, match="holds volumes of 1 x 16 x 16 x 16, and the classifiers here take"):
        pretrain_classifier(volumes, out=tmp_path / "a.safetensors", **QUICK)
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(OverwriteError, match="is there already"):
        pretrain_classifier(shapes.patches(20), out=tmp_path / "a.safetensors", **QUICK)
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_a_stopped_training_leaves_no_file(shapes, tmp_path, monkeypatch):
    def stopped(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("genmix_transforms.evaluation.self_supervised.contrastive_loss", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrain_classifier(shapes.patches(20), out=tmp_path / "deep" / "a.safetensors", **QUICK)
    assert not list(tmp_path.iterdir())
