"""The rules, on numbers given by hand."""

from types import SimpleNamespace

import pytest

from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.verdict import CopyShare, judge


def number(name, value, real, *, margin=0.05):
    ends = {"low": value - margin, "high": value + margin, "real_low": real - margin, "real_high": real + margin}
    return Measured(name=name, value=value, real=real, **ends)


def verdict(*, fine=0.1, kid=1.0, likeness=0.3, vendi=10.0, own=0.9, predicted=((9, 1), (1, 9)), copies=5):
    overall = {
        one.name: one for one in (number("share of fine detail", fine, 0.1), number("KID x 1000", kid, 1.0, margin=0.5))
    }
    numbers = {one.name: one for one in (number("MS-SSIM of pairs", likeness, 0.3), number("Vendi score", vendi, 10.0))}
    share = number("own label is the likeliest", own, 0.9)
    labels = SimpleNamespace(
        overall=(share, share), by_class={"cyst": (share, share), "tumor": (share, share)}, predicted=predicted
    )
    by_class = {"cyst": numbers, "tumor": numbers}
    share_of_copies = None if copies is None else CopyShare(near_copies=copies, images=100, expected_share=0.05)
    return judge(overall, by_class, labels, share_of_copies)


@pytest.mark.parametrize(
    ("numbers", "kind", "text"),
    [
        ({}, "no fault found", "No fault was found"),
        ({"copies": None}, "incomplete", "not copies"),
        ({"fine": 0.75, "kid": 50.0}, "noise", "75 % of what is in them is detail of less than 4 pixels"),
        ({"likeness": 0.95, "vendi": 1.1}, "collapsed", "of every class are nearly all alike"),
        ({"own": 0.1, "predicted": ((1, 9), (9, 1))}, "wrong classes", "cyst looks like tumor; tumor looks like cyst"),
        ({"copies": 40}, "copies", "40 of its 100 images"),
        ({"copies": 14}, "copies", "where 5 would be by chance"),
        ({"kid": 50.0}, "unlike real", "can be told from real ones"),
        ({"likeness": 0.95}, "no fault found", ""),
        ({"vendi": 1.1}, "no fault found", ""),
        ({"copies": 12}, "no fault found", ""),
    ],
)
def test_each_fault_is_named(numbers, kind, text):
    found = verdict(**numbers)
    assert found.kind == kind
    assert text in found.text
    assert found.text.endswith(".")


def test_the_worst_stands_first_and_all_are_told():
    found = verdict(fine=0.75, kid=50.0, copies=50)
    assert [one.kind for one in found.findings] == ["noise", "copies", "unlike real"]
    assert found.to_dict()["kind"] == "noise"


def test_a_single_collapsed_class_is_named():
    numbers = {one.name: one for one in (number("MS-SSIM of pairs", 0.95, 0.3), number("Vendi score", 1.1, 10.0))}
    fine = {one.name: one for one in (number("MS-SSIM of pairs", 0.3, 0.3), number("Vendi score", 10.0, 10.0))}
    assert "of cyst are nearly all alike" in judge({}, {"cyst": numbers, "tumor": fine}).text


def test_a_classifier_that_knows_nothing_accuses_nobody():
    share = number("own label is the likeliest", 0.5, 0.5)
    labels = SimpleNamespace(
        overall=(share, share), by_class={"a": (share,) * 2, "b": (share,) * 2}, predicted=((1, 1),) * 2
    )
    assert judge({}, {}, labels).kind == "incomplete"


def test_images_that_look_like_no_real_one_are_nothing_like_real():
    overall = {one.name: one for one in (number("precision", 0.1, 0.9), number("KID x 1000", 50.0, 1.0))}
    assert [one.kind for one in judge(overall, {}).findings] == ["nothing like real"]
    overall["precision"] = number("precision", 0.3, 0.9)
    assert [one.kind for one in judge(overall, {}).findings] == ["unlike real"]


def test_a_bank_of_doubles_has_collapsed():
    doubled = CopyShare(near_copies=0, images=100, expected_share=0.005, doubles=51, across=40)
    found = judge({}, {}, None, doubled)
    assert found.kind == "collapsed"
    assert found.text.endswith(
        "51 of its 100 images are near doubles of another one in it, 40 of them of one with another label."
    )
    assert (
        judge({}, {}, None, CopyShare(near_copies=0, images=100, expected_share=0.005, doubles=50)).kind != "collapsed"
    )


def test_images_that_a_classifier_does_not_know_have_no_wrong_labels():
    share, learned, chance = (number("own label is the likeliest", value, 0.9) for value in (0.34, 0.7, 0.5))
    labels = SimpleNamespace(
        overall=(share, share), by_class={"a": (share,) * 2, "b": (share,) * 2}, predicted=((1, 9), (1, 9))
    )
    knows, knows_nothing = (SimpleNamespace(overall=(one,)) for one in (learned, chance))
    assert judge({}, {}, labels, None, knows).kind == "incomplete"
    assert judge({}, {}, labels, None, knows_nothing).kind == "wrong classes"
    swapped = SimpleNamespace(overall=labels.overall, by_class=labels.by_class, predicted=((1, 9), (9, 1)))
    assert judge({}, {}, swapped, None, knows).kind == "wrong classes"


def test_so_many_copies_by_chance():
    one = CopyShare(near_copies=1, images=10, expected_share=0.5)
    assert one.by_chance == pytest.approx(1 - 0.5**10)
    assert CopyShare(near_copies=0, images=10, expected_share=0.0).by_chance == 1
    assert CopyShare(near_copies=1, images=10, expected_share=0.0).by_chance == 0
    # A single one of many images is no ground to accuse a generator, and three of ten are.
    assert judge({}, {}, None, CopyShare(near_copies=2, images=300, expected_share=0.005)).kind == "incomplete"
    assert judge({}, {}, None, CopyShare(near_copies=3, images=10, expected_share=0.005)).kind == "copies"
