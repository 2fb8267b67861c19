"""Lesions: the connected components of a mask, their size, and where each is largest."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A connected component of one value of a mask.

    Args:
        value: of the mask.
        number: of the lesion within the scan, from 0 up: by value, then from feet to head.
        low: first column, row and slice of its bounding box.
        high: last ones.
        middle_slice: of its largest cross-section; of several as large, the first.
        volume: mm^3.
        diameter: of the circle with the area of its largest cross-section, mm.
    """

    value: int
    number: int
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    middle_slice: int
    volume: float
    diameter: float
    boxes: dict[int, tuple[int, int, int, int]]
    """By slice: first and last column, first and last row."""


def find_lesions(mask: Any, *, values: Collection[int] | None = None) -> list[Lesion]:
    """Find the lesions of a mask.

    Args:
        mask: a ``SimpleITK.Image`` of whole numbers.
        values: that are lesions; None: all but 0.
    """
    import SimpleITK as sitk

    spacing = mask.GetSpacing()
    # Components are looked for where there is something: lesions are small, and volumes are not.
    whole = sitk.GetArrayViewFromImage(mask)
    ranges = [_range(whole.any(axis=others)) for others in ((0, 1), (0, 2), (1, 2))]
    if None in ranges:
        return []
    (left, right), (top, bottom), (feet, head) = (found for found in ranges if found is not None)
    mask = mask[left:right, top:bottom, feet:head]
    array = sitk.GetArrayViewFromImage(mask)
    present = [int(value) for value in np.unique(array) if value]
    lesions: list[Lesion] = []
    for value in present if values is None else sorted(set(values) & set(present)):
        components = sitk.ConnectedComponent(sitk.Equal(mask, value), True)
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(components)
        labels = sitk.GetArrayViewFromImage(components)
        boxes = {label: shapes.GetBoundingBox(label) for label in shapes.GetLabels()}
        for label, (x, y, z, width, height, depth) in sorted(
            boxes.items(), key=lambda item: (item[1][2], item[1][1], item[1][0], item[0])
        ):
            part = labels[z : z + depth, y : y + height, x : x + width] == label
            areas = part.sum(axis=(1, 2))
            x, y, z = x + left, y + top, z + feet
            lesions.append(
                Lesion(
                    value=value,
                    number=len(lesions),
                    low=(x, y, z),
                    high=(x + width - 1, y + height - 1, z + depth - 1),
                    middle_slice=z + int(areas.argmax()),
                    volume=float(areas.sum() * spacing[0] * spacing[1] * spacing[2]),
                    diameter=float(2 * np.sqrt(areas.max() * spacing[0] * spacing[1] / np.pi)),
                    boxes={z + k: _box(plane, x, y) for k, plane in enumerate(part) if plane.any()},
                )
            )
    return lesions


def _range(there: Any) -> tuple[int, int] | None:
    """From the first to behind the last that is true."""
    places = np.flatnonzero(there)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else None


def _box(plane: Any, x: int, y: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return x + int(columns[0]), x + int(columns[-1]), y + int(rows[0]), y + int(rows[-1])
