"""Protocols by name."""

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.presets import PRESETS, preset
from genmix_transforms.evaluation.protocol import Protocol


def test_the_papers_protocol():
    paper = preset("paper")
    assert (paper.classifier, paper.weights) == ("vgg16", "imagenet")
    assert (paper.epochs, paper.batch_size, paper.learning_rate, paper.patience) == (100, 8, 0.0002, 20)
    assert (paper.alpha, paper.real_partner, paper.tune) == (0.3, 0.0, 5)
    # Its training part of 681 images: 86 batches an epoch, a validation after each.
    steps = paper.for_training_set(681)
    assert (steps.steps, steps.validate_every, steps.epochs) == (8600, 86, None)


def test_fast_is_the_papers_but_for_its_arithmetic():
    changed = {
        name: value for name, value in preset("fast").to_dict().items() if value != preset("paper").to_dict()[name]
    }
    assert changed == {"precision": "bf16"}


def test_small_stops_never_early_and_needs_no_training_set_to_know_its_steps():
    small = preset("small")
    assert small.patience is None
    assert small.for_training_set(100) is small
    assert small.steps % small.validate_every == 0


def test_changes():
    assert preset("small", tune=0, steps=5) == Protocol(**{**PRESETS["small"].to_dict(), "tune": 0, "steps": 5})
    with pytest.raises(InputError, match="no preset 'big'; there are paper, small, fast"):
        preset("big")
    with pytest.raises(InputError, match="no such option: stepps; a Protocol has alpha, .*steps"):
        preset("small", stepps=3)
    with pytest.raises(InputError, match="tune must be"):
        preset("small", tune=9)
