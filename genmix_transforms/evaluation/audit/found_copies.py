"""What a search for copies has found: how near a bank's images are to real ones, and to each other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.threshold import Law
from genmix_transforms.evaluation.audit.transformations import Transformation

if TYPE_CHECKING:
    from genmix_transforms.evaluation.audit.verdict import CopyShare


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

    Distances are ``sqrt(2 - 2 r)``, from 0 (the same) to 1.41 (nothing in common). r is the absolute correlation of two
    images where they lie best, as it would be if the image were as like to others by chance as the usual real image is:
    a noisy or a smooth copy stands out from what else it is like as much as a sharp one does. What halves, quarters and
    features stand out is brought to the same scale by what it is between real images of different patients.

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
        standing: float64 ``(N,)``: how far each image stands out, see
            :class:`~genmix_transforms.evaluation.audit.threshold.Scale`; distances are made of it.
        law: what real images are to each other.
        feature_distance: float32 ``(N,)``: Euclidean distance of the features, of length 1, to the nearest training
            image's; None without features.
        feature_nearest: int64 ``(N,)``: which training image that is; None likewise.
        reidentification: how well real images tell their patient; None where no group has several images.
        classes: the bank's class names.
        labels: int64 ``(N,)``: the (most probable) class of each image of the bank.
        notes: what whoever reads this must know, a sentence each.
        trained: how many training images there are; nearest ones from this number on are images of the pool.

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
    standing: Tensor
    law: Law
    feature_distance: Tensor | None
    feature_nearest: Tensor | None
    reidentification: Reidentification | None
    classes: tuple[str, ...]
    labels: Tensor
    notes: tuple[str, ...]
    trained: int

    def real_image(self, number: int) -> str:
        """What a nearest image is called: ``training image 12``, or ``image 3 of the pool``."""
        return f"training image {number}" if number < self.trained else f"image {number - self.trained} of the pool"

    @property
    def near_copy(self) -> Tensor:
        """Bool ``(N,)``: nearer to a training image than images of different patients are to each other."""
        return self.distance < self.threshold

    def near_copy_at(self, share: float) -> Tensor:
        """Bool ``(N,)``: what would be a near copy if another share of new patients' images might be called so."""
        return self.standing > self.law.limit(share)

    @property
    def duplicate(self) -> Tensor:
        """Bool ``(N,)``: as near to an image of the bank that stands before it."""
        return self.among_bank < self.threshold

    @property
    def copy_share(self) -> "CopyShare":
        """What :meth:`Quality.verdict` has to know of copies."""
        from genmix_transforms.evaluation.audit.verdict import CopyShare

        return CopyShare(
            near_copies=int(self.near_copy.sum()),
            images=len(self.distance),
            expected_share=self.share,
            doubles=int(self.duplicate.sum()),
            across=int((self.duplicate & (self.labels[self.nearest_in_bank] != self.labels)).sum()),
        )

    def pair(self, number: int, bank: SyntheticBank, train: PatchDataset) -> tuple[Tensor, Tensor]:
        """An image of the bank laid over its nearest training image, and that one.

        Args:
            number: of the image in the bank.
            bank: the one that was measured.
            train: the training images that it was compared with, with the pool behind them if there was one.

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
                f"  image {row['image']} is {self.real_image(row['nearest'])}, {how} (distance {row['distance']:.2f})"
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
