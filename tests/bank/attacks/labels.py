"""What stands in the columns beside the pixels, forged: sizes and checksums are right."""

from pathlib import Path

import numpy as np

from .attack import SHARDS, Attacks, Opens, Refused
from .editing import edit_column, edit_entry, edit_manifest

ATTACKS = Attacks("labels")

SHARD = SHARDS[0]
NOT_COUNTED = rf"{SHARD}: its labels are not those that the manifest counts, class by class: \(2, 1\)"
NO_PROBABILITIES = f"{SHARD}: label probabilities that are negative or not numbers"

for _what, _labels in {
    "not sorted": [0, 1, 0],
    "the wrong way round": [1, 0, 0],
    "of a class that there is not": [0, 0, 2],
    "negative": [-1, 0, 1],
    "others than are counted": [0, 1, 1],
    "of one class": [1, 1, 1],
    "very high": [0, 0, 2**62],
    "very low": [-(2**63), 0, 1],
    "negative inside": [0, -1, 1],
}.items():
    ATTACKS.add(f"labels that are {_what}", NOT_COUNTED, name=f"index[{_what}]")(
        lambda folder, labels=_labels: edit_column(folder, "labels", labels)
    )


@ATTACKS.add("the manifest counts other labels", r"class by class: \(1, 2\)")
def counts(folder: Path) -> None:
    edit_entry(folder, 0, class_counts=[1, 2])
    edit_entry(folder, 1, class_counts=[2, 1])


@ATTACKS.add("labels that are others, and counted", load=Opens.CHANGED, verify=Opens.SAME, opened=Opens.CHANGED)
def harmless(folder: Path) -> None:
    """So that the refusals here are not for the forging."""
    edit_column(folder, "labels", [0, 1, 1])
    edit_entry(folder, 0, class_counts=[1, 2])
    edit_manifest(folder, lambda manifest: manifest.update(class_counts={"cyst": 4, "hémangiome": 5}))


for _what, _row, _text in (
    ("NaN", [np.nan, 1], NO_PROBABILITIES),
    ("all NaN", [np.nan, np.nan], NO_PROBABILITIES),
    ("infinite", [np.inf, 1], NO_PROBABILITIES),
    ("minus infinity", [1, -np.inf], NO_PROBABILITIES),
    ("negative", [1, -0.25], NO_PROBABILITIES),
    ("of another class", [0.25, 0.75], NOT_COUNTED),
):
    ATTACKS.add(f"label probabilities that are {_what}", _text, name=f"soft[{_what}]", soft=True)(
        lambda folder, row=_row: edit_column(folder, "labels", row, row=1)
    )

for _what, _source in {"past the end": 2, "negative": -1, "very high": 2**31 - 1, "very low": -(2**31)}.items():
    ATTACKS.add(
        f"a source that is {_what}",
        name=f"source[{_what}]",
        load=Opens.CHANGED,  # sources are looked at by verify_bank alone, as the format says
        verify=Refused(rf"{SHARD} \(of a source that the manifest does not have\)"),
        opened=Opens.CHANGED,
    )(lambda folder, source=_source: edit_column(folder, "source", source, row=1))

for _distance in (-1.0, -np.inf):
    ATTACKS.add(
        f"a distance of {_distance}",
        name=f"distance[{_distance}]",
        load=Opens.CHANGED,
        verify=Refused(f"{SHARD} .*distance"),
        opened=Opens.CHANGED,
    )(lambda folder, distance=_distance: edit_column(folder, "distance", distance, row=1))

ATTACKS.add(
    "a pixel, of another value than the manifest's range",
    name="pixel_range",
    load=Opens.CHANGED,
    verify=Refused(rf"{SHARD} \(its pixels are not from"),
    opened=Opens.CHANGED,
)(lambda folder: edit_column(folder, "images", 0, row=1))
