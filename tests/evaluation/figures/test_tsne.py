"""The embedding of features: which points are drawn where, with which mark and colour, and what names them."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import FeaturePoints, tsne_figure
from genmix_transforms.evaluation.figures.style import HOLLOW, KINDS, MARKERS, WIDTH, class_colours, rendered
from genmix_transforms.evaluation.figures.tsne import embed

CLASSES = ("cyst", "hemangioma", "metastasis")


def clusters(count=45, *, width=6, seed=0, kinds=KINDS):
    """A cluster a class, far apart; the kinds come in turn."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = random.normal(size=(count, width)) + 30 * np.eye(3, width)[labels]
    return FeaturePoints(features=features, labels=labels, kinds=np.array(kinds)[np.arange(count) // 3 % len(kinds)])


def drawn(axes):
    """The points of each (kind, class), by the label that they were drawn under."""
    return {tuple(some.get_label().split(" ", 1)): some for some in axes.collections}


def test_neighbours_stay_neighbours():
    points = clusters()
    places = embed(points.features, perplexity=10)
    for label in range(3):
        inside, centre = points.labels == label, places[points.labels == label].mean(axis=0)
        away = np.linalg.norm(places - centre, axis=1)
        assert away[inside].max() < away[~inside].min()
    assert np.abs(places).max() == pytest.approx(1)


def test_a_seed_gives_the_same_places():
    features = clusters(20).features
    assert np.array_equal(embed(features, seed=3), embed(features, seed=3))


@pytest.mark.parametrize("width", [1, 2, 80])
def test_any_number_of_features(width):
    features = np.random.default_rng(0).normal(size=(60, width))
    assert embed(features).shape == (60, 2)


def test_features_that_are_all_the_same():
    assert (embed(np.ones((6, 4))) == 0).all()


def test_every_point_is_drawn_where_it_was_embedded():
    points = clusters()
    figure = tsne_figure({"genmix": points}, CLASSES, perplexity=8, seed=2)
    places = embed(points.features, perplexity=8, seed=2)
    found = drawn(figure.axes[0])
    assert len(found) == 9
    for (kind, name), some in found.items():
        here = (points.kinds == kind) & (points.labels == CLASSES.index(name))
        assert np.allclose(np.asarray(some.get_offsets()), places[here])
    assert sum(len(some.get_offsets()) for some in found.values()) == len(points)


def test_a_colour_a_class_and_a_mark_a_kind():
    figure = tsne_figure({"genmix": clusters()}, CLASSES)
    paths = {}
    for (kind, name), some in drawn(figure.axes[0]).items():
        colour = class_colours(3)[CLASSES.index(name)].lower()
        if kind in HOLLOW:
            assert len(some.get_facecolor()) == 0
            assert to_hex(some.get_edgecolor()[0]) == colour
        else:
            assert to_hex(some.get_facecolor()[0]) == colour
        paths.setdefault(kind, set()).add(some.get_paths()[0].vertices.tobytes())
    assert all(len(shapes) == 1 for shapes in paths.values())
    assert paths["synthetic"].isdisjoint(paths["real"])
    assert MARKERS["synthetic"] == "^"


def test_real_points_lie_on_top():
    order = [some.get_label().split()[0] for some in tsne_figure({"a": clusters()}, CLASSES).axes[0].collections]
    assert order == ["genmix"] * 3 + ["synthetic"] * 3 + ["real"] * 3


def test_a_class_is_named_among_its_real_points():
    points = clusters(60)
    axes = tsne_figure({"baseline": points}, CLASSES).axes[0]
    places = embed(points.features)
    assert [text.get_text() for text in axes.texts] == list(CLASSES)
    real = points.kinds == "real"
    middles = np.array([np.median(places[real & (points.labels == label)], axis=0) for label in range(3)])
    for label, text in enumerate(axes.texts):
        away = np.linalg.norm(middles - text.get_position(), axis=1)
        assert away.argmin() == label
        # A name that would stick out of the panel is moved into it, along one side.
        assert min(abs(middles[label] - text.get_position())) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("columns", [1, 4])
def test_names_of_classes_that_lie_together_can_be_read(columns):
    """All three classes at the same place, at the edge for what is far away: names keep apart and in the panel."""
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(60, 4)), random.normal(size=(60, 4)) + 40])
    points = FeaturePoints(
        features=features,
        labels=np.concatenate([np.arange(60) % 3, np.zeros(60, dtype=int)]),
        kinds=np.array(["real"] * 60 + ["synthetic"] * 60),
    )
    figure = tsne_figure(dict.fromkeys("abcd", points), CLASSES, columns=columns)
    for axes in figure.axes:
        panel, boxes = axes.get_window_extent(), [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 3
        for box in boxes:
            assert panel.x0 - 1 <= box.x0
            assert box.x1 <= panel.x1 + 1
            assert panel.y0 - 1 <= box.y0
            assert box.y1 <= panel.y1 + 1
        for one, other in itertools.combinations(boxes, 2):
            shared = np.minimum(one.max, other.max) - np.maximum(one.min, other.min)
            assert min(shared) < 1  # pixel


def test_a_panel_an_arm_and_one_legend():
    arms = {f"arm {number}": clusters(15, seed=number, kinds=KINDS[: 1 + number % 2]) for number in range(5)}
    figure = tsne_figure(arms, CLASSES)
    assert [axes.get_title() for axes in figure.axes] == list(arms)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*CLASSES, "real", "synthetic"]
    assert figure.get_figwidth() * 25.4 <= WIDTH + 1e-6


@pytest.mark.parametrize("classes", [CLASSES, [f"class number {number}" for number in range(11)]])
def test_the_legend_lies_on_the_page(classes):
    """In one narrow panel it takes several rows."""
    figure = tsne_figure({"genmix": clusters()}, classes)
    box = figure.legends[0].get_window_extent()
    page = figure.bbox
    assert 0 <= box.x0 < box.x1 <= page.width
    assert 0 <= box.y0 < box.y1 <= page.height
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(name for name in names if name.strip()) == sorted([*classes, "real", "synthetic", "GenMix"])


def test_the_same_points_give_the_same_file():
    one, other = (rendered(tsne_figure({"a": clusters(20)}, CLASSES), "svg") for _ in range(2))
    assert one == other


def test_what_cannot_be_embedded():
    few = clusters(4)
    for arms, options, message in (
        ({}, {}, "no arms"),
        ({"mixup": few}, {}, "mixup: t-SNE needs at least 5 points, got 4"),
        ({"mixup": clusters()}, {"perplexity": 0}, "perplexity must be positive, got 0"),
        ({"mixup": clusters()}, {"columns": 0}, "columns must be a whole number"),
        ({"mixup": clusters()}, {"seed": -1}, "seed must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            tsne_figure(arms, CLASSES, **options)
    with pytest.raises(InputError, match="labels run to 2, but there are 2 classes, cyst, hemangioma"):
        tsne_figure({"a": clusters()}, CLASSES[:2])
    with pytest.raises(InputError, match=r"at least 5 rows of features, \(N, D\), got \(3, 2\)"):
        embed(np.zeros((3, 2)))
    with pytest.raises(InputError, match="not finite"):
        embed(np.full((6, 2), np.inf))
