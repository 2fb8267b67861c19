"""The kinds of generator by name; nothing is imported to know them."""

import pkgutil
from importlib.metadata import entry_points

import genmix_transforms.generators as room

ENTRY_POINTS = "genmix_transforms.generators"
"""Where packages of others name their kinds."""


def trainable_kinds() -> list[str]:
    """The kinds that ``genmix train`` has a command for: the packages of this room, and the entry points.

    Example:
        >>> "textual-inversion" in trainable_kinds()
        True
    """
    own = {info.name.replace("_", "-") for info in pkgutil.iter_modules(room.__path__) if info.ispkg}
    return sorted(own | {entry.name for entry in entry_points(group=ENTRY_POINTS)})
