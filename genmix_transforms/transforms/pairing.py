"""Pairing of classes: one row-stochastic matrix, row = class of the real image, column = class of its partner."""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms.pairing_names import Absent, PairingName

PRESETS: tuple[PairingName, ...] = get_args(PairingName)
"""The matrices with a name."""

Pairing = PairingName | Tensor | Sequence[Sequence[float]]
"""A name, or a matrix ``(K, K)`` whose rows are probabilities."""

ABSENT: tuple[Absent, ...] = get_args(Absent)
"""What to do about a class that a pairing draws from and the bank has no images of."""


def pairing_matrix(
    pairing: Pairing,
    bank: SyntheticBank,
    *,
    class_counts: Sequence[float] | None = None,
    absent: Absent = "error",
) -> Tensor:
    """Compute the matrix of a pairing.

    Args:
        pairing: ``"any"``: classes as often as the bank has them; ``"balanced"``: every class equally often;
            ``"same"``: the real image's own class; ``"other"``: any class but its own, as often as the bank has them;
            ``"inverse"``: classes in inverse proportion to how often the *real* data has them; or a matrix ``(K, K)``,
            row = class of the real image, rows summing to 1.
        bank: the bank that partners are drawn from.
        class_counts: images of each class in the real data, for ``"inverse"``; None: the counts of the generator's
            training set in the bank's provenance.
        absent: what to do if a class that would be drawn has no images in the bank: ``"error"``: raise an error;
            ``"redraw"``: draw from the row's other classes, in proportion (from the whole bank, if there are none);
            ``"skip"``: these samples stay unmixed.

    Returns:
        float32 ``(K, K)``, with rows that sum to 1, or to less with ``"skip"``.

    Raises:
        InputError: no such pairing, an invalid matrix, or a class that would be drawn but has no images in the bank
            (the message names it).

    Example:
        >>> images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, 1])
        >>> pairing_matrix("any", SyntheticBank(images, labels, classes=["cyst", "metastasis"])).tolist()
        [[0.75, 0.25], [0.75, 0.25]]
    """
    rule = PairingRule(pairing, bank, class_counts=class_counts, absent=absent)
    rule.check(bank)
    return rule.matrix(rule.weights, bank.class_count.cpu()).float()


class PairingRule:
    """A pairing apart from how many images of each class the bank has, so that it can follow a bank that changes.

    Args:
        pairing: see :func:`pairing_matrix`, as for the others.
        bank: whose classes they are.
        class_counts: of the real data.
        absent: what becomes of draws from a class that the bank has no images of.

    Raises:
        InputError: see :func:`pairing_matrix`.
    """

    def __init__(
        self, pairing: Pairing, bank: SyntheticBank, *, class_counts: Sequence[float] | None, absent: Absent
    ) -> None:
        classes = len(bank.classes)
        every = torch.ones(classes, classes, dtype=torch.float64, device="cpu")
        own = torch.eye(classes, dtype=torch.float64, device="cpu")
        self.name: str = pairing if isinstance(pairing, str) else "matrix"
        self.absent = absent
        self.by_count: bool = pairing in ("any", "other") if isinstance(pairing, str) else False
        """Whether the weights are still to be multiplied by the bank's number of images of each class."""
        if not isinstance(pairing, str):
            self.weights: Tensor = _checked(pairing, classes)
        elif pairing in ("any", "balanced"):
            self.weights = every
        elif pairing == "same":
            self.weights = own
        elif pairing == "other":
            self.weights = 1 - own
        elif pairing == "inverse":
            self.weights = (1 / _real_counts(bank, class_counts)).expand(classes, -1).contiguous()
        else:
            raise InputError(f"GenMix: pairing must be one of {', '.join(PRESETS)} or a matrix, got {pairing!r}")
        if absent not in ABSENT:
            raise InputError(f"GenMix: absent must be one of {', '.join(ABSENT)}, got {absent!r}")

    def check(self, bank: SyntheticBank) -> None:
        """Check that the bank has images of every class that is drawn from now.

        Raises:
            InputError: it has not, and ``absent`` is "error"; or it has no images at all.
        """
        if not len(bank):
            raise InputError("GenMix: the bank is empty")
        if self.absent == "error":
            _refuse_absent(self.name, bank, self._asked(self.weights, bank.class_count.double().cpu()))

    def matrix(self, weights: Tensor, class_count: Tensor) -> Tensor:
        """Compute the matrix without a look at any value: in a compiled graph too.

        Args:
            weights: this rule's, on the device where the bank is.
            class_count: the bank's, int64 ``(K,)``.

        Returns:
            ``(K, K)``, float64 (float32 where the device has no float64).
        """
        precise = torch.float32 if weights.device.type == "mps" else torch.float64
        count = class_count.to(precise)
        asked = self._asked(weights.to(precise), count)
        drawable = torch.where(count > 0, asked, 0.0)
        total, found = asked.sum(dim=1, keepdim=True), drawable.sum(dim=1, keepdim=True)
        if self.absent == "skip":
            return torch.where(total > 0, drawable / total, 0.0)
        return torch.where(found > 0, drawable / found, count / count.sum())

    def cumulative(self, weights: Tensor, class_count: Tensor) -> Tensor:
        """Compute the rows of the matrix, cumulated, float32 ``(K, K)``; the arguments are :meth:`matrix`'s."""
        matrix = self.matrix(weights, class_count)
        cumulative = matrix.float().to(matrix.dtype).cumsum(dim=1)
        if self.absent == "skip":
            # A row that leaves nothing out ends at 1, whatever was rounded: none of its samples is skipped.
            ends = cumulative[:, -1:]
            cumulative = cumulative / torch.where(ends > 1 - 1e-5, ends, 1.0)
        return cumulative.float()

    def _asked(self, weights: Tensor, count: Tensor) -> Tensor:
        return weights * count if self.by_count else weights


