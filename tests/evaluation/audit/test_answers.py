"""The six questions, on numbers given by hand."""

from types import SimpleNamespace

import pytest

from genmix_transforms.evaluation.audit.answers import answers, answers_text
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.verdict import CopyShare, Finding, Verdict


def number(name, value, real, *, margin=0.05):
    ends = {"low": value - margin, "high": value + margin, "real_low": real - margin, "real_high": real + margin}
    return Measured(name=name, value=value, real=real, **ends)


GOOD = {"precision": 0.9, "KID x 1000": 0.0, "coverage": 0.95, "histogram distance": 1.0, "fine noise": 0.0}


def asked(*, kinds=(), copies=0, doubles=0, own=0.9, warnings=(), learned=0.8, **numbers):
    overall = {name: number(name, numbers.get(name, real), real) for name, real in GOOD.items()}
    share = number("own label is the likeliest", own, 0.9)
    return answers(
        overall,
        Verdict(findings=tuple(Finding(kind=kind, text=f"It is {kind}.") for kind in kinds)),
        copies=CopyShare(near_copies=copies, images=100, expected_share=0.01, doubles=doubles),
        labels=SimpleNamespace(overall=(share, share), warnings=warnings, text="The classifier agrees."),
        usefulness=SimpleNamespace(overall=(number("TSTR", learned, 0.8),)),
    )


def test_a_good_bank_is_good_throughout():
    found = asked()
    assert [one.status for one in found] == ["good"] * 6
    assert "of as many images of other patients about 1 would be" in found[0].text


@pytest.mark.parametrize(
    ("given", "place", "status", "text"),
    [
        ({"kinds": ("copies",)}, 0, "fault", "It is copies."),
        ({"copies": 1}, 0, "look", "1 of 100 images is very near to a training image"),
        ({"kinds": ("noise",)}, 1, "fault", "It is noise."),
        ({"kinds": ("noise",)}, 4, "fault", "Gray values"),
        ({"kinds": ("nothing like real",)}, 1, "fault", "It is nothing like real."),
        ({"kinds": ("unlike real",)}, 1, "look", "As a whole they can be told from real ones."),
        ({"precision": 0.5}, 1, "look", "50 % of them look like some real image"),
        ({"kinds": ("collapsed",)}, 2, "fault", "It is collapsed."),
        ({"coverage": 0.5}, 2, "look", "Some presentations are missing."),
        ({"doubles": 20}, 2, "look", "20 of 100 images are near doubles"),
        ({"kinds": ("wrong classes",)}, 3, "fault", "It is wrong classes."),
        ({"own": 0.5}, 3, "look", "their labels cannot be confirmed"),
        ({"warnings": ("A shortcut.",)}, 3, "look", "The classifier agrees. A shortcut."),
        ({"histogram distance": 9.0}, 4, "look", "Gray values lie 9 off on average"),
        ({"fine noise": -3.0}, 4, "look", "3.0 dB weaker than real"),
        ({"learned": 0.4}, 5, "look", "finds 40 % of each class"),
    ],
)
def test_each_question_is_answered(given, place, status, text):
    found = asked(**given)
    assert found[place].status == status
    assert text in found[place].text


def test_what_was_not_measured_is_said_to_be_open():
    nothing = Verdict(findings=(Finding(kind="incomplete", text="Nothing."),))
    found = answers({}, nothing, copies=None, labels=None, usefulness=None)
    assert {one.status for one in found} == {"open"}
    refused = {"coverage": Measured(name="coverage", refused="too few")}
    assert answers(refused, nothing, copies=None, labels=None, usefulness=None)[2].status == "open"
    assert answers_text(found).count("Not checked") == 6
    assert found[0].to_dict()["status"] == "open"
