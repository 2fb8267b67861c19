"""How sure a classifier is of a bank's labels."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.confidence import measure_confidence, remembered, train_judge
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.training import Trained, class_probabilities

CPU = torch.device("cpu")


@pytest.fixture
def setting(splits, bank):
    protocol = Protocol(steps=40, batch_size=16, validate_every=20, learning_rate=3e-3)
    return prepare(("blend",), splits, {"": bank}, protocol, device=CPU)


def test_a_trained_classifier_is_sure_of_right_labels(splits, bank, setting):
    judge = train_judge(splits, setting, device=CPU)
    right = measure_confidence(judge, setting.banks[""], setting)
    wrong_labels = bank.replace(labels=(bank.labels + 1) % 3)
    wrong = measure_confidence(judge, wrong_labels, setting)
    assert right.dtype == torch.float64
    assert right.shape == (60,)
    assert right.mean() > 0.8
    assert wrong.mean() < 0.2


def test_soft_labels_are_weighed(bank, setting):
    class Sure(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([0.2, 0.3, 0.5]).log().expand(len(images), 3)

    judge = Trained(network=Sure(), steps=1, best_step=1, validation_macro_f1=0.0)
    soft = SyntheticBank(bank.images, torch.tensor([[0.5, 0.0, 0.5]] * 60), classes=bank.classes)
    assert measure_confidence(judge, soft, setting).tolist() == pytest.approx([0.35] * 60)
    assert class_probabilities(judge.network, bank.images[:5], setting).tolist()[4] == pytest.approx([0.2, 0.3, 0.5])


def test_what_is_remembered(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return torch.tensor([0.123456789, 1e-12], dtype=torch.float64)

    first = remembered(tmp_path / "a" / "file.json", measure, key="one")
    assert first.tolist() == [0.123457, 1e-12]
    assert remembered(tmp_path / "a" / "file.json", measure, key="one").tolist() == first.tolist()
    assert len(calls) == 1
    remembered(tmp_path / "a" / "file.json", measure, key="another")
    (tmp_path / "a" / "file.json").write_text("{")
    remembered(tmp_path / "a" / "file.json", measure, key="another")
    assert len(calls) == 3
