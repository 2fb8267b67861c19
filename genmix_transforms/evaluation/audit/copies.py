"""Which images of a bank are copies: of the images that its generator was trained on, or of each other.

Generators trained on a few hundred images copy them. A bank of copies adds nothing to the training set, and publishes
images of patients as synthetic ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.correlation import UPRIGHT, best_of_groups
from genmix_transforms.evaluation.audit.found_copies import Copies, Reidentification
from genmix_transforms.evaluation.audit.search import KEPT, PART, Found, Prepared, fisher, most_alike, usual_of
from genmix_transforms.evaluation.audit.threshold import Law
from genmix_transforms.evaluation.audit.training_set import check_training_set, with_pool
from genmix_transforms.evaluation.audit.transformations import FAMILIES, Transformation
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.progress import progress_bar

Features = Callable[[Tensor], Tensor]
"""From uint8 images ``(N, C, H, W)`` to float features ``(N, D)``."""

SHARE = 0.005
"""Default share of images of new patients that may be called copies."""

PARTS_FROM = 16
"""Pixels of the side below which parts of images are too small to be told apart."""

_AS_WELL = 0.85
"""Of the best part's correlation: less, and the whole is no copy. Half a copy correlates at 0.7 with the whole."""

_ASKED = 500
"""Real images, at most, that are asked for their patient."""


def find_copies(
    bank: SyntheticBank,
    train: PatchDataset,
    *,
    share: float = SHARE,
    features: Features | None = None,
    calibration: int = 1000,
    seed: int = 0,
    any_training_set: bool = False,
    pool: PatchDataset | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Copies:
    """Look for copies of training images in a bank, including changed copies.

    The search finds copies that were shifted (up to 8 % of the side), flipped, rotated (by quarter turns, or up to 10
    degrees), zoomed or cropped (0.9 to 1.1 times), inverted, shown with a different window, noisy or compressed, or
    several of these at once. It also finds copies of a half or a quarter, in the same or the mirrored place. All pairs
    are compared at 16 pixels in every coarse position by matrix products (parts at 40). The images of the 8 nearest
    patients are then aligned at 48 pixels by FFT cross-correlation.

    An image is a copy if it is more similar to one patient's image than to the next nearest ones, by a larger margin
    than real images of new patients. The same rule finds training images that occur under two patients: they do not
    count, and a note says how many there are.

    Args:
        bank: a bank of synthetic images; a bank on disk is read some hundred images at a time.
        train: the training set of its generator, with groups (patients) if known.
        share: the share of images of new patients that may be called copies; it sets the threshold. 0: none of the
            compared real images.
        features: also compare these features, a function from uint8 images ``(N, C, H, W)`` to float ``(N, D)``.
        calibration: the number of training images, chosen at random, that set the threshold.
        seed: of that choice.
        any_training_set: compare even if the generator was trained on other images.
        pool: also compare with these images, which the generator was pre-trained on. Numbers of nearest images from
            ``len(train)`` on are of the pool.
        device: where to compute.
        progress: show a bar.

    Raises:
        InputError: as :func:`~genmix_transforms.evaluation.audit.training_set.check_training_set`; a share that is
            none; features of another shape.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> train = LesionPhantom(size=32, train=(20, 20, 20), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()[0]
        >>> bank = SyntheticBank(train.images[:5].flip(-1), train.labels[:5], classes=train.classes)
        >>> found = find_copies(bank, train)
        >>> int(found.near_copy.sum()), found.nearest.tolist(), found.transformations[0].text
        (5, [0, 1, 2, 3, 4], 'mirrored')
    """
    search = CopySearch(
        train, share=share, features=features, calibration=calibration, seed=seed, pool=pool, device=device
    )
    return search.find(bank, any_training_set=any_training_set, progress=progress)


class CopySearch:
    """The training images and the threshold that they set, for a search in several banks: it is set once.

    The arguments are those of :func:`find_copies`. The training images are compared with each other on the first
    :meth:`find`.
    """

    def __init__(
        self,
        train: PatchDataset,
        *,
        share: float = SHARE,
        features: Features | None = None,
        calibration: int = 1000,
        seed: int = 0,
        pool: PatchDataset | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
            raise InputError(f"find_copies: share must be at least 0 and below 1, got {share!r}")
        whole_number(calibration, name="find_copies: calibration", least=10)
        self._trained, self._train = len(train), with_pool(train, pool)
        self._share, self._features, self._device = share, features, device
        order = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(seed))
        self._chosen = order[:calibration].sort().values
        self._measured: tuple[_References, Law, Reidentification | None] | None = None

    def find(self, bank: SyntheticBank, *, any_training_set: bool = False, progress: bool = False) -> Copies:
        """Look for copies in a bank."""
        notes = check_training_set(bank, self._train, any_training_set=any_training_set)
        total = len(bank) + (0 if self._measured else len(self._chosen))
        with progress_bar(total=total, unit="img", desc="copies", disable=not progress) as bar:
            if self._measured is None:
                self._measured = self._measure(bar)
            references, law, reidentified = self._measured
            limit = law.limit(self._share)
            parts, before = [], []
            for some in torch.arange(len(bank)).split(PART):
                images = bank.rows(some.to(bank.device))
                here = Prepared.of(images, device=self._device)
                before.append(here)
                parts.append(_look(references, law, limit, images, before))
                bar.update(len(some))
        by_features = [part.by_features for part in parts if part.by_features is not None]
        standing = torch.cat([part.standing for part in parts])
        return Copies(
            distance=law.distance(standing),
            nearest=torch.cat([part.nearest for part in parts]),
            transformations=tuple(way for part in parts for way in part.transformations),
            among_bank=law.distance(torch.cat([part.in_bank for part in parts])),
            nearest_in_bank=torch.cat([part.nearest_in_bank for part in parts]),
            among_real=law.distance(law.among_real),
            threshold=float(law.distance(torch.tensor([limit], dtype=torch.float64))[0]),
            share=self._share,
            standing=standing,
            law=law,
            feature_distance=torch.cat([distance for distance, _ in by_features]) if by_features else None,
            feature_nearest=torch.cat([reference for _, reference in by_features]) if by_features else None,
            reidentification=reidentified,
            classes=bank.classes,
            labels=(bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)).cpu(),
            notes=(*notes, *self._notes(law)),
            trained=self._trained,
        )

    def _measure(self, bar: Any) -> "tuple[_References, Law, Reidentification | None]":
        """What real images of different patients are to each other."""
        references = _References(self._train, self._features, self._device)
        own = []
        for some in self._chosen.split(PART):
            same = references.groups[some, None] == references.groups[None]
            prepared = references.real.take(some.to(self._device))
            own.append(references.look(self._train.images[some], prepared, barred=same))
            bar.update(len(some))
        law = Law.of([_joined([part[family] for part in own]) for family in range(references.families)])
        return references, law, _reidentification(references, self._chosen)

    def _notes(self, law: Law) -> Iterator[str]:
        asked = len(self._chosen)
        if law.double.any():
            yield _doubles_text(int(law.double.sum()), asked, grouped=self._train.groups is not None)
        if 0 < self._share * asked < 1:
            yield _extrapolated_text(self._share, asked)


