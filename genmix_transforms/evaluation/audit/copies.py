"""Which images of a bank are copies: of the images that its generator was trained on, or of each other.

Generators that were trained on a few hundred images copy them. A bank of copies adds nothing to the training set, and
gives patients' images away under the name of synthetic ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.correlation import UPRIGHT, References
from genmix_transforms.evaluation.audit.neighbors import nearest_neighbors
from genmix_transforms.evaluation.audit.search import PART, Found, Prepared, most_alike
from genmix_transforms.evaluation.audit.threshold import Scale, upper_threshold
from genmix_transforms.evaluation.audit.training_set import check_training_set
from genmix_transforms.evaluation.audit.transformations import FAMILIES, Transformation
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.progress import progress_bar

if TYPE_CHECKING:
    from genmix_transforms.evaluation.audit.verdict import CopyShare

Features = Callable[[Tensor], Tensor]
"""From uint8 images ``(N, C, H, W)`` to float features ``(N, D)``."""

SHARE = 0.005
"""Default share of images of new patients that may be called copies."""

_AS_WELL = 0.85
"""Of the best part's correlation: less, and the whole is no copy. Half a copy correlates at 0.7 with the whole."""


@dataclass(frozen=True, kw_only=True)
class Reidentification:
    """How often the most alike image is one of the same patient.

    Measured on real images: of training images whose patient has others in the training set, the share whose most alike
    other training image, under the same search, is one of that patient.

    Args:
        images: how many such images were asked.
        rate: that share, from 0 to 1.
        chance: what it would be if the nearest image were any other.
    """

    images: int
    rate: float
    chance: float

    @property
    def text(self) -> str:
        """In a sentence."""
        return (
            f"Of {self.images} real images whose patient has others here, {self.rate:.0%} are most like one of the "
            f"same patient (by chance {self.chance:.1%}): so well does an image tell its patient."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """How near a bank's images are to real ones and to each other.

    Distances are ``sqrt(2 - 2 r)``, where r is the absolute correlation of two images' detail where they lie best: from
    0 (the same) to 1.41 (nothing in common). Correlations of halves and quarters, and similarities of features, are
    brought to the same scale by what they are between real images of different patients.

    Args:
        distance: float32 ``(N,)``: of each image of the bank, in its order, to the nearest training image.
        nearest: int64 ``(N,)``: which training image that is.
        transformations: what lays each image over it.
        among_bank: float32 ``(N,)``: to the nearest image of the bank that stands before it; infinite for the first.
        nearest_in_bank: int64 ``(N,)``: which image of the bank that is; -1 for the first.
        among_real: float32 ``(n,)``: of training images (at most ``calibration`` of them) to the nearest one of
            another group; infinite where there is none.
        threshold: below it, two images are near copies.
        share: of the images of new patients, so many are expected to lie below it.
        feature_distance: float32 ``(N,)``: Euclidean distance of the features, of length 1, to the nearest training
            image's; None without features.
        feature_nearest: int64 ``(N,)``: which training image that is; None likewise.
        reidentification: how well real images tell their patient; None where no group has several images.
        classes: the bank's class names.
        labels: int64 ``(N,)``: the (most probable) class of each image of the bank.
        notes: what whoever reads this must know, a sentence each.

    Source: the rule is that of nearest-neighbor tests for copies (Meehan et al., arXiv 2004.05675, in spirit), set by
    what real images of different patients are to each other.
    """

    distance: Tensor
    nearest: Tensor
    transformations: tuple[Transformation, ...]
    among_bank: Tensor
    nearest_in_bank: Tensor
    among_real: Tensor
    threshold: float
    share: float
    feature_distance: Tensor | None
    feature_nearest: Tensor | None
    reidentification: Reidentification | None
    classes: tuple[str, ...]
    labels: Tensor
    notes: tuple[str, ...]

    @property
    def near_copy(self) -> Tensor:
        """Bool ``(N,)``: nearer to a training image than images of different patients are to each other."""
        return self.distance < self.threshold

    @property
    def duplicate(self) -> Tensor:
        """Bool ``(N,)``: as near to an image of the bank that stands before it."""
        return self.among_bank < self.threshold

    @property
    def copy_share(self) -> "CopyShare":
        """What :meth:`Quality.verdict` has to know of copies."""
        from genmix_transforms.evaluation.audit.verdict import CopyShare

        return CopyShare(
            near_copies=int(self.near_copy.sum()), images=len(self.distance), expected_share=self.share
        )

    def pair(self, number: int, bank: SyntheticBank, train: PatchDataset) -> tuple[Tensor, Tensor]:
        """An image of the bank laid over its nearest training image, and that one.

        Args:
            number: of the image in the bank.
            bank: the one that was measured.
            train: the training images that it was compared with.

        Returns:
            Both uint8 or uint16 ``(C, H, W)``, as the images are. Of an image with another window than the training
            image's, the gray values stay what they are; an inverted one is inverted back.
        """
        own = bank.rows(torch.tensor([number], device=bank.device)).cpu()
        laid = self.transformations[number].apply(own)[0]
        return laid, train.images[int(self.nearest[number])]

    def marked(self, bank: SyntheticBank) -> SyntheticBank:
        """The bank with what was measured: its ``distance``, and the flags NEAR_COPY and DUPLICATE, set or taken away.

        Args:
            bank: the one that was measured. Its images are brought into memory.

        Raises:
            InputError: a bank with another number of images.
        """
        if len(bank) != len(self.distance):
            raise InputError(
                f"marked: {len(self.distance)} images were measured, and this bank has {len(bank)}; "
                "mark the bank that was measured"
            )
        others = ~torch.tensor(int(Flag.NEAR_COPY | Flag.DUPLICATE), dtype=torch.uint8)
        marks = self.near_copy * int(Flag.NEAR_COPY) + self.duplicate * int(Flag.DUPLICATE)
        return bank.replace(
            images=bank.images.cpu(),
            labels=bank.labels.cpu(),
            distance=self.distance,
            flags=(bank.flags & others) | marks.to(torch.uint8),
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts, quantiles and every flagged image, as JSON can hold them."""
        known = self.among_real[self.among_real.isfinite()]
        found = self.reidentification
        return {
            "images": len(self.distance),
            "near_copies": int(self.near_copy.sum()),
            "duplicates": int(self.duplicate.sum()),
            "threshold": round(self.threshold, 4),
            "expected_of_new_patients": self.share,
            "median_distance": round(float(self.distance.median()), 4),
            "median_distance_among_real": round(float(known.median()), 4),
            "reidentification": None
            if found is None
            else {"images": found.images, "rate": round(found.rate, 4), "chance": round(found.chance, 4)},
            "by_class": {
                name: {
                    "images": int(here.sum()),
                    "near_copies": int(self.near_copy[here].sum()),
                    "duplicates": int(self.duplicate[here].sum()),
                }
                for number, name in enumerate(self.classes)
                for here in [self.labels == number]
            },
            "copies": [self._row(number) for number in self.near_copy.nonzero().flatten().tolist()],
            "repeated": [
                {
                    "image": number,
                    "class": self.classes[int(self.labels[number])],
                    "like": int(self.nearest_in_bank[number]),
                    "distance": round(float(self.among_bank[number]), 4),
                }
                for number in self.duplicate.nonzero().flatten().tolist()
            ],
            "notes": list(self.notes),
        }

    def _row(self, number: int) -> dict[str, Any]:
        row = {
            "image": number,
            "class": self.classes[int(self.labels[number])],
            "nearest": int(self.nearest[number]),
            "distance": round(float(self.distance[number]), 4),
            "transformation": self.transformations[number].to_dict(),
        }
        if self.feature_distance is not None and self.feature_nearest is not None:
            row["feature_distance"] = round(float(self.feature_distance[number]), 4)
            row["feature_nearest"] = int(self.feature_nearest[number])
        return row

    @property
    def text(self) -> str:
        """What was found, in a sentence."""
        copies = int(self.near_copy.sum())
        return (
            f"{copies} of {len(self.distance)} images {'is' if copies == 1 else 'are'} nearer to a training image than "
            f"images of different patients are to each other ({self.threshold:.2f}); of images of new patients "
            f"{100 * self.share:g} % would be."
        )

    def table(self, *, rows: int = 10) -> str:
        """The sentence, the notes, a line a class, and the nearest pairs, for the screen.

        Args:
            rows: at most so many pairs of a near copy and its training image.
        """
        found = self.to_dict()
        lines = [self.text, *(f"note: {note}" for note in self.notes)]
        for name, counts in found["by_class"].items():
            copy = "copy" if counts["near_copies"] == 1 else "copies"
            double = "duplicate" if counts["duplicates"] == 1 else "duplicates"
            lines.append(
                f"  {name:<20} {counts['images']:>5} images, {counts['near_copies']} near {copy}, "
                f"{counts['duplicates']} {double}"
            )
        pairs = sorted(found["copies"], key=lambda row: row["distance"])
        for row in pairs[:rows]:
            how = self.transformations[row["image"]].text
            lines.append(
                f"  image {row['image']} is training image {row['nearest']}, {how} (distance {row['distance']:.2f})"
            )
        if len(pairs) > rows:
            lines.append(f"  and {len(pairs) - rows} more: --json lists all")
        lines.append(
            f"Median distance to the nearest training image {found['median_distance']:.2f}; among training images of "
            f"different patients {found['median_distance_among_real']:.2f}."
        )
        if self.reidentification is not None:
            lines.append(self.reidentification.text)
        return "\n".join(lines)


def find_copies(
    bank: SyntheticBank,
    train: PatchDataset,
    *,
    share: float = SHARE,
    features: Features | None = None,
    calibration: int = 1000,
    seed: int = 0,
    any_training_set: bool = False,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Copies:
    """Look for every image of a bank among the training images, however it may have been changed.

    Looked for are copies shifted (up to 8 % of the side), flipped, turned (by quarters, up to 10 degrees), zoomed or
    cropped (0.9 to 1.1 times), inverted, of another window, noisy or compressed, several of these at once, and copies
    of a half or a quarter. All pairs are compared at 16 pixels in every coarse position by matrix products; the most
    alike are then aligned at 48 pixels by FFT cross-correlation.

    Args:
        bank: of synthetic images; one on disk is read some hundred images at a time.
        train: what its generator was trained on, groups (patients) included, if they are known.
        share: of images of new patients, so many may be called copies; it sets the threshold. 0: none of the real
            images that were compared.
        features: compare by these too: from uint8 images ``(N, C, H, W)`` to float ``(N, D)``.
        calibration: so many training images, chosen at random, set the threshold.
        seed: of that choice.
        any_training_set: compare with images that the generator has not seen all the same.
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
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise InputError(f"find_copies: share must be at least 0 and below 1, got {share!r}")
    whole_number(calibration, name="find_copies: calibration", least=10)
    notes = check_training_set(bank, train, any_training_set=any_training_set)
    search = _Search(train, features, device)
    groups = torch.arange(len(train)) if train.groups is None else train.groups
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:calibration].sort().values
    repeated = _repeated(groups, chosen)
    with progress_bar(total=len(bank) + len(chosen), unit="img", desc="copies", disable=not progress) as bar:
        own = []
        for some in chosen.split(PART):
            same = groups[some, None] == groups[None]
            own.append(search.look(train.images[some], search.real.take(some.to(device)), barred=same))
            bar.update(len(some))
        real = [torch.cat([part[family][0] for part in own]) for family in range(search.families)]
        scales = [Scale.of(values[values >= 0]) for values in real]
        standardized = _standardized(scales, real).amax(dim=0)
        limit = upper_threshold(standardized[standardized.isfinite()], share)
        reidentified = _reidentification(search, train, groups, repeated)

        kept: list[tuple[Tensor, Tensor]] = []
        ways: list[Transformation] = []
        by_features: list[tuple[Tensor, Tensor]] = []
        among: list[tuple[Tensor, Tensor]] = []
        before: list[Prepared] = []
        for some in torch.arange(len(bank)).split(PART):
            images = bank.rows(some.to(bank.device))
            here = Prepared.of(images, device=device)
            found = search.look(images, here)
            similarities = [similarity for similarity, _, _ in found]
            values = _standardized(scales, similarities)
            which = _family(values, similarities, limit)
            references = torch.stack([reference for _, reference, _ in found])
            kept.append((values.amax(dim=0), references.gather(0, which[None])[0]))
            for query, family in enumerate(which.tolist()):
                of_family = found[family][2]
                ways.append(Transformation() if of_family is None else of_family.transformation(query))
            if features is not None:
                by_features.append(found[-1][:2])
            before.append(here)
            among.append(_among_bank(before))
            bar.update(len(some))
    whole = scales[0]
    similarity = torch.cat([value for value, _ in kept])
    return Copies(
        distance=_distance(whole.similarity(similarity)),
        nearest=torch.cat([reference for _, reference in kept]),
        transformations=tuple(ways),
        among_bank=_distance(torch.cat([value for value, _ in among])),
        nearest_in_bank=torch.cat([earlier for _, earlier in among]),
        among_real=_distance(whole.similarity(standardized)),
        threshold=float(_distance(whole.similarity(torch.tensor([limit], dtype=torch.float64)))[0]),
        share=share,
        feature_distance=_distance(torch.cat([s for s, _ in by_features])) if by_features else None,
        feature_nearest=torch.cat([r for _, r in by_features]) if by_features else None,
        reidentification=reidentified,
        classes=bank.classes,
        labels=(bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)).cpu(),
        notes=notes,
    )


