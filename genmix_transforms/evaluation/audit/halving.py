"""Halving real images by group, again and again, and drawing as many of the bank: what every comparison stands on.

A number from one half of the real images and the bank means something beside the same number from the two real halves.
Resampling with replacement would not do: an image that is drawn twice is a nearest neighbor at distance 0, which
neighbor-based numbers and KID take for a copy. Halves drawn without replacement have no such pairs, and a statistic
varies among them as it does among data sets of the full size.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]


class Halving(NamedTuple):
    """Numbers of images, of each class as many in all three."""

    reference: Numbers
    """Real images."""
    real: Numbers
    """Real images of other groups."""
    bank: Numbers
    """Images of the bank."""

    def of_class(self, number: int, real_labels: Numbers, bank_labels: Numbers) -> "Halving":
        """The part of one class."""
        return Halving(
            self.reference[real_labels[self.reference] == number],
            self.real[real_labels[self.real] == number],
            self.bank[bank_labels[self.bank] == number],
        )


def halvings(
    real_labels: Tensor,
    groups: Tensor | None,
    bank_labels: Tensor,
    *,
    classes: int,
    draws: int,
    seed: int,
    most: int | None = None,
) -> Iterator[Halving]:
    """Draw halves of the real images by group, and as many images of each class from the bank, without replacement.

    The groups of each class are dealt out at random, each to the half that has fewer images. Both halves are cut, class
    by class, to the smaller one, and to half of the bank's images of the class, so that all three parts are alike.

    Args:
        real_labels: int64 ``(N,)``.
        groups: int64 ``(N,)``; None: every image is a group of its own.
        bank_labels: int64 ``(M,)``.
        classes: how many.
        draws: how many halvings.
        seed: of the draws; the first ones are the same however many are asked.
        most: images of a part, over all classes; None: as many as there are.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> half = next(halvings(labels, None, labels, classes=2, draws=1, seed=0))
        >>> len(half.reference), len(half.real), len(half.bank), set(half.reference) & set(half.real)
        (4, 4, 4, set())
    """
    real, bank = real_labels.numpy(), bank_labels.numpy()
    of = np.arange(len(real)) if groups is None else torch.unique(groups, return_inverse=True)[1].numpy()
    members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1]) if len(of) else []
    main = np.array([np.bincount(real[one], minlength=classes).argmax() for one in members], dtype=np.int64)
    for draw in range(draws):
        random = np.random.default_rng([seed, draw])
        first = np.zeros(len(real), dtype=bool)
        for number in range(classes):
            there = random.permutation(np.flatnonzero(main == number))
            sizes = [0, 0]
            for group in there:
                half = int(sizes[1] < sizes[0])
                first[members[group]] = half == 0
                sizes[half] += len(members[group])
        yield _drawn(random, real, bank, first, classes=classes, most=most)


def _drawn(
    random: np.random.Generator,
    real: Numbers,
    bank: Numbers,
    first: NDArray[np.bool_],
    *,
    classes: int,
    most: int | None,
) -> Halving:
    parts: list[list[Numbers]] = []
    for number in range(classes):
        here = real == number
        parts.append([
            random.permutation(np.flatnonzero(which))
            for which in (here & first, here & ~first, bank == number)
        ])  # fmt: skip
    counts = [min(len(one), len(other), len(ours) // 2) for one, other, ours in parts]
    total = sum(counts)
    if most is not None and total > most:
        counts = [count * most // total for count in counts]
    chosen: Sequence[Numbers] = [
        np.concatenate([several[part][:count] for several, count in zip(parts, counts, strict=True)])
        for part in range(3)
    ]
    return Halving(*chosen)
