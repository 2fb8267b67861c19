"""The charts of a report, as SVG whose colors are those of the page, light or dark, on the screen and on paper."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.radiology import Curve

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 40
_TICKS = 5

Points = NDArray[np.float64]


def curve_chart(curve: Curve, *, title: str, logarithmic: bool = False) -> Markup:
    """Two curves, the real images' as a gray area, the bank's as a line.

    Args:
        curve: what is drawn.
        title: for whoever does not see it.
        logarithmic: of the y axis: decades.
    """
    x = np.array(curve.x)
    sides = [np.array(values) for values in (curve.real, curve.bank)]
    if logarithmic:
        least = max(max(float(side.max()) for side in sides) * 1e-6, 1e-12)
        sides = [np.log10(np.maximum(side, least)) for side in sides]
        low, high = math.floor(min(side.min() for side in sides)), math.ceil(max(side.max() for side in sides))
        high = max(high, low + 1)
        ticks = [(float(power), f"10<tspan dy='-4' font-size='8'>{power}</tspan>") for power in range(low, high + 1)]
        ticks = ticks[:: max(1, len(ticks) // _TICKS)]
    else:
        low, high = 0.0, max(float(side.max()) for side in sides) * 1.05 or 1.0
        ticks = [(0.0, "0")]
    across = _scale(x, float(x[0]), float(x[-1]), _LEFT, WIDTH - _RIGHT)
    lines = [_scale(side, low, high, HEIGHT - _BOTTOM, _TOP) for side in sides]
    area = f"M{_LEFT} {HEIGHT - _BOTTOM}L{_path(across, lines[0])}L{WIDTH - _RIGHT} {HEIGHT - _BOTTOM}Z"
    inner = [
        *_grid(ticks, low, high),
        f"<path class='real-area' d='{area}'/>",
        f"<path class='bank-line' d='M{_path(across, lines[1])}'/>",
        *_x_axis(float(x[0]), float(x[-1]), curve.x_name),
    ]
    return _svg("".join(inner), title)


def scatter_chart(real: Points, bank: Points, *, title: str, others: Points | None = None) -> Markup:
    """Places of images: real ones round and gray, the bank's square and colored, those of other classes faint.

    Args:
        real: ``(n, 2)``, from -1 to 1.
        bank: ``(m, 2)``.
        title: for whoever does not see it.
        others: ``(k, 2)``.
    """
    parts = [
        _dots(one, kind)
        for one, kind in ((others, "others"), (real, "real-dots"), (bank, "bank-dots"))
        if one is not None and len(one)
    ]
    return _svg("".join(parts), title, height=WIDTH, name="chart map")


def whisker(one: Measured) -> Markup:
    """A number's interval over that of real images, on one line; it says no more than the table's other cells."""
    ends = [one.low, one.high, one.real_low, one.real_high, one.value, one.real]
    if one.refused or not all(map(math.isfinite, ends)):
        return Markup()
    low, high = min(ends), max(ends)
    room = (high - low) * 0.04 or 1.0
    places = _scale(np.array(ends), low - room, high + room, 2, 118)
    at = dict(zip("lhLHvr", places.tolist(), strict=True))
    inner = (
        f"<rect class='real-area' x='{at['L']:.1f}' y='3' width='{max(1.0, at['H'] - at['L']):.1f}' height='14'/>"
        f"<path class='real-mark' d='M{at['r']:.1f} 3v14'/>"
        f"<path class='bank-line' d='M{at['l']:.1f} 10H{at['h']:.1f}'/>"
        f"<circle class='bank-dot' cx='{at['v']:.1f}' cy='10' r='4'/>"
    )
    return Markup(f"<svg class='whisker' viewBox='0 0 120 20' aria-hidden='true'>{inner}</svg>")


def _svg(inner: str, title: str, *, height: int = HEIGHT, name: str = "chart") -> Markup:
    said = Markup.escape(title)
    return Markup(f"<svg class='{name}' viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{said}'>{inner}</svg>")


def _scale(values: Points, low: float, high: float, start: float, end: float) -> Points:
    scaled: Points = start + (values - low) / max(high - low, 1e-300) * (end - start)
    return scaled


def _path(x: Points, y: Points) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _dots(places: Points, kind: str) -> str:
    """All in one path: a line of no length is a dot of the line's width, round or square as its ends are."""
    middle, reach = WIDTH / 2, WIDTH / 2 - 8
    drawn = "".join(f"M{middle + reach * x:.1f} {middle + reach * y:.1f}h0" for x, y in places)
    return f"<path class='{kind}' d='{drawn}'/>"


def _grid(ticks: Sequence[tuple[float, str]], low: float, high: float) -> list[str]:
    drawn = []
    for value, text in ticks:
        at = float(_scale(np.array([value]), low, high, HEIGHT - _BOTTOM, _TOP)[0])
        drawn.append(f"<path class='grid' d='M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}'/>")
        drawn.append(f"<text x='{_LEFT - 6}' y='{at + 4:.1f}' text-anchor='end'>{text}</text>")
    return drawn


def _x_axis(low: float, high: float, name: str) -> list[str]:
    drawn = []
    for value in round_ticks(low, high):
        at = float(_scale(np.array([value]), low, high, _LEFT, WIDTH - _RIGHT)[0])
        drawn.append(f"<path class='grid' d='M{at:.1f} {HEIGHT - _BOTTOM}v4'/>")
        drawn.append(f"<text x='{at:.1f}' y='{HEIGHT - _BOTTOM + 17}' text-anchor='middle'>{value:g}</text>")
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    drawn.append(f"<text x='{middle}' y='{HEIGHT - 5}' text-anchor='middle'>{Markup.escape(name)}</text>")
    return drawn


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, four to nine of them.

    Example:
        >>> round_ticks(0.0, 255.0), round_ticks(0.03, 0.5)
        ([0.0, 50.0, 100.0, 150.0, 200.0, 250.0], [0.1, 0.2, 0.3, 0.4, 0.5])
    """
    power = 10.0 ** math.floor(math.log10(max(high - low, 1e-12)))
    step = next(part * power for part in (0.1, 0.2, 0.5, 1.0) if (high - low) / (part * power) < 8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
