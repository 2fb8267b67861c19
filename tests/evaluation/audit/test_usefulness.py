"""Train on synthetic, test on real, and the reverse."""

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.usefulness import mean_sensitivity, measure_usefulness
from genmix_transforms.evaluation.protocol import Protocol

QUICK = Protocol(steps=40, batch_size=16, validate_every=20, learning_rate=3e-3)


def test_a_good_bank_teaches_and_a_mislabeled_one_misleads(splits, banks):
    good = measure_usefulness(banks["good"], splits, protocol=QUICK)
    assert [one.name for one in good.overall] == [
        "train on synthetic, test on real",
        "train on real, test on synthetic",
    ]
    for one in good.overall:
        assert one.value > 0.8
        assert one.low <= one.value <= one.high
        assert one.real > 0.8
    assert good.text.startswith("Balanced accuracy, train on synthetic, test on real: ")
    assert set(good.to_dict()["by_class"]) == {"disc", "stripes"}
    reverse = measure_usefulness(banks["wrong classes"], splits, protocol=QUICK).overall[1]
    assert reverse.value == pytest.approx(1 - good.overall[1].value)


def test_other_sizes_are_refused(splits, banks):
    small = banks["good"].replace(images=banks["good"].images[..., ::2, ::2])
    with pytest.raises(InputError, match="one size"):
        measure_usefulness(small, splits, protocol=QUICK)


def test_the_mean_over_classes():
    labels = torch.tensor([0] * 30 + [1] * 10)
    right = torch.tensor([True] * 30 + [False] * 10)
    assert mean_sensitivity(right, labels, None, classes=(0, 1), seed=0) == (0.5, 0.5, 0.5)
    assert mean_sensitivity(right, labels, None, classes=(1,), seed=0) == (0.0, 0.0, 0.0)
    half = torch.arange(40) % 2 == 0
    value, low, high = mean_sensitivity(half, labels, None, classes=(0, 1), seed=0)
    assert value == 0.5
    assert 0.2 < low < 0.45 < 0.55 < high < 0.8