class _Search:
    """The training images, prepared once, and how others are looked for among them."""

    def __init__(self, train: PatchDataset, features: Features | None, device: str | torch.device) -> None:
        self.real = Prepared.of(train.images, device=device)
        self.cut = References(self.real.coarse)
        self.features = features
        self.points = None if features is None else _points(features, train.images)
        self.families = len(FAMILIES) + (features is not None)

    def look(
        self, images: Tensor, prepared: Prepared, *, barred: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor, Found | None]]:
        """For each family the similarity of the most alike training image, its number, and how it lies."""
        there = None if barred is None else barred.to(prepared.coarse.device)
        found: list[tuple[Tensor, Tensor, Found | None]] = []
        for family in range(len(FAMILIES)):
            best = most_alike(prepared, self.real, self.cut, family=family, barred=there)
            found.append((best.similarity.cpu(), best.reference.cpu(), best))
        if self.features is not None and self.points is not None:
            points = _points(self.features, images)
            if points.shape[1] != self.points.shape[1]:
                raise InputError(
                    f"find_copies: features of {points.shape[1]} dimensions for the bank, {self.points.shape[1]} for "
                    "the training set"
                )
            if barred is None:
                distance, index = nearest_neighbors(points, self.points)
                similarity = 1 - distance[:, 0].square() / 2
                found.append((similarity, index[:, 0], None))
            else:
                alike = (points @ self.points.T).masked_fill(barred, -1.0)
                values, index = alike.max(dim=1)
                found.append((values, index, None))
        return found


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


