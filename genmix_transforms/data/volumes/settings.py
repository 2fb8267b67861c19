"""How patches are cut: what of a lesion, at which spacing, in which gray values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from genmix_transforms.data.windowing import Window, check_level_width, window_ends
from genmix_transforms.errors import InputError
from genmix_transforms.settings import Settings, option

FULL_RANGE: Window = (-1024.0, 3071.0)
"""Hounsfield units of 0 and 65535 where no window is given: all that 12 bits hold, 16 steps to the unit."""

BACKGROUND = "background"
"""The mask class of pixels without a lesion."""


@dataclass(frozen=True, kw_only=True)
class PatchSettings(Settings):
    """What is cut out of a scan around each lesion. Each field is an option of ``genmix patches``.

    A lesion is a connected component of one value of the mask (neighbors by face, edge or corner).

    Raises:
        InputError: values out of range, or such that do not go together.

    Example:
        >>> PatchSettings(window=(40, 400)).gray_range
        (-160.0, 240.0)
    """

    size: int = option(64, help="Side of a patch, pixels.", least=8, most=4096)
    spacing: float | None = option(
        None,
        help="Millimeters a pixel, the same for all patches; none: each lesion's box and margin fill the patch.",
        above=0,
    )
    margin: float = option(6.0, help="Around the lesion's bounding box, mm.", least=0)
    kind: Literal["2d", "2.5d", "3d"] = option(
        "2d", help="2d: one slice; 2.5d: a slice and its neighbors, as channels; 3d: a cube (.npz alone)."
    )
    neighbors: int = option(1, help="For 2.5d: slices on either side of the middle one.", least=1, most=3)
    every: int | None = option(
        None,
        help="Every so many slices through the lesion; none: the slice of its largest cross-section.",
        least=1,
    )
    window: tuple[float, float] | None = option(
        None,
        help="LEVEL,WIDTH in Hounsfield units (in a scan's own values where it is no CT), to 8 bits; none: -1024 to "
        "3071 HU in 16 bits.",
    )
    labels: Mapping[str, str] | None = option(
        None,
        help="Classes by mask value, VALUE=NAME with commas between several; other values are no lesions. none: all "
        "values are, each the class of its own number.",
    )
    smallest: float = option(0.0, help="Lesions below this diameter are left out, mm.", least=0)

    keep_masks: bool = option(
        False, help="Keep the mask of each patch: the class of each pixel, 0 where there is no lesion."
    )

    def check(self) -> None:
        """See the class."""
        if self.window is not None:
            check_level_width(self.window)
        if self.kind == "3d" and self.every is not None:
            raise InputError("every: a cube has all slices of its lesion; leave every out")
        for value in self.labels or {}:
            if not value.isdecimal() or int(value) == 0:
                raise InputError(f"labels: mask values are whole numbers above 0, got {value!r}")
        if self.keep_masks and BACKGROUND in (self.labels or {}).values():
            raise InputError(
                f"labels: {BACKGROUND!r} is what masks call pixels without a lesion; give the class another name, or "
                "leave keep_masks out"
            )

    @property
    def gray_range(self) -> Window:
        """Hounsfield units of the lowest and the highest pixel value."""
        return FULL_RANGE if self.window is None else window_ends(*self.window)

    @property
    def channels(self) -> int:
        """How many there are of an image."""
        return 2 * self.neighbors + 1 if self.kind == "2.5d" else 1
