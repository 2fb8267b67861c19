"""Whether labels are honest."""

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.audit.labels import bank_key, cramers_v, measure_labels, read_confidence, shortcuts
from genmix_transforms.evaluation.confidence import judge_of
from genmix_transforms.evaluation.protocol import Protocol


@pytest.fixture(scope="module")
def judge(splits):
    return judge_of(
        splits,
        Protocol(steps=40, batch_size=16, validate_every=20, learning_rate=3e-3),
        device=torch.device("cpu"),
    )


def test_right_and_wrong_labels(splits, banks, judge):
    good = measure_labels(banks["good"], splits, judge=judge)
    wrong = measure_labels(banks["wrong classes"], splits, judge=judge)
    confidence, share = good.overall
    assert confidence.value == pytest.approx(good.confidence.mean().item())
    assert share.value > 0.8
    assert share.real > 0.8
    assert wrong.overall[1].value == pytest.approx(1 - share.value)
    assert [sum(row) for row in good.predicted] == [40, 40]
    assert good.by_class["disc"][1].value == pytest.approx(good.predicted[0][0] / 40)
    assert f"agrees with {100 * share.value:.0f} % of the labels" in good.text
    assert good.to_dict()["predicted"] == [list(row) for row in good.predicted]


def test_confidences_are_of_one_bank(tmp_path, splits, banks, judge):
    good = measure_labels(banks["good"], splits, judge=judge)
    good.save(tmp_path / "labels.json", banks["good"])
    read = read_confidence(tmp_path / "labels.json", banks["good"])
    assert read.tolist() == pytest.approx(good.confidence.tolist(), rel=1e-5)
    kept = banks["good"].select(min_confidence=0.9, confidence=read)
    assert len(kept) == int((read >= 0.9).sum())
    with pytest.raises(InputError, match="belong to a different bank"):
        read_confidence(tmp_path / "labels.json", banks["wrong classes"])
    with pytest.raises(InputError, match="this bank has 5"):
        good.save(tmp_path / "other.json", banks["good"].take(torch.arange(5)))
    with pytest.raises(MissingPathError):
        read_confidence(tmp_path / "none.json", banks["good"])
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(InputError, match="not a file of confidences"):
        read_confidence(tmp_path / "labels.json", banks["good"])


def test_a_bank_on_disk_has_the_same_key(tmp_path, banks):
    banks["good"].save(tmp_path / "bank")
    assert bank_key(SyntheticBank.load(tmp_path / "bank")) == bank_key(banks["good"])


def test_a_class_of_synthetic_images_is_a_shortcut(banks):
    good = banks["good"]
    assert shortcuts(good, {"disc": 40, "stripes": 40}) == ()
    (warning,) = shortcuts(good, {"disc": 400, "stripes": 4})
    assert "91 % of stripes would be synthetic and 9 % of disc" in warning


def test_a_source_a_class_is_a_shortcut(banks):
    good = banks["good"]
    told = good.replace(provenance=[{"name": "a"}, {"name": "b"}], source=good.labels.int())
    (warning,) = shortcuts(told, {"disc": 40, "stripes": 40})
    assert "Cramér's V 1.00" in warning
    mixed = told.replace(provenance=[{"name": "a"}, {"name": "b"}], source=torch.arange(80).int() % 2)
    assert shortcuts(mixed, {"disc": 40, "stripes": 40}) == ()


def test_cramers_v_of_scipy():
    contingency = pytest.importorskip("scipy.stats.contingency")
    table = np.array([[10, 20, 3], [7, 5, 9]])
    assert cramers_v(table) == pytest.approx(contingency.association(table, method="cramer"))
    assert cramers_v(np.array([[3, 4], [0, 0]])) == 0
