"""Charts as SVG: whole, escaped, and where the numbers say."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.radiology import Curve
from genmix_transforms.evaluation.audit.report.charts import curve_chart, round_ticks, scatter_chart, whisker


def curve(bank, real, **options):
    x = tuple(float(number) for number in range(len(bank)))
    return Curve(name="histogram", x=x, x_name="gray & levels", bank=tuple(bank), real=tuple(real), **options)


def heights(svg, kind):
    path = re.search(f"class='{kind}' d='([^']*)'", svg)[1]
    return [float(pair.split()[1]) for pair in re.split("[ML]", path.rstrip("Z"))[1:]]


def test_a_higher_value_stands_higher_and_both_start_at_the_axis():
    svg = curve_chart(curve([0, 2, 1], [0, 1, 0]), title="<i>bright</i>")
    ElementTree.fromstring(svg)
    assert "&lt;i&gt;" in svg
    assert "gray &amp; levels" in svg
    ours, theirs = heights(svg, "bank-line"), heights(svg, "real-area")
    assert ours[1] < ours[2] < ours[0]
    assert ours[0] == theirs[0]  # 0 is the axis


def test_decades_are_equally_far_apart_and_zero_is_no_infinity():
    svg = curve_chart(curve([100, 10, 1, 0], [100, 10, 1, 1]), title="power", logarithmic=True)
    ElementTree.fromstring(svg)
    first, second, third, last = heights(svg, "bank-line")
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert math.isfinite(last)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_curves_of_nothing_can_be_drawn(logarithmic):
    ElementTree.fromstring(curve_chart(curve([0, 0], [0, 0]), title="nothing", logarithmic=logarithmic))


def test_every_image_is_a_dot_of_its_kind():
    svg = scatter_chart(np.zeros((3, 2)), np.ones((2, 2)), title="map", others=np.full((4, 2), -1.0))
    ElementTree.fromstring(svg)
    counts = {kind: re.search(f"class='{kind}' d='([^']*)'", svg)[1].count("h0") for kind in ("real-dots", "others")}
    assert counts == {"real-dots": 3, "others": 4}
    assert "others" not in scatter_chart(np.zeros((3, 2)), np.ones((2, 2)), title="map", others=np.zeros((0, 2)))


def test_a_whisker_is_as_long_as_the_interval():
    one = Measured(name="x", value=1, low=0, high=2, real=6, real_low=4, real_high=8)
    svg = whisker(one)
    ElementTree.fromstring(svg)
    low, high = map(float, re.search(r"bank-line' d='M([\d.]+) 10H([\d.]+)'", svg).groups())
    assert high - low == pytest.approx(float(re.search(r"width='([\d.]+)'", svg)[1]) / 2, abs=0.2)
    assert "aria-hidden" in svg
    assert whisker(Measured(name="x", refused="too few")) == ""
    ElementTree.fromstring(whisker(Measured(name="x", value=1, low=1, high=1, real=1, real_low=1, real_high=1)))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0.03, 0.5), (-1000, 400), (5, 5.001)])
def test_ticks_are_within_and_neither_few_nor_many(low, high):
    ticks = round_ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
