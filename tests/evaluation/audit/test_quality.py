"""All numbers of a bank: each fault is named by the first sentence."""

import json
from dataclasses import replace

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.inputs import NO_GROUPS
from genmix_transforms.evaluation.audit.quality import QualitySettings, measure_quality, together
from genmix_transforms.evaluation.protocol import Protocol

QUICK = Protocol(steps=40, batch_size=16, validate_every=20, learning_rate=3e-3)


@pytest.fixture(scope="module")
def found(splits, banks):
    # Noise and collapse show without a classifier.
    settings = {name: QualitySettings(draws=8, train=name in ("good", "wrong classes")) for name in banks}
    return {
        name: measure_quality(bank, splits, features="pixels", settings=settings[name], protocol=QUICK)
        for name, bank in banks.items()
    }


@pytest.mark.parametrize("fault", ["noise", "collapsed", "wrong classes"])
def test_each_fault_is_named(found, fault):
    assert found[fault].verdict().kind == fault


def test_a_good_bank_is_accused_of_nothing(found):
    good = found["good"]
    assert good.verdict().kind == "incomplete"
    assert good.text == "No fault was found, but not all was looked at: not copies."
    assert good.features == "pixels at 16 x 16"
    assert "120 images" in good.against


def test_every_number_is_there_beside_its_real_value(found):
    good = found["good"]
    assert set(good.by_class) == {"disc", "stripes"}
    for numbers in (good.overall, *good.by_class.values()):
        assert {"KID x 1000", "precision", "recall", "density", "coverage", "FID"} <= set(numbers)
        assert {"MS-SSIM of pairs", "Vendi score", "histogram distance", "fine noise", "mean"} <= set(numbers)
        assert numbers["FID"].refused
        for one in numbers.values():
            assert one.refused or one.real_low <= one.real <= one.real_high
    content = json.loads(json.dumps(good.to_dict(), allow_nan=False))
    assert content["overall"]["FID"]["refused"]
    assert content["labels"]["overall"]


def test_a_seed_gives_the_same_numbers(splits, banks):
    settings = QualitySettings(draws=3, train=False, images=60, half=20)
    first, second = (measure_quality(banks["good"], splits, features="pixels", settings=settings) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert first.labels is None
    assert any("60 of the bank's 80 images" in note for note in first.notes)


def test_the_training_part_can_be_asked(splits, banks):
    settings = QualitySettings(draws=3, train=False, against="train")
    assert "train: 60 images" in measure_quality(banks["good"], splits, features="pixels", settings=settings).against


def test_no_groups_are_said(make, banks):
    splits = tuple(make.patches(40, seed=seed, groups=False) for seed in (1, 2, 3))
    settings = QualitySettings(draws=2, train=False)
    assert NO_GROUPS in measure_quality(banks["good"], splits, features="pixels", settings=settings).notes


def test_a_class_of_one_patient_has_no_halves(splits, banks):
    one = tuple(replace(part, groups=part.groups.where(part.labels == 0, -1)) for part in splits)
    settings = QualitySettings(draws=2, train=False)
    found = measure_quality(banks["good"], one, features="pixels", settings=settings)
    assert found.by_class["stripes"]["coverage"].refused
    assert not found.overall["coverage"].refused
    assert any(note.startswith("stripes is left out") for note in found.notes)


def test_other_sizes_are_refused_before_any_work(splits, banks):
    small = banks["good"].replace(images=banks["good"].images[..., ::2, ::2])
    with pytest.raises(InputError, match="the bank's images are 1 x 16 x 16"):
        measure_quality(small, splits, features="pixels")


def test_parts_with_masks_and_dates_together(splits):
    def richer(part):
        masks = torch.zeros(len(part), *part.images.shape[2:], dtype=torch.uint8)
        return replace(part, masks=masks, dates=torch.arange(len(part)), series=torch.arange(len(part)))

    both = together(richer(splits[1]), richer(splits[2]))
    assert (both.masks, both.dates, both.series) == (None, None, None)
    assert len(both) == 120


def test_parts_together(splits):
    both = together(splits[1], splits[2])
    assert len(both) == 120
    assert torch.equal(both.groups, torch.cat([splits[1].groups, splits[2].groups]))