def _standardized(scales: list[Scale], similarities: list[Tensor]) -> Tensor:
    """Of each family how far its similarities lie above what is usual, ``(families, N)``; -inf: nothing to compare."""
    return torch.stack(
        [
            scale.standardized(similarity).masked_fill(similarity.cpu() < 0, -torch.inf)
            for scale, similarity in zip(scales, similarities, strict=True)
        ]
    )


def _family(values: Tensor, similarities: list[Tensor], limit: float) -> Tensor:
    """The family that says which image is copied: the first that passes the threshold and correlates about as well as
    any, for a copy of the whole is one of each half as well; where none does, the one that comes nearest to it."""
    pixels = torch.stack(similarities[: len(FAMILIES)])
    passes = values > limit
    passes[: len(FAMILIES)] &= pixels >= _AS_WELL * pixels.amax(dim=0)
    return torch.where(passes.any(dim=0), passes.int().argmax(dim=0), values.argmax(dim=0))


def _distance(similarity: Tensor) -> Tensor:
    """From correlations to distances, float32; of -1, which stands for no image to compare with, infinite."""
    distance = (2 - 2 * similarity.double().clamp(0, 1)).sqrt()
    # What rounding makes of 1 + 1 - 2 is no distance.
    distance = torch.where(distance < 4e-3, torch.zeros_like(distance), distance)
    return distance.masked_fill(similarity <= -1, torch.inf).float().cpu()


