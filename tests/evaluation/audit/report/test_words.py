"""Numbers in words."""

from typing import get_args

import pytest

from genmix_transforms.evaluation.audit.answers import ADVICE
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.report.words import HEADLINES, MEANING, compare, interval
from genmix_transforms.evaluation.audit.verdict import Kind


def measured(value, real, better):
    ends = {"low": value - 0.1, "high": value + 0.1, "real_low": real - 0.1, "real_high": real + 0.1}
    return Measured(name="x", value=value, real=real, better=better, **ends)


@pytest.mark.parametrize(
    ("value", "real", "better", "said"),
    [
        (1, 1.1, "low", "as real"),
        (2, 1, "low", "worse than real"),
        (1, 2, "low", "better than real"),
        (2, 1, "high", "better than real"),
        (1, 2, "high", "worse than real"),
        (2, 1, "like real", "above real"),
        (1, 2, "like real", "below real"),
        (1, 2, "none", ""),
        (1, float("nan"), "high", ""),
    ],
)
def test_a_number_beside_the_real_one(value, real, better, said):
    assert compare(measured(value, real, better)) == said


def test_there_is_nothing_to_say_of_a_refused_number():
    assert compare(Measured(name="FID", refused="too few")) == ""
    assert interval(float("nan"), 1.0) == ""


def test_every_verdict_has_a_headline_and_advice():
    assert set(HEADLINES) == set(ADVICE) == set(get_args(Kind))


def test_every_number_is_explained(audited):
    quality = audited.quality
    names = {*quality.overall, *(one.name for one in (*quality.labels.overall, *quality.usefulness.overall[1:]))}
    assert names <= set(MEANING)
