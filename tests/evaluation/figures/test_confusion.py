"""Confusion matrices: the shares and counts that stand in the cells, and that they can be read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import confusion_figure
from genmix_transforms.evaluation.figures.confusion import shares
from genmix_transforms.evaluation.figures.style import DASH, INK, WIDTH
from tests.evaluation.figures.luminance import luminance

CLASSES = ("cyst", "hemangioma", "metastasis")
ONE = [[8, 2, 0], [1, 3, 0], [5, 5, 10]]
OTHER = [[6, 2, 2], [0, 4, 0], [0, 0, 20]]


def cells(axes):
    """What is written in each cell, ``(K, K)``."""
    size = int(len(axes.texts) ** 0.5)
    found = np.full((size, size), "", dtype=object)
    for text in axes.texts:
        column, row = text.get_position()
        found[row, column] = text.get_text()
    return found.tolist()


def test_per_cent_of_the_row_and_the_number():
    axes = confusion_figure({"baseline": ONE}, CLASSES).axes[0]
    assert cells(axes) == [["80\n(8)", "20\n(2)", "0\n(0)"], ["25\n(1)", "75\n(3)", "0\n(0)"],
                           ["25\n(5)", "25\n(5)", "50\n(10)"]]  # fmt: skip


def test_of_several_seeds_the_mean():
    axes = confusion_figure({"baseline": [ONE, OTHER]}, CLASSES).axes[0]
    found = cells(axes)
    assert found[0] == ["70\n(7.0)", "20\n(2.0)", "10\n(1.0)"]
    assert found[1] == ["12\n(0.5)", "88\n(3.5)", "0\n(0.0)"]
    assert np.allclose(axes.images[0].get_array(), shares(np.array([ONE, OTHER])))


@given(st.lists(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=3, max_size=3), min_size=1))
def test_rows_add_up_to_100_or_are_unknown(counts):
    found = shares(np.array(counts, dtype=np.float64))
    empty = np.array(counts).sum(axis=(0, 2)) == 0
    assert np.isnan(found[empty]).all()
    assert np.allclose(found[~empty].sum(axis=1), 100)


def test_a_class_without_images_has_dashes():
    axes = confusion_figure({"baseline": [[8, 2], [0, 0]]}, CLASSES[:2]).axes[0]
    assert cells(axes)[1] == [DASH, DASH]
    assert axes.images[0].get_array().mask.tolist() == [[False, False], [True, True]]


def test_a_panel_an_arm_with_the_classes_at_the_edges():
    figure = confusion_figure({f"arm {number}": ONE for number in range(5)}, CLASSES)
    assert [axes.get_title() for axes in figure.axes] == [f"arm {number}" for number in range(5)]
    left = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    below = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    named, bare = list(CLASSES), ["", "", ""]
    assert left == [named, bare, bare, named, bare]
    assert below == [bare, bare, bare, named, named]
    assert figure.get_figwidth() * 25.4 <= WIDTH + 1e-6


@pytest.mark.parametrize(("arms", "classes"), [(1, 2), (2, 2), (4, 3), (1, 9), (4, 9), (2, 14)])
def test_letters_can_be_read_and_stay_in_their_cells(arms, classes):
    counts = np.full((classes, classes), 400) - np.eye(classes, dtype=int)
    figure = confusion_figure(
        {str(number): [counts, counts + 1] for number in range(arms)}, [f"c{n}" for n in range(classes)]
    )
    axes = figure.axes[-1]
    cell = axes.get_window_extent().width / classes
    for text in axes.texts[:2]:
        assert text.get_fontsize() >= 5 or classes > 8
        assert text.get_window_extent().width <= cell
    counted = "\n" in axes.texts[0].get_text()
    assert counted == (arms * classes <= 12)


def test_black_letters_stand_out_from_the_darkest_cell():
    axes = confusion_figure({"baseline": [[10, 0], [0, 10]]}, CLASSES[:2]).axes[0]
    image = axes.images[0]
    darkest = to_hex(image.cmap(image.norm(100.0)))
    assert {text.get_color() for text in axes.texts} == {INK}
    assert (luminance(darkest) + 0.05) / (luminance(INK) + 0.05) > 4.5
    steps = [luminance(to_hex(image.cmap(image.norm(value)))) for value in range(0, 101, 10)]
    assert (np.diff(steps) < 0).all()  # in grey too, more is darker


@pytest.mark.parametrize("classes", [CLASSES, ("normal", "pneumonia"), ("a", "b")])
def test_nothing_hangs_over_the_page(classes):
    figure = confusion_figure({"baseline": np.eye(len(classes))}, classes)
    for text in (
        figure._supxlabel,
        figure._supylabel,
        *figure.axes[0].get_xticklabels(),
        *figure.axes[0].get_yticklabels(),
    ):
        box = text.get_window_extent()
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.width + 1


def test_what_is_no_confusion():
    for confusions, message in (
        ({}, "no arms"),
        ({"mixup": [[1, 2]]}, r"mixup: a confusion matrix of 2 classes is \(2, 2\), or \(seeds, 2, 2\), got \(1, 2\)"),
        ({"mixup": np.zeros((0, 2, 2))}, r"got \(0, 2, 2\)"),
        ({"mixup": [[1, -2], [0, 1]]}, "mixup: numbers of images cannot be negative"),
        ({"mixup": [[1, np.nan], [0, 1]]}, "infinite or NaN"),
    ):
        with pytest.raises(InputError, match=message):
            confusion_figure(confusions, CLASSES[:2])
    with pytest.raises(InputError, match="classes must be a list of names"):
        confusion_figure({"mixup": [[1]]}, [])
