"""The scores: against scikit-learn, against numbers worked out by hand, and their laws."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.metrics import Scores, score, score_several


@st.composite
def cases(draw):
    """Predictions and labels; often some class is in neither, or in one of them only."""
    classes = draw(st.integers(2, 5))
    count = draw(st.integers(1, 40))
    some = st.lists(st.integers(0, classes - 1), min_size=1)
    predicted, true = (draw(st.lists(st.sampled_from(draw(some)), min_size=count, max_size=count)) for _ in range(2))
    return torch.tensor(predicted), torch.tensor(true), classes


def test_by_hand():
    predictions = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])
    labels = torch.tensor([0, 0, 0, 2, 2, 1, 1, 1])
    scores = score(predictions, labels, num_classes=3)
    assert scores.confusion == ((2, 1, 0), (1, 1, 1), (0, 0, 2))
    assert scores.accuracy == pytest.approx(5 / 8)
    assert scores.sensitivity == pytest.approx((2 / 3, 1 / 3, 1))
    assert scores.specificity == pytest.approx((4 / 5, 4 / 5, 5 / 6))
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1 / 3 + 1) / 3)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 5 + 4 / 5) / 3)


@settings(max_examples=50)  # scikit-learn's own checks of a call take many times as long as the scores
@given(cases())
def test_as_scikit_learn(case):
    sklearn = pytest.importorskip("sklearn.metrics")
    predictions, labels, classes = case
    scores = score(predictions, labels, num_classes=classes)
    true, predicted = labels.numpy(), predictions.numpy()
    assert np.array_equal(scores.confusion, sklearn.confusion_matrix(true, predicted, labels=range(classes)))
    assert scores.accuracy == pytest.approx(sklearn.accuracy_score(true, predicted), abs=1e-6)
    assert scores.macro_f1 == pytest.approx(sklearn.f1_score(true, predicted, average="macro"), abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is predicted only
        assert scores.balanced_accuracy == pytest.approx(sklearn.balanced_accuracy_score(true, predicted), abs=1e-6)
    for number in range(classes):
        is_true, is_predicted = true == number, predicted == number
        for found, positives, hits in (
            (scores.sensitivity[number], is_true, is_predicted),
            (scores.specificity[number], ~is_true, ~is_predicted),
        ):
            expected = sklearn.recall_score(positives, hits, zero_division=np.nan)
            assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


@settings(max_examples=50)
@given(cases(), st.data())
def test_auc_as_scikit_learn(case, data):
    sklearn = pytest.importorskip("sklearn.metrics")
    predictions, labels, classes = case
    # Few values: many ties.
    row = st.lists(st.sampled_from([0.0, 1e-9, 0.25, 0.5, 1.0]), min_size=classes, max_size=classes)
    probabilities = torch.tensor(data.draw(st.lists(row, min_size=len(labels), max_size=len(labels))))
    found = score(predictions, labels, num_classes=classes, probabilities=probabilities).auc
    of_class = [
        sklearn.roc_auc_score(labels.numpy() == number, probabilities[:, number].numpy())
        for number in range(classes)
        if 0 < int((labels == number).sum()) < len(labels)
    ]
    assert found == pytest.approx(np.mean(of_class) if of_class else math.nan, abs=1e-6, nan_ok=True)


def test_auc_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    scores = score(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), num_classes=2, probabilities=probabilities)
    assert scores.auc == pytest.approx(3 / 4)
    assert math.isnan(score(torch.tensor([0, 1]), torch.tensor([0, 1]), num_classes=2).auc)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (torch.zeros(2, 3), r"floats of shape \(2, 2\), a row an image, got torch.float32 of shape \(2, 3\)"),
        (torch.zeros(2, 2, dtype=torch.int64), "got torch.int64"),
        (torch.tensor([[0.5, 0.5], [-1.0, 2.0]]), "from 0 to 1; take the softmax"),
        (torch.tensor([[0.5, 0.5], [math.nan, 1.0]]), "from 0 to 1"),
    ],
)
def test_no_probabilities(probabilities, message):
    with pytest.raises(InputError, match=message):
        score(torch.tensor([0, 1]), torch.tensor([0, 1]), num_classes=2, probabilities=probabilities)


@given(cases(), st.randoms())
def test_the_order_of_the_images_does_not_matter(case, random):
    predictions, labels, classes = case
    order = list(range(len(labels)))
    random.shuffle(order)
    shuffled = score(predictions[order], labels[order], num_classes=classes)
    assert shuffled.to_dict() == score(predictions, labels, num_classes=classes).to_dict()


@given(cases(), st.randoms())
def test_renaming_the_classes_renames_their_scores(case, random):
    predictions, labels, classes = case
    renamed = list(range(classes))
    random.shuffle(renamed)
    table = torch.tensor(renamed)
    before, after = (
        score(p, t, num_classes=classes) for p, t in ((predictions, labels), (table[predictions], table[labels]))
    )
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-6)
    for number in range(classes):
        for name in ("sensitivity", "specificity"):
            found, expected = getattr(after, name)[renamed[number]], getattr(before, name)[number]
            assert found == pytest.approx(expected, nan_ok=True)


@given(cases())
def test_laws(case):
    predictions, labels, classes = case
    scores = score(predictions, labels, num_classes=classes)
    support = torch.bincount(labels, minlength=classes).tolist()
    assert [sum(row) for row in scores.confusion] == support
    hits = sum(n * s for n, s in zip(support, scores.sensitivity, strict=True) if n)
    assert hits / len(labels) == pytest.approx(scores.accuracy, abs=1e-6)
    for number in range(classes):
        assert math.isnan(scores.sensitivity[number]) == (support[number] == 0)
        assert math.isnan(scores.specificity[number]) == (support[number] == len(labels))
    values = [scores.accuracy, scores.macro_f1, scores.balanced_accuracy, *scores.sensitivity, *scores.specificity]
    assert all(math.isnan(value) or 0 <= value <= 1 for value in values)
    assert (scores.accuracy == 1) == torch.equal(predictions, labels)


@given(cases())
def test_all_right_is_1(case):
    _, labels, classes = case
    scores = score(labels, labels, num_classes=classes)
    assert (scores.accuracy, scores.macro_f1, scores.balanced_accuracy) == (1, 1, 1)


def test_a_class_never_predicted_counts_as_a_0_in_f1():
    scores = score(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]), num_classes=2)
    assert scores.macro_f1 == pytest.approx((4 / 5 + 0) / 2)
    assert scores.sensitivity == (1, 0)


def test_a_class_the_test_set_lacks_has_no_sensitivity():
    scores = score(torch.tensor([0, 2]), torch.tensor([0, 0]), num_classes=3)
    assert scores.to_dict()["sensitivity"] == [0.5, None, None]
    assert scores.to_dict()["specificity"] == [None, 1.0, 0.5]
    assert scores.balanced_accuracy == 0.5
    # Class 1 is nowhere and left out; class 2 is predicted wrongly: an F1 of 0.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


@given(cases())
def test_scores_survive_json(case):
    predictions, labels, classes = case
    scores = score(predictions, labels, num_classes=classes)
    text = json.dumps(scores.to_dict(), allow_nan=False)
    assert Scores.from_dict(json.loads(text)).to_dict() == scores.to_dict()


def test_names():
    scores = score(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2)
    named = scores.by_name(["cyst", "metastasis"])
    assert list(named) == [
        "accuracy", "macro_f1", "balanced_accuracy", "auc",
        "sensitivity_cyst", "specificity_cyst", "sensitivity_metastasis", "specificity_metastasis",
    ]  # fmt: skip
    assert (named["sensitivity_cyst"], named["specificity_cyst"]) == (0.5, 1)
    assert (named["sensitivity_metastasis"], named["specificity_metastasis"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("predictions", "labels", "classes", "message"),
    [
        ([0], [0, 1], 2, r"one shape \(N,\), N at least 1, got \(1,\) and \(2,\)"),
        ([], [], 2, "N at least 1"),
        ([[0]], [[0]], 2, "one shape"),
        ([0, 2], [0, 1], 2, "predictions run from 0 to 2, but there are 2 classes"),
        ([0, 1], [-1, 1], 2, "labels run from -1 to 1, but there are 2 classes"),
        ([0.0, 1.0], [0, 1], 2, "predictions must be int64 class indices, got torch.float32"),
        ([0], [0], 1, "at least 2 classes, got 1"),
    ],
)
def test_nothing_to_compare(predictions, labels, classes, message):
    predictions = torch.tensor(predictions, dtype=None if predictions else torch.int64)
    labels = torch.tensor(labels, dtype=None if labels else torch.int64)
    with pytest.raises(InputError, match=message):
        score(predictions, labels, num_classes=classes)


# Several labels an image


@settings(max_examples=25)
@given(
    count=st.integers(1, 30), classes=st.integers(2, 4), seed=st.integers(0, 999), share=st.sampled_from([0.1, 0.5, 1])
)
def test_several_labels_as_scikit_learn(count, classes, seed, share):
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    targets, predictions = (random.random((2, count, classes)) < share).astype(np.int64)
    probabilities = random.random((count, classes)).round(1)
    scores = score_several(torch.tensor(predictions), torch.tensor(targets), probabilities=torch.tensor(probabilities))
    assert scores.accuracy == pytest.approx((predictions == targets).mean(), abs=1e-6)
    found = []
    for number in range(classes):
        true, said = targets[:, number], predictions[:, number]
        if true.any() or said.any():
            found.append(sklearn.f1_score(true, said))
        both = 0 < true.sum() < count
        auc = sklearn.roc_auc_score(true, probabilities[:, number]) if both else math.nan
        assert scores.auc_by_class[number] == pytest.approx(auc, abs=1e-6, nan_ok=True)
        sensitivity = sklearn.recall_score(true, said) if true.any() else math.nan
        assert scores.sensitivity[number] == pytest.approx(sensitivity, abs=1e-6, nan_ok=True)
        specificity = sklearn.recall_score(1 - true, 1 - said) if not true.all() else math.nan
        assert scores.specificity[number] == pytest.approx(specificity, abs=1e-6, nan_ok=True)
    assert scores.macro_f1 == pytest.approx(np.mean(found) if found else math.nan, abs=1e-6, nan_ok=True)
    again = Scores.from_dict(json.loads(json.dumps(scores.to_dict())))
    assert str(again) == str(scores)


@pytest.mark.parametrize(
    ("predictions", "targets", "options", "text"),
    [
        (torch.zeros(3, 2), torch.zeros(2, 2), {}, r"of one shape \(N, K\), not empty, got \(3, 2\) and \(2, 2\)"),
        (torch.zeros(3), torch.zeros(3), {}, r"of one shape \(N, K\)"),
        (torch.zeros(0, 2), torch.zeros(0, 2), {}, "not empty"),
        (torch.full((3, 2), 2), torch.zeros(3, 2), {}, "predictions must be 0 or 1, got 2 to 2"),
        (torch.zeros(3, 2), torch.zeros(3, 2), {"probabilities": torch.ones(3, 2) * 2}, "must be from 0 to 1"),
    ],
)
def test_several_labels_refused(predictions, targets, options, text):
    with pytest.raises(InputError, match=text):
        score_several(predictions, targets, **options)
