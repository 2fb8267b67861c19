"""Whether a bank's images are copies: of the images that its generator was trained on, or of each other.

Generators that were trained on a few hundred images copy them. A bank of copies adds nothing to the training set, and
gives patients' images away under the name of synthetic ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.progress import progress_bar

_SOME = 2048
"""Images whose distances to all others are in memory at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearness:
    """How near a bank's images are to real ones and to each other.

    Distances are between images brought to one size, their mean taken away and their length made 1: from 0 (the same
    but for brightness and contrast) over 1.41 (nothing in common) to 2 (the negative). A mirrored copy is a copy.

    Args:
        distance: float32 ``(N,)``: of each image of the bank, in its order, to the nearest training image.
        nearest: int64 ``(N,)``: which training image that is.
        among_bank: float32 ``(N,)``: to the nearest image of the bank that stands before it; infinite for the first.
        among_real: float32 ``(M,)``: of each training image to the nearest one of another group.
        threshold: below it, two images are near copies: all but a share ``quantile`` of ``among_real`` lie above.
        quantile: that share: as many of the images of new patients would be called copies.
        classes: the bank's class names.
        labels: int64 ``(N,)``: the (most probable) class of each image of the bank.

    Source: the rule is that of nearest-neighbour tests for copies (Meehan et al., arXiv 2004.05675, in spirit), set by
    what real images of different patients are to each other.
    """

    distance: Tensor
    nearest: Tensor
    among_bank: Tensor
    among_real: Tensor
    threshold: float
    quantile: float
    classes: tuple[str, ...]
    labels: Tensor

    @property
    def near_copy(self) -> Tensor:
        """Bool ``(N,)``: nearer to a training image than images of different patients are to each other."""
        return self.distance < self.threshold

    @property
    def duplicate(self) -> Tensor:
        """Bool ``(N,)``: as near to an image of the bank that stands before it."""
        return self.among_bank < self.threshold

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
        """The counts and quantiles, as JSON can hold them."""
        return {
            "images": len(self.distance),
            "near_copies": int(self.near_copy.sum()),
            "duplicates": int(self.duplicate.sum()),
            "threshold": round(self.threshold, 4),
            "expected_of_new_patients": self.quantile,
            "median_distance": round(float(self.distance.median()), 4),
            "median_distance_among_real": round(float(self.among_real.median()), 4),
            "by_class": {
                name: {
                    "images": int(here.sum()),
                    "near_copies": int(self.near_copy[here].sum()),
                    "duplicates": int(self.duplicate[here].sum()),
                }
                for number, name in enumerate(self.classes)
                for here in [self.labels == number]
            },
        }

    def text(self) -> str:
        """The counts, a line a class, for the screen.

        Example:
            >>> import torch
            >>> print(Nearness(
            ...     distance=torch.tensor([0.1, 0.9]), nearest=torch.tensor([4, 0]),
            ...     among_bank=torch.tensor([torch.inf, 0.8]), among_real=torch.tensor([0.5, 0.7, 0.8]),
            ...     threshold=0.5, quantile=0.05, classes=("cyst",), labels=torch.tensor([0, 0])).text())
            1 of 2 images is nearer to a training image than images of different patients are to each other (0.50);
            of images of new patients 5 % would be.
              cyst                     2 images, 1 near copy, 0 duplicates
            Median distance to the nearest training image 0.10; among training images 0.70.
        """
        found = self.to_dict()
        copies = found["near_copies"]
        lines = [
            f"{copies} of {found['images']} images {'is' if copies == 1 else 'are'} nearer to a training image than "
            f"images of different patients are to each other ({self.threshold:.2f});",
            f"of images of new patients {100 * self.quantile:g} % would be.",
        ]
        for name, counts in found["by_class"].items():
            copy = "copy" if counts["near_copies"] == 1 else "copies"
            double = "duplicate" if counts["duplicates"] == 1 else "duplicates"
            lines.append(
                f"  {name:<20} {counts['images']:>5} images, {counts['near_copies']} near {copy}, "
                f"{counts['duplicates']} {double}"
            )
        lines.append(
            f"Median distance to the nearest training image {found['median_distance']:.2f}; among training images "
            f"{found['median_distance_among_real']:.2f}."
        )
        return "\n".join(lines)


