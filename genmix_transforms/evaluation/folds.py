"""One split of a comparison with the banks made for it, and several of them as a cross-validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import SPLITS
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.checks import Splits, check_splits, foreign


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A split, and the banks whose generators were trained on its training part.

    Args:
        splits: train, validation and test.
        banks: by name; the same names in every fold.
    """

    splits: Splits
    banks: Mapping[str, SyntheticBank] = field(default_factory=dict)


def check_folds(folds: Sequence[Fold], *, foreign_banks: bool = False) -> None:
    """The folds fit together, and nothing that one of them tests was seen by its training or its generators.

    Args:
        folds: at least one.
        foreign_banks: let pass banks whose generator was trained on something else than the fold's training part.

    Raises:
        InputError: folds that differ in classes, shape or banks; with several, also groups that are in two parts of one
            fold or tested twice, and foreign banks.
    """
    if not folds:
        raise InputError("no folds to compare on; give at least one")
    for fold in folds:
        check_splits(fold.splits)
    first = folds[0]
    for number, fold in enumerate(folds):
        for what, expected, found in (
            ("classes", first.splits[0].classes, fold.splits[0].classes),
            ("shape", tuple(first.splits[0].images.shape[1:]), tuple(fold.splits[0].images.shape[1:])),
            ("banks", sorted(first.banks), sorted(fold.banks)),
        ):
            if found != expected:
                raise InputError(f"all folds need the same {what}: fold 0 has {expected}, fold {number} has {found}")
    if len(folds) == 1:
        return
    tested: dict[int, int] = {}
    for number, fold in enumerate(folds):
        _check_groups(fold, number, tested)
        for name, bank in fold.banks.items():
            if not foreign_banks and foreign(bank.with_classes(fold.splits[0].classes), fold.splits[0]):
                raise InputError(
                    f"fold {number}: the generator of the bank {name!r} was trained on another set than this fold's "
                    "training part: what it saw may be tested here; train one for each fold, or say that it may be "
                    "(foreign_banks=True)"
                )


def _check_groups(fold: Fold, number: int, tested: dict[int, int]) -> None:
    """Groups in one part of the fold only, and not yet ``tested``, a group's number to its fold; those are added."""
    groups = [None if part.groups is None else set(part.groups.tolist()) for part in fold.splits]
    for one in range(len(SPLITS)):
        for other in range(one + 1, len(SPLITS)):
            both = (groups[one] or set()) & (groups[other] or set())
            if both:
                raise InputError(
                    f"fold {number}: {len(both)} groups have images in both its {SPLITS[one]} and its {SPLITS[other]} "
                    "part; patches.folds keeps groups together"
                )
    for group in groups[-1] or ():
        if group in tested:
            raise InputError(
                f"folds {tested[group]} and {number} both test images of one group: a cross-validation tests each once"
            )
        tested[group] = number
