"""How good a bank is: all numbers of fidelity, diversity, intensities, labels and usefulness, by class and overall."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.curation import largest_remainder
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.evaluation.audit.diversity import mean_likeness, measure_likeness, measure_vendi
from genmix_transforms.evaluation.audit.features import FeatureExtractor, feature_extractor
from genmix_transforms.evaluation.audit.fidelity import NEAREST, Tables, measure_fidelity
from genmix_transforms.evaluation.audit.halving import Halving, halvings
from genmix_transforms.evaluation.audit.inputs import compared
from genmix_transforms.evaluation.audit.labels import LabelHonesty, measure_labels
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.radiology import Curve, Intensities, curves, measure_radiology
from genmix_transforms.evaluation.audit.usefulness import Usefulness, measure_usefulness
from genmix_transforms.evaluation.audit.verdict import CopyShare, Verdict, judge
from genmix_transforms.evaluation.confidence import judge_of
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.protocol import Protocol, preset
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class QualitySettings(Settings):
    """How a bank's quality is measured.

    Raises:
        InputError: a value out of its range; the message names it.

    Example:
        >>> QualitySettings(draws=10).nearest
        5
    """

    against: Literal["unseen", "train"] = option(
        "unseen",
        help="Real images that the bank is compared with: the validation and test part, which its generator has not "
        "seen, or the training part, where copies count as good images.",
    )
    draws: int = option(
        50, help="Random halvings of the real images, from which intervals are computed.", least=2, most=10_000
    )
    images: int = option(
        1500, help="Maximum number of real, and of synthetic, images to compute features of.", least=20, most=20_000
    )
    half: int = option(500, help="Maximum number of images on each side of a draw.", least=10, most=10_000, rare=True)
    nearest: int = option(
        NEAREST, help="Number of neighbors for precision, recall, density and coverage.", least=1, most=100, rare=True
    )
    train: bool = option(True, help="Train classifiers: for the labels, and on synthetic images for real ones.")
    seed: int = option(0, help="Seed of every draw.", least=0, most=2**63 - 1, rare=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """How good a bank is.

    Args:
        features: what images were compared by.
        against: the real images that they were compared with.
        overall: numbers by name.
        by_class: the same of each class.
        curves: histogram and noise power of all images, for figures.
        labels: what a classifier of real images says of the labels; None: it was not asked.
        usefulness: what classifiers learn; None: none were trained.
        notes: what a reader should know, one sentence each.
    """

    features: str
    against: str
    overall: Mapping[str, Measured]
    by_class: Mapping[str, Mapping[str, Measured]]
    curves: tuple[Curve, ...]
    labels: LabelHonesty | None
    usefulness: Usefulness | None
    notes: tuple[str, ...] = field(default=())

    def verdict(self, copies: CopyShare | None = None) -> Verdict:
        """What is wrong with the bank, the worst first.

        Args:
            copies: what the search for copies found; None: not searched, and the verdict says so.
        """
        return judge(self.overall, self.by_class, self.labels, copies, self.usefulness)

    @property
    def text(self) -> str:
        """The verdict in one sentence, without the search for copies."""
        return self.verdict().text

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "features": self.features,
            "against": self.against,
            "overall": {name: one.to_dict() for name, one in self.overall.items()},
            "by_class": {
                name: {key: one.to_dict() for key, one in numbers.items()} for name, numbers in self.by_class.items()
            },
            "curves": [curve.to_dict() for curve in self.curves],
            "labels": None if self.labels is None else self.labels.to_dict(),
            "usefulness": None if self.usefulness is None else self.usefulness.to_dict(),
            "notes": list(self.notes),
            "verdict": self.verdict().to_dict(),
        }


def measure_quality(
    bank: SyntheticBank,
    splits: Splits,
    *,
    features: str | FeatureExtractor | nn.Module = "efficientnet_lite0",
    settings: QualitySettings | None = None,
    protocol: Protocol | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Quality:
    """Measure fidelity, diversity, intensities, label honesty and usefulness of a bank.

    Args:
        bank: with the classes and the size of the real images.
        splits: train, validation and test, as ``patches.split`` gives them.
        features: what images are compared by, see
            :func:`genmix_transforms.evaluation.audit.features.feature_extractor`.
        settings: how; None: the defaults.
        protocol: of the classifiers; None: ``preset("few-labels")``.
        device: where classifiers are trained.
        progress: show a bar of the steps.

    Raises:
        InputError: classes, sizes or pixels that differ, a class without images or with fewer than 10, or features that
            cannot be had.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> splits = LesionPhantom(size=16, train=(12, 12, 12), val=(6, 6, 6), test=(6, 6, 6)).dataset().split()
        >>> bank = SyntheticBank(splits[0].images, splits[0].labels, classes=splits[0].classes)
        >>> settings = QualitySettings(draws=4, train=False)
        >>> measure_quality(bank, splits, features="pixels", settings=settings).features
        'pixels at 16 x 16'
    """
    settings = settings or QualitySettings()
    extractor = feature_extractor(features)
    train, validation, test = splits
    real = train if settings.against == "train" else together(validation, test)
    given = compared(bank, real)
    notes = list(given.notes)
    bank = given.bank
    ours = some_of_each(given.labels, settings.images, seed=settings.seed)
    theirs = some_of_each(real.labels, settings.images, seed=settings.seed)
    for what, part, count in (("the bank's", ours, len(bank)), ("the real", theirs, len(real))):
        if len(part) < count:
            notes.append(f"{len(part)} of {what} {count} images were compared, chosen at random in each class.")
    shown, real = bank.rows(ours.to(bank.device)).cpu(), real.subset(theirs)
    labels = usefulness = None
    steps = 3 if settings.train else 1
    with progress_bar(total=steps, unit="step", desc="numbers", disable=not progress) as bar:
        numbers, by_class, drawn = _numbers(real, shown, given.labels[ours], extractor, settings, window=bank.window)
        bar.update()
        if settings.train:
            where = torch.device(device)
            protocol = protocol or preset("few-labels")
            bar.set_description("classifier of real images")
            trained = judge_of(splits, protocol, device=where)
            labels = measure_labels(bank, splits, judge=trained, seed=settings.seed)
            bar.update()
            bar.set_description("classifier of the bank")
            usefulness = measure_usefulness(
                bank, splits, protocol=protocol, judge=trained, device=where, seed=settings.seed
            )
            bar.update()
    notes += [
        f"{name} is left out of what is measured between halves: {here['KID x 1000'].refused}."
        for name, here in by_class.items()
        if here["KID x 1000"].refused
    ]
    notes += () if labels is None else labels.warnings
    return Quality(
        features=extractor.name,
        against=f"{real.name}, {settings.against}: {len(real)} images",
        overall=numbers,
        by_class=by_class,
        curves=drawn,
        labels=labels,
        usefulness=usefulness,
        notes=tuple(notes),
    )


def together(first: PatchDataset, second: PatchDataset) -> PatchDataset:
    """Two parts of one data set as one; without groups where one of them has none."""
    groups = None if first.groups is None or second.groups is None else torch.cat([first.groups, second.groups])
    return replace(
        first,
        images=torch.cat([first.images, second.images]),
        labels=torch.cat([first.labels, second.labels]),
        groups=groups,
        official=None,
        source_hashes=torch.cat([first.origins, second.origins]),
        paths=None,
        dates=None,
        series=None,
        masks=None,
        mask_classes=None,
        name=f"{first.name} and {second.name}",
    )


def some_of_each(labels: Tensor, most: int, *, seed: int) -> Tensor:
    """At most so many images, in the classes' proportions, at random; their numbers, ascending.

    Example:
        >>> some_of_each(torch.tensor([0, 0, 1]), 3, seed=0).tolist()
        [0, 1, 2]
    """
    counts = torch.bincount(labels).numpy()
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(torch.nonzero(labels == number).flatten().numpy())[:count]
        for number, count in enumerate(largest_remainder(counts, most).tolist())
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def _numbers(
    real: PatchDataset,
    images: Tensor,
    labels: Tensor,
    extractor: FeatureExtractor,
    settings: QualitySettings,
    *,
    window: tuple[float, float] | None,
) -> tuple[dict[str, Measured], dict[str, dict[str, Measured]], tuple[Curve, ...]]:
    """All that needs no classifier: overall, by class, and the curves."""
    real_features, features = extractor(real.images), extractor(images)
    tables = Tables.of(real_features, features)
    intensities = Intensities.of(real.images, window=window), Intensities.of(images, window=window)
    number = len(real.classes)
    halves = list(
        halvings(
            real.labels, real.groups, labels,
            classes=number, draws=settings.draws, seed=settings.seed, most=settings.half,
        )
    )  # fmt: skip

    def measure(halves: list[Halving], which: tuple[Tensor, Tensor], likeness: Measured) -> dict[str, Measured]:
        found = (
            *measure_fidelity(tables, halves, nearest=settings.nearest),
            likeness,
            measure_vendi(real_features, features, halves, seed=settings.seed),
            *measure_radiology(*intensities, halves, groups=real.groups, which=which, seed=settings.seed),
        )
        return {one.name: one for one in found}

    by_class, all_likeness = {}, []
    for place, name in enumerate(real.classes):
        which = torch.nonzero(labels == place).flatten(), torch.nonzero(real.labels == place).flatten()
        groups = None if real.groups is None else real.groups[which[1]]
        likeness = measure_likeness(real.images[which[1]], groups, images[which[0]], seed=settings.seed)
        all_likeness.append(likeness)
        part = [half.of_class(place, real.labels.numpy(), labels.numpy()) for half in halves]
        by_class[name] = measure(part, which, likeness)
    everything = torch.arange(len(labels)), torch.arange(len(real))
    overall = measure(halves, everything, mean_likeness(all_likeness))
    return overall, by_class, curves(*intensities, everything)
