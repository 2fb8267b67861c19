"""Weights that have seen test images, labels or not. (What a bank's generator has seen: test_checks.py.)"""

import json
from dataclasses import replace

import pytest
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import evaluate, pretrain_classifier
from genmix_transforms.evaluation.leakage import check_weights_unseen, doubts_of_weights
from genmix_transforms.evaluation.protocol import Protocol


def pretrained(tmp_path, *parts):
    """Weights of a pool of these images, without their labels and in another order."""
    images = torch.cat([part.images for part in parts]).flip(0)
    pool = PatchDataset(images=images, labels=torch.zeros(len(images), dtype=torch.int64), classes=("unlabelled",))
    file = tmp_path / "small.safetensors"
    pretrain_classifier(pool, out=file, steps=1, batch_size=8, progress=False)
    return Protocol(steps=3, batch_size=8, validate_every=3, weights=str(file))


def test_a_pool_with_test_images_is_refused_before_any_work(splits, tmp_path):
    train, _, test = splits
    protocol = pretrained(tmp_path, train, test.subset(torch.arange(7)))
    with pytest.raises(InputError, match=r"pre-trained on 7 of the 60 test images, labels or not.*same --split"):
        check_weights_unseen(protocol, splits)
    with pytest.raises(InputError, match="pre-trained on 7 of the 60 test images"):
        evaluate(splits, arms=("baseline",), protocol=protocol, out=tmp_path / "results", device="cpu")
    assert not (tmp_path / "results").exists()


def test_a_pool_with_validation_images_is_said(splits, tmp_path):
    protocol = pretrained(tmp_path, *splits[:2])
    (doubt,) = doubts_of_weights(protocol, splits)
    assert "pre-trained on 45 of the validation images" in doubt


def test_a_sound_pool(splits, shapes, tmp_path):
    protocol = pretrained(tmp_path, splits[0], shapes.patches(20, seed=77))
    check_weights_unseen(protocol, splits)
    assert doubts_of_weights(protocol, splits) == ()
    results = evaluate(splits, arms=("baseline",), protocol=protocol, seeds=1, device="cpu", progress=False)
    # No path in what is published.
    assert results.protocol["weights"].startswith("sha256:")
    assert doubts_of_weights(Protocol(), splits) == ()


def test_of_the_arm_that_starts_from_a_pool_likewise(splits, tmp_path):
    train, _, test = splits
    sound = replace(pretrained(tmp_path, *splits[:2]), weights=None)
    protocol = replace(sound, pool_weights=str(tmp_path / "small.safetensors"))
    with pytest.warns(UserWarning, match="pre-trained on 45 of the validation images"):
        results = evaluate(splits, arms=("baseline", "pool"), protocol=protocol, seeds=1, device="cpu", progress=False)
    # No path in what is published.
    assert str(tmp_path) not in json.dumps(results.to_dict())
    (tmp_path / "small.safetensors").unlink()
    pretrained(tmp_path, train, test.subset(torch.arange(7)))
    with pytest.raises(InputError, match=r"pre-trained on 7 of the 60 test images"):
        evaluate(splits, arms=("baseline", "pool"), protocol=protocol, device="cpu")
