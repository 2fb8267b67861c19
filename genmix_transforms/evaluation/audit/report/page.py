"""The page of a report: what stands on it, put into its template."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.bank.card import provenance_facts
from genmix_transforms.evaluation.audit.answers import ADVICE, STATUS_WORDS
from genmix_transforms.evaluation.audit.auditing import Audit, versions
from genmix_transforms.evaluation.audit.found_copies import Copies
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.quality import some_of_each, together
from genmix_transforms.evaluation.audit.report.charts import curve_chart, scatter_chart, whisker
from genmix_transforms.evaluation.audit.report.pictures import Window, difference, picture, sheet
from genmix_transforms.evaluation.audit.report.words import HEADLINES, MEANING, compare, interval, short
from genmix_transforms.evaluation.figures.tsne import embed
from genmix_transforms.files.pages import render_page

NEAREST_SHOWN = 4
"""Pairs that are shown where none is flagged: so that a reader sees how near the nearest come."""

SHEET_IMAGES, SHEET_COLUMNS = 12, 6
ALL_SHEETS = 240
"""Images on all sheets together, about."""

POINTS = 300
"""Real and synthetic images on the map, each, at most."""

MOST_MAPS = 8
"""Classes that have a map of their own."""

MOST_JSON = 2 * 2**20
"""Bytes of JSON that a page takes along; of more there is the file alone."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A synthetic image and the training image that it is nearest to.

    Args:
        number: of the image in the bank.
        class_name: its class.
        nearest: number of the training image.
        of: what the training image's patient is called; empty where nobody asked.
        how: what lays one over the other, in words.
        distance: of both.
        drawn: address of the synthetic image.
        laid: of the same, laid over the real one.
        real: of the real one.
        difference: of the map of differences.
        mean_difference: gray levels of 255.
    """

    number: int
    class_name: str
    real_name: str
    of: str
    how: str
    distance: float
    drawn: str
    laid: str
    real: str
    difference: str
    mean_difference: float


def render(audit: Audit) -> str:
    """The whole page, with all that it shows within it.

    Raises:
        MissingExtraError: a map is asked for, and scikit-learn is not installed.
    """
    return render_page(__package__, "report", _context(audit))


def _context(audit: Audit) -> dict[str, Any]:
    bank, quality, settings = audit.bank, audit.quality, audit.settings
    unseen = together(*audit.splits[1:])
    real = audit.splits[0] if settings.against == "train" else unseen
    window = Window.of(real.images)
    labels = (bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)).cpu()
    content = json.dumps(audit.to_dict(), indent=2, ensure_ascii=False, allow_nan=False).encode()
    kind = audit.verdict.kind
    of_labels, of_use = quality.labels, quality.usefulness
    class_numbers = {
        name: [
            *numbers.values(),
            *(() if of_labels is None else of_labels.by_class[name]),
            *(() if of_use is None else of_use.by_class[name]),
        ]
        for name, numbers in quality.by_class.items()
    }
    overall = [
        *quality.overall.values(),
        *(() if of_labels is None else of_labels.overall),
        *(() if of_use is None else of_use.overall),
    ]
    return {
        "headline": HEADLINES[kind],
        "findings": audit.verdict.findings,
        "advice": ADVICE[kind],
        "answers": audit.answers,
        "status_words": STATUS_WORDS,
        "notes": audit.notes,
        "bank": {
            "images": len(bank),
            "shape": " x ".join(map(str, bank.image_shape[1:])),
            "counts": bank.class_counts,
        },
        "compared_with": "training images" if settings.against == "train" else "real images that no generator has seen",
        "real_images": len(real),
        "patients": None if real.groups is None else len(real.groups.unique()),
        "train_images": len(audit.splits[0]),
        "pool_images": 0 if audit.pool is None else len(audit.pool),
        "date": audit.date,
        "copies": None if audit.copies is None else _copies(audit, audit.copies, labels, window),
        "sheets": _sheets(audit, labels, unseen.images, unseen.labels, window),
        "charts": [
            {
                "title": title,
                "chart": curve_chart(curve, title=f"{title}: {said}", logarithmic=number == 1),
                "said": said,
            }
            for number, (curve, title, said) in enumerate(
                zip(quality.curves, ("Brightness", "Detail, from coarse to fine"), _CURVES, strict=True)
            )
        ],
        "maps": _maps(audit, labels, real.images, real.labels) if settings.tsne else None,
        "features": quality.features,
        "overall": [_row(one) for one in overall],
        "by_class": {name: [_row(one) for one in numbers] for name, numbers in class_numbers.items()},
        "crossed": None
        if of_labels is None
        else [("Synthetic images", of_labels.predicted), ("Real images (test part)", of_labels.real_predicted)],
        "classes": bank.classes,
        "sources": provenance_facts(bank),
        "settings": _settings(audit),
        "versions": versions(),
        "json": None if len(content) > MOST_JSON else base64.b64encode(content).decode(),
        "json_bytes": len(content),
    }


_CURVES = (
    "how often each gray value occurs. Where the line leaves the gray area, the synthetic images are too bright, too "
    "dark, or have too little contrast.",
    "how strong structures of each size are; the right end is grain. Below the gray area: smoother than real.",
)


def _row(one: Measured) -> Mapping[str, Any]:
    return {
        "name": f"{one.name} ({one.unit})" if one.unit else one.name,
        "meaning": MEANING.get(one.name, ""),
        "refused": one.refused,
        "bank": (short(one.value), interval(one.low, one.high)),
        "real": (short(one.real), interval(one.real_low, one.real_high)),
        "whisker": whisker(one),
        "compared": compare(one),
    }


def _settings(audit: Audit) -> Sequence[tuple[str, str, str]]:
    """What the numbers hang on: name, value, what it is."""
    of_the_page = ("pairs", "tsne", "group_names", "features")
    return [
        (one.name.replace("_", " "), one.write(getattr(audit.settings, one.name)), one.help)
        for one in audit.settings.options()
        if one.name not in of_the_page
    ]


def _copies(audit: Audit, copies: Copies, labels: Tensor, window: Window) -> Mapping[str, Any]:
    order = copies.distance.argsort(stable=True)
    flagged = order[copies.near_copy[order]]
    shown = flagged[: audit.settings.pairs] if len(flagged) else order[: min(NEAREST_SHOWN, audit.settings.pairs)]
    found = copies.to_dict()
    return {
        "found": found,
        "pairs": [_pair(audit, copies, number, labels, window) for number in shown.tolist()],
        "flagged": len(flagged),
        "more": max(0, len(flagged) - len(shown)),
        "threshold": copies.threshold,
        "expected": audit.settings.share,
        "unseen": audit.flagged_unseen,
        "reidentification": None if copies.reidentification is None else copies.reidentification.text,
    }


def _pair(audit: Audit, copies: Copies, number: int, labels: Tensor, window: Window) -> Pair:
    train, way = audit.searched, copies.transformations[number]
    nearest = int(copies.nearest[number])
    own = audit.bank.rows(torch.tensor([number], device=audit.bank.device)).cpu()[0]
    laid, real = copies.pair(number, audit.bank, train)
    left = difference(laid, real, part=way.part)
    of = ""
    if audit.settings.group_names and train.groups is not None:
        of = f"group {int(train.groups[nearest])}"
    return Pair(
        number=number,
        class_name=audit.bank.classes[int(labels[number])],
        real_name=copies.real_image(nearest),
        of=of,
        how=way.text,
        distance=float(copies.distance[number]),
        drawn=picture(own, window),
        laid=picture(laid, window),
        real=picture(real, window),
        difference=left.picture,
        mean_difference=left.mean,
    )


def _sheets(
    audit: Audit, labels: Tensor, real: Tensor, real_labels: Tensor, window: Window
) -> Sequence[Mapping[str, Any]]:
    """Of each class some synthetic and some real images, at random."""
    classes, bank = audit.bank.classes, audit.bank
    most = max(4, min(SHEET_IMAGES, ALL_SHEETS // (2 * len(classes))))
    random = np.random.default_rng(audit.settings.seed)
    found = []
    for place, name in enumerate(classes):
        ours, theirs = (
            torch.from_numpy(np.sort(random.permutation(np.flatnonzero((of == place).numpy()))[:most]))
            for of in (labels, real_labels)
        )
        found.append({
            "name": name,
            "bank": sheet(bank.rows(ours.to(bank.device)).cpu(), window, columns=SHEET_COLUMNS),
            "bank_count": len(ours),
            "real": sheet(real[theirs], window, columns=SHEET_COLUMNS),
            "real_count": len(theirs),
        })  # fmt: skip
    return found


def _maps(audit: Audit, labels: Tensor, real: Tensor, real_labels: Tensor) -> Sequence[Mapping[str, Any]]:
    """Where images lie in the features' map: all, and those of each class."""
    bank, seed = audit.bank, audit.settings.seed
    ours, theirs = some_of_each(labels, POINTS, seed=seed), some_of_each(real_labels, POINTS, seed=seed)
    features = [audit.extractor(bank.rows(ours.to(bank.device)).cpu()), audit.extractor(real[theirs])]
    places = embed(torch.cat(features).numpy(), seed=seed)
    made, known = places[: len(ours)], places[len(ours) :]
    said = "Map of images: round gray marks are real images, square colored ones synthetic."
    maps = [{"name": "All classes", "chart": scatter_chart(known, made, title=said)}]
    if 1 < len(bank.classes) <= MOST_MAPS:
        for place, name in enumerate(bank.classes):
            here, there = (labels[ours] == place).numpy(), (real_labels[theirs] == place).numpy()
            others = np.concatenate([made[~here], known[~there]])
            chart = scatter_chart(known[there], made[here], title=f"{said} Class {name}.", others=others)
            maps.append({"name": name, "chart": chart})
    return maps