class _References:
    """The training images, prepared once, and how others are looked for among them."""

    def __init__(self, train: PatchDataset, features: Features | None, device: str | torch.device) -> None:
        self.real = Prepared.of(train.images, device=device)
        self.groups = torch.arange(len(train)) if train.groups is None else train.groups
        self.features = features
        self.points = None if features is None else _points(features, train.images)
        self.pixels = len(FAMILIES) if train.images.shape[-1] >= PARTS_FROM else 1
        self.families = self.pixels + (features is not None)

    def look(self, images: Tensor, prepared: Prepared, *, barred: Tensor | None = None) -> list[Found]:
        """The most alike training image of each image, by each family of parts, and by features."""
        there = None if barred is None else barred.to(prepared.coarse.device)
        found = [
            most_alike(prepared, self.real, family=family, groups=self.groups, barred=there)
            for family in range(self.pixels)
        ]
        if self.features is not None and self.points is not None:
            points = _points(self.features, images)
            if points.shape[1] != self.points.shape[1]:
                raise InputError(
                    f"find_copies: features of {points.shape[1]} dimensions for the bank, {self.points.shape[1]} for "
                    "the training set"
                )
            alike = (points @ self.points.T).clamp_min(0)
            if barred is not None:
                alike.masked_fill_(barred, -1)
            found.append(_by_features(points, self.points, alike, self.groups))
        return found


def _by_features(points: Tensor, references: Tensor, alike: Tensor, groups: Tensor) -> Found:
    query, reference, rank = best_of_groups(alike, KEPT, groups)
    table = torch.full((len(points), KEPT), -1.0, dtype=torch.float64)
    ranked = rank >= 0
    table[query[ranked], rank[ranked]] = fisher(alike[query[ranked], reference[ranked]])
    nearest = alike.argmax(dim=1)
    none = alike.gather(1, nearest[:, None])[:, 0] < 0
    return Found(
        table.amax(dim=1),
        usual_of(table),
        nearest.masked_fill(none, -1),
        distance=(points - references[nearest]).norm(dim=1).masked_fill(none, torch.inf),
    )


