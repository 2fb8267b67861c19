"""The forest plot: every mark, line, band and number at the value it was given."""

import math
from types import SimpleNamespace

import pytest
from matplotlib.colors import same_color

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import forest_figure
from genmix_transforms.evaluation.figures.forest import probability
from genmix_transforms.evaluation.figures.style import DASH, MINUS, WIDTH
from genmix_transforms.evaluation.statistics import Difference

NAN = float("nan")


def found(arm="genmix", difference=0.02, low=-0.01, high=0.05, p=0.2, **more):
    return SimpleNamespace(arm=arm, difference=difference, low=low, high=high, p=p, **more)


ROWS = [
    found("mixup", 0.02, -0.01, 0.05, 0.2, detectable=0.04),
    found("blend:adm", 0.06, 0.02, 0.1, 0.004, detectable=0.05),
    found("genmix:adm", -0.03, -0.07, 0.01, 0.0001, detectable=0.03),
]


def panels(figure):
    """The panels with the marks, each with the one of its numbers."""
    return list(zip(figure.axes[::2], figure.axes[1::2], strict=True))


def lines(axes):
    """Of each row the interval and the mark; the last line is that at 0."""
    return [axes.lines[place : place + 2] for place in range(0, len(axes.lines) - 1, 2)]


def test_marks_and_intervals_lie_at_their_values_in_points():
    ((axes, _),) = panels(forest_figure({"baseline": ROWS}))
    for place, (row, (interval, mark)) in enumerate(zip(ROWS, lines(axes), strict=True)):
        assert list(interval.get_xdata()) == pytest.approx([100 * row.low, 100 * row.high])
        assert list(mark.get_xdata()) == pytest.approx([100 * row.difference])
        assert {*interval.get_ydata(), *mark.get_ydata()} == {place}
    assert list(axes.lines[-1].get_xdata()) == [0, 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mixup", "blend:adm", "genmix:adm"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first arm on top


def test_the_limits_hold_everything_and_0_is_in_the_middle():
    ((axes, _),) = panels(forest_figure({"baseline": ROWS}))
    low, high = axes.get_xlim()
    assert low == -high
    assert high > 10


def test_significance_shows_without_colour_too():
    ((axes, _),) = panels(forest_figure({"baseline": ROWS}))
    marks = [mark for _, mark in lines(axes)]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [True, False, False]
    assert marks[0].get_color() != marks[1].get_color()


def test_the_numbers_beside():
    ((_, beside),) = panels(forest_figure({"baseline": ROWS}))
    texts = [text.get_text() for text in beside.texts]
    assert texts[:6] == [
        f"+2.0 [{MINUS}1.0, +5.0]", ".20", "+6.0 [+2.0, +10.0]", ".004", f"{MINUS}3.0 [{MINUS}7.0, +1.0]", "< .001",
    ]  # fmt: skip
    assert texts[6:] == ["difference [95 % interval]", "p"]


def test_the_band_is_each_row_s_own_or_one_for_all():
    for detectable, expected in ((None, [4, 5, 3]), (0.02, [2, 2, 2])):
        ((axes, _),) = panels(forest_figure({"baseline": ROWS}, detectable=detectable))
        boxes = [band.get_paths()[0].get_extents() for band in axes.collections]
        assert [(box.x0, box.x1) for box in boxes] == [pytest.approx((-value, value)) for value in expected]
        assert [(box.y0, box.y1) for box in boxes] == [(place - 0.5, place + 0.5) for place in range(3)]


@pytest.mark.parametrize("least", [None, NAN])
def test_without_a_detectable_difference_no_band(least):
    figure = forest_figure({"baseline": [found(detectable=least), found("mixup")]})
    ((axes, _),) = panels(figure)
    assert not axes.collections
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["p < .05, corrected", "not significant"]


def test_an_interval_that_is_not_known():
    ((axes, beside),) = panels(forest_figure({"baseline": [found(low=NAN, high=NAN, p=NAN)]}))
    assert [text.get_text() for text in beside.texts[:2]] == [f"+2.0 [{DASH}, {DASH}]", DASH]
    assert lines(axes)[0][1].get_markerfacecolor() == "white"


def test_a_panel_a_reference_on_one_scale():
    figure = forest_figure({"baseline": ROWS, "blend": [found("genmix:adm", -0.09, -0.2, 0.02, 0.1)], "none": []})
    (one, _), (other, _) = panels(figure)
    assert [axes.get_title(loc="left") for axes in (one, other)] == ["against baseline", "against blend"]
    assert one.get_xlim() == other.get_xlim()
    assert figure.get_figwidth() * 25.4 == pytest.approx(WIDTH)


def test_rows_with_several_references_name_them():
    rows = [found("genmix:adm", reference="blend:adm"), found("genmix-real", reference="repeat")]
    ((axes, _),) = panels(forest_figure({"the same images": rows}))
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"genmix:adm {MINUS} blend:adm", f"genmix-real {MINUS} repeat",
    ]  # fmt: skip


def test_it_takes_what_the_statistics_return():
    row = Difference(
        arm="genmix", reference="baseline", metric="macro_f1", difference=0.02, low=-0.01, high=0.05,
        standard_error=0.015, p=0.4, p_single=0.2, detectable=0.042, seeds=5,
    )  # fmt: skip
    ((axes, beside),) = panels(forest_figure({"baseline": [row]}))
    assert beside.texts[1].get_text() == ".40"  # the corrected one
    assert axes.collections[0].get_paths()[0].get_extents().x1 == pytest.approx(4.2)


def test_long_names_and_numbers_stay_on_the_page():
    rows = [found(f"genmix-union:textual-inversion-{number}", p=0.0001) for number in range(3)]
    figure = forest_figure({"baseline": rows})
    ((axes, beside),) = panels(figure)
    for text in (*axes.get_yticklabels(), *beside.texts):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    numbers, p = (beside.texts[place].get_window_extent() for place in (0, 1))
    assert numbers.x1 < p.x0
    assert numbers.x0 >= axes.get_window_extent().x1
    assert same_color(beside.texts[0].get_color(), axes.xaxis.label.get_color())


@pytest.mark.parametrize(
    ("p", "text"), [(0.0994, ".099"), (0.0996, ".10"), (0.995, ".99"), (1, "1.0"), (0.001, ".001")]
)
def test_probabilities_as_journals_print_them(p, text):
    assert probability(p) == text


def test_what_is_no_interval():
    for rows, message in (
        ({}, "no differences"),
        ({"baseline": []}, "no differences"),
        (
            {"baseline": [found(low=0.03)]},
            "genmix against baseline: the interval 0.03 to 0.05 does not hold the difference 0.02",
        ),
        ({"baseline": [found(difference=math.inf, high=math.inf)]}, "does not hold"),
        ({"baseline": [found(difference=2.0, low=-1.0, high=5.0)]}, "does not hold"),
        ({"baseline": [found(low=NAN)]}, "does not hold"),
    ):
        with pytest.raises(InputError, match=message):
            forest_figure(rows)
    with pytest.raises(InputError, match="detectable must be a fraction, 0 or more, got -1"):
        forest_figure({"baseline": ROWS}, detectable=-1)
