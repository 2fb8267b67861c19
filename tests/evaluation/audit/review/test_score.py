"""The score of a visual Turing test."""

import pytest
from scipy.stats import binomtest

from genmix_transforms.evaluation.audit.review.score import TuringScore, wilson_interval


@pytest.mark.parametrize(
    ("right", "shown"), [(0, 1), (1, 1), (0, 10), (10, 10), (50, 100), (93, 100), (3, 7), (501, 1000)]
)
def test_the_interval_is_wilsons(right: int, shown: int):
    expected = binomtest(right, shown).proportion_ci(method="wilson")
    assert wilson_interval(right, shown) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_score_counts_the_true_answers_of_both_kinds():
    score = TuringScore(real=20, synthetic=30, real_called_real=15, synthetic_called_real=12)
    assert (score.shown, score.right, score.accuracy) == (50, 33, 0.66)
    assert score.to_dict() == {
        "real": 20,
        "synthetic": 30,
        "real_called_real": 15,
        "synthetic_called_real": 12,
        "right": 33,
        "accuracy": 0.66,
        "accuracy_interval_95": list(wilson_interval(33, 50)),
    }


@pytest.mark.parametrize(
    ("real", "synthetic", "better", "text"),
    [
        (
            45,
            5,
            True,
            "90 of 100 right, 90.0 % (95 % interval 82.6 % to 94.5 %): real and synthetic were told apart; 45 of 50",
        ),
        (
            26,
            25,
            False,
            "51 of 100 right, 51.0 % (95 % interval 41.3 % to 60.6 %): that is not distinguishable from guessing",
        ),
        (
            5,
            45,
            False,
            "10 of 100 right, 10.0 % (95 % interval 5.5 % to 17.4 %): they were told apart, and taken for each other",
        ),
    ],
)
def test_a_sentence_says_what_it_means(real: int, synthetic: int, better: bool, text: str):
    score = TuringScore(real=50, synthetic=50, real_called_real=real, synthetic_called_real=synthetic)
    assert score.is_better_than_chance is better
    assert score.text.startswith(text)
    assert score.text.endswith(f"{synthetic} of 50 synthetic images were called real")
