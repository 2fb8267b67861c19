"""The look of the figures: colours that can be told apart, and files that are whole and always the same."""

import itertools

import matplotlib
import numpy as np
import pytest
from PIL import Image

from genmix_transforms.errors import InputError, MissingExtraError, OverwriteError
from genmix_transforms.evaluation.figures import style
from tests.evaluation.figures.luminance import luminance

# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (IEEE TVCG 15,
# 2009), severity 1.0: matrices on linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour):
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear RGB, D65."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distances(colours, seen_by=None):
    matrix = np.eye(3) if seen_by is None else np.array(DEFICIENCIES[seen_by])
    found = [lab(matrix @ linear(colour)) for colour in colours]
    return [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(found, 2)]


@pytest.mark.parametrize("seen_by", [None, *DEFICIENCIES])
def test_the_colour_blind_can_tell_classes_apart(seen_by):
    assert min(distances(style.class_colours(3), seen_by)) > 35
    assert min(distances(style.class_colours(8), seen_by)) > 10


def test_a_grey_print_keeps_three_classes():
    lightness = sorted(lab(linear(colour))[0] for colour in style.class_colours(3))
    assert min(np.diff(lightness)) > 16


def test_the_distances_can_be_too_small():
    """The check above can fail: red and green of one lightness, for a deuteranope."""
    assert min(distances(["#D55E00", "#8A8A00"], "deuteranopia")) < 15


@pytest.mark.parametrize("colour", style.class_colours(3))
def test_colours_stand_out_from_the_page(colour):
    assert 1.05 / (luminance(colour) + 0.05) > 3


@pytest.mark.parametrize("count", [1, 3, 8, 9, 14])
def test_every_class_has_a_colour_of_its_own(count):
    colours = style.class_colours(count)
    assert len(set(colours)) == count
    lightness = [lab(linear(colour))[0] for colour in colours]
    if count > 8:
        assert (np.diff(lightness) > 0).all()  # in order, as cividis is
    assert max(lightness) < 90


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (0.123, False, "12.3"),
        (0.123, True, "+12.3"),
        (-0.123, True, f"{style.MINUS}12.3"),
        (-0.0001, True, "0.0"),
        (float("nan"), True, style.DASH),
        (1.0, False, "100.0"),
    ],
)
def test_percent(value, sign, text):
    assert style.percent(value, sign=sign) == text


def draw():
    with style.house_style():
        figure = style.new_figure(height=40, width=60)
        figure.subplots().plot([0, 1], [0, 1], label="a")
        return style.finished(figure)


@pytest.mark.parametrize(
    ("text", "size", "weight"), [("hemangioma", 8, "bold"), ("iiii", 7, "normal"), ("", 7, "bold")]
)
def test_the_width_of_a_text_is_that_of_the_drawn_one(text, size, weight):
    with style.house_style():
        figure = style.new_figure(height=20, width=80, layout="none")
        drawn = figure.text(0, 0, text, size=size, weight=weight).get_window_extent()
    assert style.text_width(text, size=size, weight=weight) == pytest.approx(drawn.width / style.DPI * 25.4, abs=0.6)


def test_the_settings_of_the_user_are_neither_used_nor_changed():
    plain = style.rendered(draw(), "png", dpi=60)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        mine = dict(matplotlib.rcParams)
        assert style.rendered(draw(), "png", dpi=60) == plain
        assert dict(matplotlib.rcParams) == mine


def test_no_figure_stays_open():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw()
    assert plt.get_fignums() == before


@pytest.mark.parametrize("kind", style.FORMATS)
def test_the_same_figure_gives_the_same_bytes(tmp_path, kind):
    for name in ("one", "other"):
        style.save_figure(draw(), tmp_path / "new" / f"{name}.{kind}", description="from a test", dpi=60)
    one, other = ((tmp_path / "new" / f"{name}.{kind}").read_bytes() for name in ("one", "other"))
    assert one == other
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"one.{kind}", f"other.{kind}"}


def test_the_description_is_in_the_files(tmp_path):
    for kind in style.FORMATS:
        style.save_figure(draw(), tmp_path / f"a.{kind}", description="seed 7")
    assert b"(seed 7)" in (tmp_path / "a.pdf").read_bytes()
    assert "seed 7" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert Image.open(tmp_path / "a.png").info["Description"] == "seed 7"


def test_letters_are_embedded_in_the_vector_files():
    assert b"/FontFile2" in style.rendered(draw(), "pdf")  # TrueType
    assert b"/Type3" not in style.rendered(draw(), "pdf")
    assert b"<text" not in style.rendered(draw(), "svg")  # outlines


def test_the_size_is_the_one_asked_for(tmp_path):
    style.save_figure(draw(), tmp_path / "a.png", dpi=254)
    assert Image.open(tmp_path / "a.png").size == (600, 400)


def test_what_no_figure_can_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"a figure is a \.pdf, \.svg or \.png file"):
        style.save_figure(draw(), tmp_path / "a.jpg")
    with pytest.raises(OverwriteError, match="cannot be a folder"):
        style.save_figure(draw(), tmp_path / "file" / "a.png")
    with pytest.raises(InputError, match="classes must be a list of names, got 'cyst'"):
        style.check_classes("cyst")


@pytest.mark.parametrize(
    ("module", "library"), [("matplotlib.figure", "matplotlib"), ("sklearn.manifold", "scikit-learn")]
)
def test_a_missing_library_names_the_extra(monkeypatch, module, library):
    def refuse(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(style.importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=rf"needs {library}: .* pip install 'genmix-transforms\[figures\]'"):
        style.need(module)


def test_a_long_name_is_broken_before_its_parts():
    name = "genmix:stylegan@keep=0.5@keep_by=random"
    assert style.name_in_lines(name, width=1000, size=8) == name
    assert style.name_in_lines(name, width=1, size=8) == "genmix\n:stylegan\n@keep=0.5\n@keep_by=random"
    lines = style.name_in_lines(name, width=35, size=8).split("\n")
    assert "".join(lines) == name
    assert all(style.text_width(line, size=8) <= 35 for line in lines)
