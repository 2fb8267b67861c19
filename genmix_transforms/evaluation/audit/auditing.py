"""The audit of a bank: copies, quality, and a verdict from both."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.card import provenance_facts
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.evaluation.audit.answers import ADVICE, Answer, answers, answers_text
from genmix_transforms.evaluation.audit.copies import SHARE, CopySearch
from genmix_transforms.evaluation.audit.features import PIXELS, FeatureExtractor, feature_extractor, remembering
from genmix_transforms.evaluation.audit.found_copies import Copies
from genmix_transforms.evaluation.audit.inputs import compared
from genmix_transforms.evaluation.audit.quality import Quality, QualitySettings, measure_quality, some_of_each, together
from genmix_transforms.evaluation.audit.training_set import check_training_set, with_pool
from genmix_transforms.evaluation.audit.verdict import CopyShare, Verdict
from genmix_transforms.evaluation.checks import check_splits
from genmix_transforms.evaluation.leakage import Splits, seen_images
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.settings import option

UNSEEN = 300
"""Real images of patients that no generator has seen, on which the threshold of copies is tried, at most."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings(QualitySettings):
    """How a bank is audited.

    Raises:
        InputError: a value out of its range; the message names it.

    Example:
        >>> AuditSettings(copies=False).features
        'efficientnet_lite0'
    """

    features: str = option(
        "efficientnet_lite0",
        help="Features to compare images by: efficientnet_lite0 (the extra classifiers has its weights), pixels, or a "
        "torchvision network and a file with its weights, resnet18:FILE.",
    )
    copies: bool = option(True, help="Look for copies of training images.")
    share: float = option(
        SHARE, help="Share of images of new patients that may be called copies; sets the threshold.", least=0, below=1
    )
    any_training_set: bool = option(
        False, help="Also look for copies of images that the bank's generator has not seen."
    )
    calibration: int = option(
        1000, help="Maximum number of training images that set the threshold.", least=10, most=100_000, rare=True
    )
    pairs: int = option(
        24, help="Maximum number of pairs of a copy and its training image in the report.", least=0, most=200
    )
    tsne: bool = option(True, help="Draw a map of the images (t-SNE) in the report; needs the extra figures.")
    group_names: bool = option(
        False, help="Name the groups (patients) of training images in the report; do not share such a report."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What is known of a bank.

    Args:
        bank: that was audited.
        splits: the real images: train, validation and test.
        settings: how.
        extractor: what images were compared by.
        quality: fidelity, diversity, intensities, labels, usefulness.
        copies: what the search for copies found; None: not searched.
        flagged_unseen: of how many unseen patients' images (second) how many were flagged by the same threshold
            (first); None: not tried.
        notes: what a reader should know, one sentence each.
        date: when, ``YYYY-MM-DD``.
        pool: images that the generator was pre-trained on, among which copies were looked for too; None: none.
    """

    bank: SyntheticBank
    splits: Splits
    settings: AuditSettings
    extractor: FeatureExtractor
    quality: Quality
    copies: Copies | None
    flagged_unseen: tuple[int, int] | None
    notes: tuple[str, ...]
    date: str
    pool: PatchDataset | None = None

    @cached_property
    def searched(self) -> PatchDataset:
        """The real images among which copies were looked for."""
        return with_pool(self.splits[0], self.pool)

    @property
    def copy_share(self) -> CopyShare | None:
        """How many near copies there are, and how many to expect: by the threshold, or as unseen patients have them."""
        if self.copies is None:
            return None
        found = self.copies.copy_share
        if self.flagged_unseen is None:
            return found
        flagged, images = self.flagged_unseen
        return dataclasses.replace(found, expected_share=max(found.expected_share, flagged / images))

    @cached_property
    def verdict(self) -> Verdict:
        """What is wrong with the bank, the worst first."""
        return self.quality.verdict(self.copy_share)

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """Six questions that a reader has, and the answers."""
        quality = self.quality
        return answers(
            quality.overall,
            self.verdict,
            copies=self.copy_share,
            labels=quality.labels,
            usefulness=quality.usefulness,
        )

    @property
    def text(self) -> str:
        """The verdict first, what to do, then the questions with their answers, then the notes: for the screen."""
        first, *others = self.verdict.findings
        return "\n".join([
            first.text,
            *(f"Also: {one.text}" for one in others),
            ADVICE[first.kind],
            "",
            answers_text(self.answers),
            *(f"note: {note}" for note in self.notes),
        ])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it. It has no file names, and no groups (patients)."""
        bank, (train, validation, test) = self.bank, self.splits
        quality = self.quality.to_dict()
        del quality["verdict"]  # the audit's own knows of copies too
        # Without the data's name, which is that of a file.
        quality["against"] = f"{self.settings.against}{quality['against'].rpartition(self.settings.against)[2]}"
        return {
            "verdict": self.verdict.to_dict(),
            "advice": ADVICE[self.verdict.kind],
            "answers": [one.to_dict() for one in self.answers],
            "bank": {
                "images": len(bank),
                "shape": list(bank.image_shape),
                "class_counts": bank.class_counts,
                "sources": [dict(facts) for facts in provenance_facts(bank)],
            },
            "data": {
                name: {"images": len(part), "class_counts": part.class_counts, "fingerprint": part.fingerprint}
                for name, part in (("train", train), ("validation", validation), ("test", test), ("pool", self.pool))
                if part is not None
            },
            "quality": quality,
            "copies": None if self.copies is None else self.copies.to_dict(),
            "flagged_of_unseen_patients": None
            if self.flagged_unseen is None
            else dict(zip(("flagged", "images"), self.flagged_unseen, strict=True)),
            "settings": {**self.settings.to_json(), "features": self.extractor.name},
            "notes": list(self.notes),
            "date": self.date,
            "versions": versions(),
        }


def audit(
    bank: SyntheticBank,
    data: Splits | PatchDataset,
    *,
    pool: PatchDataset | None = None,
    settings: AuditSettings | None = None,
    features: FeatureExtractor | nn.Module | None = None,
    protocol: Protocol | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Audit:
    """Report what is in a bank: copies of patients' images, how real and varied its images are, if the labels are
    right.

    It takes minutes and stores no intermediate results, so a stopped audit starts again.

    Args:
        bank: a bank with the classes and the size of the real images.
        data: train (the training set of the bank's generator), validation and test; or patches, which are then split by
            ``patches.split()``.
        pool: unlabeled images that the generator was pre-trained on: copies of these are looked for too.
        settings: how; None: the defaults.
        features: your own module or extractor, instead of ``settings.features``.
        protocol: the protocol of the trained classifiers; None: ``preset("few-labels")``.
        device: where to compute.
        progress: show bars.

    Raises:
        InputError: classes, sizes or pixels that differ from the data, a class without images or with fewer than 10, a
            training set that the bank's generator has not seen, or features that are not available.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> splits = LesionPhantom(size=16, train=(12, 12, 12), val=(6, 6, 6), test=(6, 6, 6)).dataset().split()
        >>> bank = SyntheticBank(splits[0].images, splits[0].labels, classes=splits[0].classes)
        >>> found = audit(bank, splits, settings=AuditSettings(features="pixels", draws=4, train=False))
        >>> found.verdict.kind, int(found.copies.near_copy.sum())
        ('copies', 36)
    """
    settings = settings or AuditSettings()
    splits = data.split() if isinstance(data, PatchDataset) else data
    check_splits(splits)
    train, validation, test = splits
    searched = with_pool(train, pool)
    unseen = together(validation, test)
    given = compared(bank, train if settings.against == "train" else unseen)
    bank = given.bank
    notes = list(given.notes)
    if settings.copies:
        said = check_training_set(bank, searched, any_training_set=settings.any_training_set)
        notes += [one for one in said if searched.groups is not None or "groups" not in one]
    notes += _seen(bank, splits)
    extractor = remembering(feature_extractor(features if features is not None else settings.features, device=device))
    copies, flagged = None, None
    if settings.copies:
        copies, flagged = _copies(bank, train, pool, unseen, extractor, settings, device=device, progress=progress)
        notes += [one for one in copies.notes if "groups" not in one]
        if flagged is not None and _too_many(flagged, settings.share):
            notes.append(_doubt(flagged, settings.share))
    quality = measure_quality(
        bank, splits, features=extractor, settings=settings, protocol=protocol, device=device, progress=progress
    )
    return Audit(
        bank=bank,
        splits=splits,
        settings=settings,
        extractor=extractor,
        quality=quality,
        copies=copies,
        flagged_unseen=flagged,
        notes=tuple(dict.fromkeys((*notes, *quality.notes))),
        date=datetime.now(UTC).date().isoformat(),
        pool=pool,
    )


def versions() -> Mapping[str, str]:
    """Of what an audit is made with."""
    from importlib.metadata import version

    return {name: version(name) for name in ("genmix-transforms", "torch")}


def _copies(
    bank: SyntheticBank,
    train: PatchDataset,
    pool: PatchDataset | None,
    unseen: PatchDataset,
    extractor: FeatureExtractor,
    settings: AuditSettings,
    *,
    device: str | torch.device,
    progress: bool,
) -> tuple[Copies, tuple[int, int] | None]:
    """Near copies in the bank, and how many of the unseen patients' images the same search calls so."""

    search = CopySearch(
        train,
        share=settings.share,
        features=None if extractor.name.startswith(PIXELS) else extractor,
        calibration=settings.calibration,
        seed=settings.seed,
        pool=pool,
        device=device,
    )
    found = search.find(bank, any_training_set=settings.any_training_set, progress=progress)
    tried = unseen.subset(some_of_each(unseen.labels, UNSEEN, seed=settings.seed))
    apart = _new_patients(tried, train, pool)
    tried = tried.subset(apart)
    if not len(tried):
        return found, None
    real = SyntheticBank(tried.images, tried.labels, classes=tried.classes)
    control = search.find(real, any_training_set=True, progress=progress)
    return found, (int(control.near_copy.sum()), len(tried))


def _new_patients(unseen: PatchDataset, train: PatchDataset, pool: PatchDataset | None) -> Tensor:
    """Numbers of the images whose patient has none in the training part, and which no generator has seen."""
    new = ~unseen.found_in(train)
    if pool is not None:
        new &= ~unseen.found_in(pool)
    if unseen.groups is not None and train.groups is not None:
        new &= ~torch.isin(unseen.groups, train.groups)
    return torch.nonzero(new).flatten()


def _too_many(flagged: tuple[int, int], share: float) -> bool:
    return CopyShare(near_copies=flagged[0], images=flagged[1], expected_share=share).by_chance < 0.01


def _doubt(flagged: tuple[int, int], share: float) -> str:
    return (
        f"The threshold of copies calls {flagged[0]} of {flagged[1]} images of unseen patients copies, where "
        f"{share * flagged[1]:.2g} were expected: real images are more alike here than the training set shows; the "
        "verdict allows for it."
    )


def _seen(bank: SyntheticBank, splits: Splits) -> list[str]:
    seen = seen_images(bank, splits)
    count = 0 if seen is None else seen["val"] + seen["test"]
    if not count:
        return []
    return [
        f"The bank's generator was trained on {count} of the {len(splits[1]) + len(splits[2])} validation and test "
        "images: they are not unseen, and the bank looks better than it is."
    ]