def _points(features: Features, images: Tensor) -> Tensor:
    """Features of length 1, float32 ``(N, D)``, on the CPU."""
    parts = []
    with torch.no_grad():
        for some in images.split(PART):
            values = features(some)
            if not isinstance(values, Tensor) or values.ndim != 2 or len(values) != len(some):
                got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise InputError(f"find_copies: features must return a tensor ({len(some)}, D), got {got}")
            parts.append(values.detach().float().cpu())
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def _joined(several: Sequence[Found]) -> tuple[Tensor, Tensor]:
    return torch.cat([one.likeness for one in several]).cpu(), torch.cat([one.usual for one in several]).cpu()


@dataclass(frozen=True)
class _Part:
    """What was found of some images of a bank."""

    standing: Tensor
    nearest: Tensor
    transformations: list[Transformation]
    in_bank: Tensor
    nearest_in_bank: Tensor
    by_features: tuple[Tensor, Tensor] | None


def _look(references: _References, law: Law, limit: float, images: Tensor, before: Sequence[Prepared]) -> _Part:
    """Look for images among the training images, and among the bank's that stand before them.

    Args:
        references: the training images.
        law: of real images.
        limit: what stands out further is a copy.
        images: as the bank has them.
        before: all images of the bank up to these, these last.
    """
    here = before[-1]
    found = references.look(images, here)
    likeness = [_joined([one]) for one in found]
    standing = law.standing(likeness)
    which = _family(standing, torch.stack([values for values, _ in likeness]), limit, references.pixels)
    nearest = torch.stack([one.reference.cpu() for one in found])
    by_features, likest = found[-1].distance, found[-1].reference
    others = Prepared.together(before)
    order = torch.arange(len(others.coarse), device=others.coarse.device)
    later = order[None] >= order[-len(here.coarse) :, None]
    # Like by chance is what the image is to real ones: in a bank that has collapsed all are like each other.
    double = most_alike(here, others, family=0, barred=later, warps=UPRIGHT)
    return _Part(
        standing=standing.amax(dim=0),
        nearest=nearest.gather(0, which[None])[0],
        transformations=[found[family].transformation(query) for query, family in enumerate(which.tolist())],
        in_bank=law.scales[0].standardized(double.likeness, found[0].usual),
        nearest_in_bank=double.reference.cpu(),
        by_features=None if by_features is None else (by_features.cpu(), likest.cpu()),
    )


def _family(standing: Tensor, likeness: Tensor, limit: float, pixels: int) -> Tensor:
    """The family that says which image is copied: the first that passes the threshold and correlates about as well as
    any, for a copy of the whole is one of each half as well; where none does, the one that comes nearest to it."""
    alike = torch.tanh(likeness[:pixels])
    passes = standing > limit
    passes[:pixels] &= alike >= _AS_WELL * alike.amax(dim=0)
    return torch.where(passes.any(dim=0), passes.int().argmax(dim=0), standing.argmax(dim=0))


def _doubles_text(count: int, asked: int, *, grouped: bool) -> str:
    if grouped:
        who = "so like one of another patient that they are the same picture, or the same patient's"
    else:
        who = "so like another that they are the same picture, or the same patient's"
    return f"{count} of {asked} training images that were compared are {who}. They do not set the threshold."


def _extrapolated_text(share: float, asked: int) -> str:
    return (
        f"{asked} training images cannot show what one image in {1 / share:.0f} is like: the threshold of copies is "
        "extrapolated, and can flag several times as many images of new patients as asked."
    )


def _reidentification(references: _References, chosen: Tensor) -> Reidentification | None:
    groups = references.groups
    _, place, counts = groups.unique(return_inverse=True, return_counts=True)
    asked = chosen[counts[place[chosen]] > 1][:_ASKED]
    if not len(asked):
        return None
    right = []
    for some in asked.split(PART):
        itself = some[:, None] == torch.arange(len(groups))[None]
        prepared = references.real.take(some.to(references.real.coarse.device))
        best = most_alike(prepared, references.real, family=0, groups=groups, barred=itself.to(prepared.coarse.device))
        right.append(groups[best.reference.cpu()] == groups[some])
    same = (groups[asked, None] == groups[None]).sum(dim=1) - 1
    return Reidentification(
        images=len(asked),
        rate=float(torch.cat(right).double().mean()),
        chance=float((same.double() / (len(groups) - 1)).mean()),
    )