def measure_nearness(
    bank: SyntheticBank,
    train: PatchDataset,
    *,
    quantile: float = 0.05,
    side: int = 16,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Nearness:
    """Compare every image of a bank with every training image, and with the rest of the bank.

    Exact, without an index: time grows with the number of images times that of training images, and with the square of
    the bank's.

    Args:
        bank: of synthetic images; one on disk is read some thousand images at a time.
        train: what its generator was trained on, groups (patients) included, if they are known.
        quantile: the share of images of new patients that may be called copies; it sets the threshold.
        side: pixels to which images are brought for the comparison. Finer, and a copy that is moved by a pixel is
            none; coarser, and all images are alike. (Of 391 breast ultrasound patches of 64 pixels, moved by one pixel
            both ways and with noise of 8 grey levels, 87 per cent are found at 16, 57 at 24.)
        device: where to compute.
        progress: show a bar.

    Raises:
        InputError: images of other channels, no images, fewer than two groups to compare, or a quantile that is none.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> train = LesionPhantom(size=32, train=(20, 20, 20), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()[0]
        >>> bank = SyntheticBank(train.images[:5], train.labels[:5], classes=train.classes)
        >>> int(measure_nearness(bank, train).near_copy.sum())
        5
    """
    _check(bank, train, quantile=quantile, side=side)
    # No larger than the images are: enlarging adds nothing to compare.
    side = min(side, *bank.image_shape[1:], *train.images.shape[-2:])
    real = _places(train.images, side=side, device=device)
    mirrored = _mirrored(real, side=side)
    groups = torch.arange(len(train)) if train.groups is None else train.groups
    groups = groups.to(device)
    among_real = torch.cat(
        [_least(places, real, mirrored, barred=groups[here, None] == groups[None])[0] for here, places in _parts(real)]
    )
    known = among_real[among_real.isfinite()]
    threshold = float(torch.quantile(known.double(), quantile))

    distance, nearest, among_bank = [], [], []
    before = real[:0]
    with progress_bar(total=len(bank), unit="img", desc="nearness", disable=not progress) as bar:
        for numbers in torch.arange(len(bank)).split(_SOME):
            places = _places(bank.rows(numbers.to(bank.device)), side=side, device=device)
            values, which = _least(places, real, mirrored)
            distance.append(values.cpu())
            nearest.append(which.cpu())
            before = torch.cat([before, places])
            order = torch.arange(len(before), device=before.device)
            later = order[None] >= order[-len(places) :, None]
            among_bank.append(_least(places, before, _mirrored(before, side=side), barred=later)[0].cpu())
            bar.update(len(numbers))
    labels = (bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)).cpu()
    return Nearness(
        distance=torch.cat(distance),
        nearest=torch.cat(nearest),
        among_bank=torch.cat(among_bank),
        among_real=among_real.cpu(),
        threshold=threshold,
        quantile=quantile,
        classes=bank.classes,
        labels=labels,
    )


def _check(bank: SyntheticBank, train: PatchDataset, *, quantile: float, side: int) -> None:
    whole_number(side, name="measure_nearness: side", least=4)
    if isinstance(quantile, bool) or not isinstance(quantile, (int, float)) or not 0 <= quantile < 1:
        raise InputError(f"measure_nearness: quantile must be at least 0 and below 1, got {quantile!r}")
    if not len(bank):
        raise InputError("measure_nearness: the bank is empty")
    if len(bank.image_shape) != 3:
        raise InputError(f"measure_nearness: images must be (C, H, W), the bank's are {bank.image_shape}")
    if bank.image_shape[0] != train.images.shape[1]:
        raise InputError(
            f"measure_nearness: the bank's images have {bank.image_shape[0]} channels, the training set's "
            f"{train.images.shape[1]}; open the data with channels={bank.image_shape[0]}"
        )
    groups = len(train) if train.groups is None else len(train.groups.unique())
    if groups < 2:
        raise InputError(
            f"measure_nearness: {train.name} has images of {groups} group{'' if groups == 1 else 's'}; how near images "
            "of different ones are to each other takes at least 2"
        )


def _places(images: Tensor, *, side: int, device: str | torch.device) -> Tensor:
    """Images ``(n, C, H, W)`` as points on a sphere, float32 ``(n, C * side * side)``; flat ones in its middle."""
    values = images.to(device).float()
    small = F.interpolate(values, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    centred = small.flatten(1) - small.flatten(1).mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    # Of a flat image rounding leaves something, which is no pattern.
    spread = values.abs().amax(dim=(1, 2, 3))[:, None] * 1e-4
    return torch.where(length > spread, centred / length.clamp_min(1e-12), torch.zeros_like(centred))


def _mirrored(places: Tensor, *, side: int) -> Tensor:
    return places.view(len(places), -1, side, side).flip(-1).flatten(1)


def _parts(places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for numbers in torch.arange(len(places), device=places.device).split(_SOME):
        yield numbers, places[numbers]


def _least(places: Tensor, others: Tensor, mirrored: Tensor, *, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The least distance from each place to the others, as they are or mirrored, and which of them it is."""
    alike = torch.maximum(places @ others.T, places @ mirrored.T)
    own, theirs = places.square().sum(dim=1), others.square().sum(dim=1)
    squared = (own[:, None] + theirs[None] - 2 * alike).clamp_(min=0)
    if barred is not None:
        squared = squared.masked_fill(barred, torch.inf)
    least, which = squared.min(dim=1)
    # The same image twice: what rounding makes of 1 + 1 - 2 is no distance.
    return torch.where(least < 1e-5, torch.zeros_like(least), least).sqrt(), which
