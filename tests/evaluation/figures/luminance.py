"""How bright a color is, for tests of contrast."""


def luminance(colour: str) -> float:
    """The relative luminance of an sRGB colour ``#RRGGBB``, 0 black to 1 white (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