def _among_bank(before: list[Prepared]) -> tuple[Tensor, Tensor]:
    """How alike the last images are to the most alike of those before them, flipped, turned by quarters or shifted; and
    which that is."""
    here = before[-1]
    others = Prepared(torch.cat([one.coarse for one in before]), torch.cat([one.fine for one in before]))
    order = torch.arange(len(others.coarse), device=others.coarse.device)
    later = order[None] >= order[-len(here.coarse) :, None]
    if len(order) == 1:
        return torch.tensor([-1.0]), torch.tensor([-1])
    best = most_alike(here, others, References(others.coarse), family=0, barred=later, warps=UPRIGHT)
    return best.similarity.cpu(), best.reference.cpu()


def _repeated(groups: Tensor, chosen: Tensor) -> Tensor:
    """The chosen images whose group has others, at most 500 of them."""
    _, place, counts = groups.unique(return_inverse=True, return_counts=True)
    return chosen[counts[place[chosen]] > 1][:500]


def _reidentification(search: _Search, train: PatchDataset, groups: Tensor, asked: Tensor) -> Reidentification | None:
    if not len(asked):
        return None
    right = []
    for some in asked.split(PART):
        itself = some[:, None] == torch.arange(len(groups))[None]
        barred = itself.to(search.real.coarse.device)
        prepared = search.real.take(some.to(search.real.coarse.device))
        best = most_alike(prepared, search.real, search.cut, family=0, barred=barred)
        right.append(groups[best.reference.cpu()] == groups[some])
    same = (groups[asked, None] == groups[None]).sum(dim=1) - 1
    return Reidentification(
        images=len(asked),
        rate=float(torch.cat(right).double().mean()),
        chance=float((same.double() / (len(groups) - 1)).mean()),
    )