def _refuse_absent(name: str, bank: SyntheticBank, matrix: Tensor) -> None:
    way_out = "fill the bank with it, choose pairing='any', or say what then: absent='redraw' or absent='skip'"
    lonely = [own for own, row in zip(bank.classes, matrix, strict=True) if not row.any()]
    if lonely:
        raise InputError(
            f"GenMix: pairing={name!r}: the bank has no class other than {', '.join(lonely)}, so that its images "
            f"have no partner (it has {bank.class_counts}); {way_out}"
        )
    missing = [
        own
        for own, weight, images in zip(bank.classes, matrix.sum(dim=0), bank.class_count.tolist(), strict=True)
        if weight > 0 and images == 0
    ]
    if missing:
        raise InputError(
            f"GenMix: pairing={name!r} draws from {', '.join(missing)}, but the bank has no images of it "
            f"(it has {bank.class_counts}); {way_out}"
        )


def _checked(pairing: Tensor | Sequence[Sequence[float]], classes: int) -> Tensor:
    try:
        matrix = torch.as_tensor(pairing, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"GenMix: pairing must be a name or a matrix of numbers ({error})") from error
    if matrix.shape != (classes, classes):
        raise InputError(f"GenMix: the pairing matrix must be {classes} x {classes}, got {tuple(matrix.shape)}")
    sums = matrix.sum(dim=1)
    if not bool(torch.isfinite(matrix).all()) or bool((matrix < 0).any()) or bool(((sums - 1).abs() > 1e-5).any()):
        raise InputError(
            f"GenMix: every row of the pairing matrix must be probabilities that sum to 1, got rows with the sums "
            f"{[round(value, 6) for value in sums.tolist()]}"
        )
    return matrix


def _real_counts(bank: SyntheticBank, class_counts: Sequence[float] | None) -> Tensor:
    if class_counts is None:
        training_set = bank.provenance.get("training_set")
        recorded = training_set.get("class_counts") if isinstance(training_set, Mapping) else None
        if not isinstance(recorded, Mapping) or not all(name in recorded for name in bank.classes):
            raise InputError(
                "GenMix: pairing='inverse' needs to know how often the real data has each class, and the bank does not "
                "record it: give class_counts"
            )
        class_counts = [recorded[name] for name in bank.classes]
    try:
        counts = torch.as_tensor(class_counts, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        counts = torch.zeros(0, device="cpu")
    if counts.shape != (len(bank.classes),) or not bool((counts > 0).all() & counts.isfinite().all()):
        raise InputError(
            f"GenMix: class_counts must be {len(bank.classes)} positive numbers, one for each of "
            f"{', '.join(bank.classes)}, got {class_counts!r}"
        )
    return counts
