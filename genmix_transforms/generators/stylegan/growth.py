"""Where a network stands in its growth: doublings beyond 4 pixels, a whole number but for the time of a fade."""

import math

SMALLEST = 4
"""Both networks begin at 4 x 4 pixels."""


def doublings(resolution: int) -> int:
    """How often 4 pixels are doubled to make ``resolution``.

    Example:
        >>> doublings(64)
        4
    """
    return resolution.bit_length() - 3


def resolution_at(growth: float) -> int:
    """The side of the images at this growth, in pixels.

    Example:
        >>> resolution_at(3.0), resolution_at(3.25)
        (32, 64)
    """
    return SMALLEST << level_at(growth)


def level_at(growth: float) -> int:
    """The block that makes the images at this growth: 0 for 4 pixels, 1 for 8, ..."""
    return math.ceil(growth)


def fade_at(growth: float) -> float:
    """How much of the newest block counts, in (0, 1]; the rest is the block before it, doubled.

    Example:
        >>> fade_at(3.0), fade_at(3.25)
        (1.0, 0.25)
    """
    return 1.0 - (level_at(growth) - growth)


def channels_at(level: int, *, fmap_base: int, fmap_max: int) -> int:
    """Channels of a block's activations: halved with every doubling, up to a maximum.

    Example:
        >>> [channels_at(level, fmap_base=8192, fmap_max=512) for level in range(9)]
        [512, 512, 512, 512, 256, 128, 64, 32, 16]
    """
    return max(1, min(fmap_base >> (level + 1), fmap_max))
