"""The scores of all seeds: a mark each at its value, the mean with its interval, and what an arm trains on."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import scores_figure
from genmix_transforms.evaluation.figures.scores import GROUPS, group_of
from genmix_transforms.evaluation.figures.style import WIDTH
from tests.evaluation.figures.luminance import luminance

SEEDS = {"baseline": [0.55, 0.6, 0.56], "blend:adm": [0.62, 0.6, 0.64], "genmix:adm": [0.58, 0.7, 0.61]}
INTERVALS = {"baseline": (0.54, 0.6), "genmix:adm": (0.55, 0.71)}


def draw(**options):
    figure = scores_figure(SEEDS, **options)
    return figure, *figure.axes


def test_every_seed_is_a_mark_at_its_score():
    _, axes, _ = draw()
    for place, (values, marks) in enumerate(zip(SEEDS.values(), axes.collections, strict=True)):
        offsets = np.asarray(marks.get_offsets())
        assert offsets[:, 0] == pytest.approx(100 * np.array(values))
        assert (np.abs(offsets[:, 1] - place) < 0.5).all()


def test_mean_and_interval():
    _, axes, beside = draw(intervals=INTERVALS)
    reference, *rest = axes.lines
    assert list(reference.get_xdata()) == pytest.approx([57, 57])
    drawn = [line.get_xdata() for line in rest]
    expected = [[54, 60], [57], [62], [55, 71], [63]]
    assert [list(values) for values in drawn] == [pytest.approx(values) for values in expected]
    texts = [text.get_text() for text in beside.texts]
    assert texts == ["57.0 [54.0, 60.0]", "62.0", "63.0 [55.0, 71.0]", "mean [95 % interval]"]


def test_marks_and_colours_say_what_an_arm_trains_on():
    figure, axes, _ = draw()
    shapes = [marks.get_paths()[0].vertices.tobytes() for marks in axes.collections]
    colours = [to_hex(marks.get_edgecolor()[0]) for marks in axes.collections]
    assert len(set(shapes)) == len(set(colours)) == 3
    assert colours == [GROUPS[group][2].lower() for group in ("real", "blend", "genmix")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "real images only", "real and synthetic, blended", "GenMix", "one seed",
    ]  # fmt: skip
    assert all(1.05 / (luminance(colour) + 0.05) > 4.5 for _, _, colour in GROUPS.values())


@pytest.mark.parametrize(
    ("arm", "group"),
    [("baseline", "real"), ("mixup", "real"), ("repeat", "real"), ("genmix-real", "real"), ("blend", "blend"),
     ("blend:adm", "blend"), ("genmix", "genmix"), ("genmix-union:genmix-real", "genmix"), ("blender", "real"),
     ("blend@0.25", "blend"), ("pretrain:dcgan@keep=0.5", "pretrain"), ("pretrain-repeat", "real"),
     ("genmix@pairing=same", "genmix")],
)  # fmt: skip
def test_groups(arm, group):
    assert group_of(arm) == group


def test_only_groups_that_are_there_are_explained():
    figure = scores_figure({"baseline": [0.5], "mixup": [0.6]})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["real images only", "one seed"]


@pytest.mark.parametrize("reference", [None, "augmix"])
def test_without_a_reference_no_line(reference):
    _, axes, beside = draw(reference=reference)
    assert all(len(line.get_xdata()) == 1 for line in axes.lines)
    assert beside.texts[-1].get_text() == "mean"


def test_an_arm_that_could_not_be_run_stays_with_its_reason():
    _, axes, beside = draw(missing={"genmix:ldm": "no weights here"})
    assert [label.get_text() for label in axes.get_yticklabels()] == [*SEEDS, "genmix:ldm"]
    assert [text.get_text() for text in axes.texts] == ["no result: no weights here"]
    assert axes.texts[0].get_position()[1] == 3
    assert len(beside.texts) == 4  # three means and the heading


def test_a_long_reason_moves_nothing_off_the_page():
    short, *_ = draw(missing={"genmix:ldm": "no weights"})
    long, axes, _ = draw(missing={"genmix:ldm": "no weights, " * 40})
    assert axes.texts[0].get_text().startswith("no result: no weights, no weights,")
    assert axes.texts[0].get_text().endswith("...")
    for figure in (short, long):
        figure.draw_without_rendering()
    for one, other in zip(short.axes, long.axes, strict=True):
        assert one.get_position().bounds == pytest.approx(other.get_position().bounds)


def test_long_names_stay_on_the_page():
    seeds = {f"genmix-union:textual-inversion-{number}": [0.5, 0.6] for number in range(3)}
    figure = scores_figure(seeds, intervals=dict.fromkeys(seeds, (0.4, 0.7)), reference=None)
    axes, beside = figure.axes
    for text in (*axes.get_yticklabels(), *beside.texts):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert beside.texts[0].get_window_extent().x0 >= axes.get_window_extent().x1
    assert figure.get_figwidth() * 25.4 == pytest.approx(WIDTH)


def test_what_is_no_score():
    for seeds, options, message in (
        ({}, {}, "no arms"),
        ({"mixup": []}, {}, r"mixup: every seed needs a score, got \[\]"),
        ({"mixup": [float("nan")]}, {}, r"mixup: every seed needs a score, got \[nan\]"),
        (
            SEEDS,
            {"intervals": {"mixup": (0, 1)}},
            "an interval for 'mixup', which is none of the arms baseline, blend:adm",
        ),
        (SEEDS, {"missing": {"baseline": "lost"}}, "'baseline' is missing, and has scores"),
    ):
        with pytest.raises(InputError, match=message):
            scores_figure(seeds, **options)
