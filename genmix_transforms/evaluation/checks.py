"""What can be wrong with a comparison, found before any work; and what is doubtful about one, said with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.rows import check_same_window
from genmix_transforms.data.multi_label import MultiLabelPatches
from genmix_transforms.data.patches import SPLITS, PatchDataset, describe_counts
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_names import ONLY_BANK, check_bank_name
from genmix_transforms.evaluation.arms import (
    Setting,
    arm_kind,
    as_if_equally_sure,
    build_arm,
    check_arms,
    own_protocol,
    split_arm_name,
    tuned_option,
)
from genmix_transforms.evaluation.auxiliary_norm import check_norms
from genmix_transforms.evaluation.classifiers import build_classifier, check_classifier, refuse_volumes
from genmix_transforms.evaluation.leakage import (
    Splits,
    bank_text,
    check_unseen,
    check_weights_unseen,
    doubts_of_weights,
    foreign,
    is_unlisted,
    seen_images,
)
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.files.checks import check_seed, whole_number

FEWEST_SEEDS = 5
"""With fewer, how much trainings differ by chance is hardly known."""

MOST_SEEDS = 10_000
"""More is a slip."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A split, and the banks whose generators were trained on its training part.

    Args:
        splits: train, validation and test.
        banks: by name; the same names in every fold.
    """

    splits: Splits
    banks: Mapping[str, SyntheticBank] = field(default_factory=dict)


def check_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds of each arm: a number N from 1 to 10,000 stands for 0 to N - 1.

    Raises:
        InputError: a number beyond those; of given seeds, none at all, one that is none, or one that is there twice.

    Example:
        >>> check_seeds(3), check_seeds((7,))
        ((0, 1, 2), (7,))
    """
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        return tuple(range(whole_number(seeds, name="seeds", least=1, most=MOST_SEEDS)))
    if not 1 <= len(seeds) <= MOST_SEEDS:
        raise InputError(f"seeds must be from 1 to {MOST_SEEDS:,}, got {len(seeds)} of them")
    given = tuple(check_seed(seed) for seed in seeds)
    if len(set(given)) != len(given):
        raise InputError(f"every seed once, got {', '.join(map(str, given))}")
    return given


def name_banks(bank: SyntheticBank | None, banks: Mapping[str, SyntheticBank] | None) -> dict[str, SyntheticBank]:
    """Banks by the names that arms know them by, of one bank or of several.

    Raises:
        InputError: both are given, or a name that cannot be part of an arm's.
    """
    if bank is not None and banks:
        raise InputError("give one bank, or banks by name, not both")
    for name in banks or {}:
        check_bank_name(name)
    return dict(banks or {}) if bank is None else {ONLY_BANK: bank}


def check_splits(splits: Splits) -> None:
    """Train, validation and test are there, fit together, and can be learned from."""
    if len(splits) != len(SPLITS) or not all(isinstance(part, PatchDataset) for part in splits):
        raise InputError(
            "splits must be three PatchDatasets, train, validation and test, as patches.split(seed=0) returns"
        )
    train = splits[0]
    for name, part in zip(SPLITS, splits, strict=True):
        if not len(part):
            raise InputError(f"the {name} part is empty")
        refuse_volumes(part)
        for what in ("classes", "shape", "dtype", "window", "labels"):
            expected, found = _trait(train, what), _trait(part, what)
            if found != expected:
                raise InputError(f"the parts must have the same {what}: train has {expected}, {name} has {found}")
    present = [name for name, count in train.class_counts.items() if count]
    if len(present) < 2:
        raise InputError(f"{train.name}: a classifier needs at least 2 classes, only {', '.join(present)} has images")


def _trait(part: PatchDataset, what: str) -> object:
    kind = "several an image" if isinstance(part, MultiLabelPatches) else "one an image"
    traits = {
        "classes": part.classes,
        "shape": tuple(part.images.shape[1:]),
        "dtype": part.images.dtype,
        "window": part.window,
        "labels": kind,
    }
    return traits[what]


def check_folds(folds: Sequence[Fold], *, foreign_banks: bool = False) -> None:
    """The folds fit together, and nothing that one of them tests was seen by its training or its generators.

    Args:
        folds: at least one.
        foreign_banks: let pass banks whose generator was trained on something else than the fold's training part,
            test images included.

    Raises:
        InputError: folds that differ in classes, shape or banks; a bank whose generator was trained on test images;
            with several folds, also groups that are in two parts of one fold or tested twice, and banks that record
            another training set than the fold's but not its images.
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
    tested: dict[int, int] = {}
    several = len(folds) > 1
    for number, fold in enumerate(folds):
        if several:
            _check_groups(fold, number, tested)
        for name, bank in fold.banks.items() if not foreign_banks else ():
            check_unseen(bank, fold.splits, name=f"fold {number}: {bank_text(name)}" if several else bank_text(name))
            if several and is_unlisted(bank) and foreign(bank, fold.splits[0]):
                raise InputError(
                    f"fold {number}: the generator of {bank_text(name)} was trained on another set than this fold's "
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


def check_images_fit(bank: SyntheticBank, patches: PatchDataset) -> None:
    """Check that a bank's images are such as the patches, whatever their classes.

    Raises:
        InputError: a bank whose fill is not finished, or images of another shape, depth or window.
    """
    if bank.shards_to_come:
        raise InputError(
            f"the bank is not finished: {bank.shards_to_come} shards of its fill are still to come; run the fill again"
        )
    expected = tuple(patches.images.shape[1:])
    if bank.image_shape != expected:
        raise InputError(
            f"the bank's images are {' x '.join(map(str, bank.image_shape))} (C x H x W), the patches "
            f"{' x '.join(map(str, expected))}: resize one to the other "
            f"(open the data with size={bank.image_shape[-1]}, channels={bank.image_shape[0]}), or fill a "
            "bank at the patches' size"
        )
    if bank.pixel_dtype != patches.images.dtype:
        raise InputError(
            f"the bank's pixels are {bank.pixel_dtype}, the patches' {patches.images.dtype}: one grey value means "
            "another brightness in each; bring both to 8 or both to 16 bits"
        )
    check_same_window(bank.window, patches.window, who=patches.name)


def fitting_bank(bank: SyntheticBank, patches: PatchDataset) -> SyntheticBank:
    """The bank with the classes of the patches, in their order.

    Raises:
        InputError: see :func:`check_images_fit`, or classes that are not the patches'.
    """
    fitting = bank.with_classes(patches.classes)
    check_images_fit(fitting, patches)
    return fitting


def prepare_bank(bank: SyntheticBank, train: PatchDataset, *, device: torch.device) -> SyntheticBank:
    """The bank with the training set's classes, on the device; the one given stays where it is.

    Raises:
        InputError: see :func:`fitting_bank`.
    """
    bank = fitting_bank(bank, train)
    if bank.device == device:
        return bank
    return bank.replace(images=bank.images.to(device), labels=bank.labels.to(device))


def prepare(
    arms: Sequence[str],
    splits: Splits,
    banks: Mapping[str, SyntheticBank],
    protocol: Protocol,
    *,
    device: torch.device,
) -> Setting:
    """Check a comparison whole, by building everything that it will need, and return what its arms are built from.

    Raises:
        InputError: anything that would fail later.
    """
    arms = check_arms(arms, protocol)
    if protocol.pool_weights is not None:
        check_classifier(protocol.classifier, weights=protocol.pool_weights)
    check_splits(splits)
    train = splits[0]
    several = isinstance(train, MultiLabelPatches)
    if several:
        _check_several_labels(arms, protocol)
    channels, height, width = train.images.shape[1:]
    used = used_banks(arms)
    setting = Setting(
        protocol=protocol,
        class_counts=train.class_counts,
        normalisation=Normalisation.of(train.images) if protocol.weights is None else Normalisation.none(channels),
        banks={name: prepare_bank(bank, train, device=device) for name, bank in banks.items() if name in used},
        real=SyntheticBank(train.images.to(device), train.label_rows.to(device), classes=train.classes)
        if any(arm_kind(arm).needs_real for arm in arms)
        else None,
        several_labels=several,
    )
    for arm in arms:
        build_arm(arm, as_if_equally_sure(setting))
    owns = [own_protocol(arm, protocol) for arm in arms]
    for weights in {protocol.weights: None, **{own.weights: None for own in owns}}:
        network = build_classifier(
            protocol.classifier,
            channels=channels,
            classes=len(train.classes),
            size=(height, width),
            seed=0,
            weights=weights,
            input_size=protocol.input_size,
        )
        check_weights_unseen(replace(protocol, weights=weights), splits)
    if any(own.aux_norm for own in owns):
        check_norms(network)
    return setting


def _check_several_labels(arms: Sequence[str], protocol: Protocol) -> None:
    """Refuse what goes by the one class of an image, where an image has several.

    Raises:
        InputError: an arm that draws by class, or an option that does.
    """
    for arm in arms:
        own = own_protocol(arm, protocol)
        options = arm_kind(arm).options
        by_class = {
            "pairing": "pairing" in options and own.pairing != "any",
            "balance": "balance" in options and own.balance != "off",
            "keep": "keep" in options and own.keep < 1,
        }
        fault = next((f"{option}={getattr(own, option)!r}" for option, asked in by_class.items() if asked), "")
        if split_arm_name(arm)[0] == "balanced-mixup" or fault:
            raise InputError(
                f"the arm {arm!r}{f' with {fault}' if fault else ''} goes by the one class of an image, and here an "
                "image has several labels; leave it out: baseline, mixup, augmix, classical, blend, genmix and the "
                "controls take several"
            )


def used_banks(arms: Sequence[str]) -> frozenset[str]:
    """The names of the banks that some arm draws from."""
    return frozenset(split_arm_name(arm)[1] for arm in arms if arm_kind(arm).needs_bank)


def doubts(
    arms: Sequence[str], splits: Splits, banks: Mapping[str, SyntheticBank], protocol: Protocol
) -> tuple[str, ...]:
    """What does not stop a comparison but belongs beside its results, a clause without full stop each.

    Args:
        arms: their names.
        splits: train, validation and test.
        banks: that some arm draws from, by name, with the training set's classes.
        protocol: how to train.
    """
    train, _, test = splits
    found = []
    for name, part in (("training", train), ("test", test)):
        absent = [name for name, count in part.class_counts.items() if not count]
        if absent:
            found.append(f"no {name} images of {', '.join(absent)}")
    if train.groups is not None and test.groups is not None:
        shared = len(set(train.groups.tolist()) & set(test.groups.tolist()))
        if shared:
            found.append(f"{shared} groups have images in both the training and the test set: scores may be too high")
    if protocol.patience is not None and len(arms) > 1:
        found.append(
            f"early stopping (patience {protocol.patience}): arms may take different numbers of steps; "
            "results.csv has them"
        )
    if protocol.batch_size > len(train):
        found.append(
            f"a batch of {protocol.batch_size} is larger than the training set of {len(train)} images: each step shows "
            f"images more than once; give a batch size of at most {len(train)}"
        )
    for weights in dict.fromkeys(own_protocol(arm, protocol).weights for arm in arms):
        found += doubts_of_weights(replace(protocol, weights=weights), splits)
    for name, bank in banks.items():
        which = bank_text(name)
        if (bank.window is None) != (train.window is None):
            one = "the real images" if bank.window is None else which
            found.append(
                f"{which}: of it and the real images only {one} record a window (the Hounsfield units of the gray "
                "values): nothing says that it is the same"
            )
        for place, count in (seen_images(bank, splits) or {}).items():
            if count:
                found.append(
                    f"{which}: its generator was trained on {count} of the {place} images: they have leaked into the "
                    "arms that use it; train the generator on this split's training part"
                )
        if is_unlisted(bank) and foreign(bank, train):
            found.append(
                f"{which}: its generator was trained on another set than this training set: if that held test images, "
                "they have leaked into the arms that use the bank; train the generator on this split's training part"
            )
    found += [doubt for arm in arms for doubt in _few_images(arm, train, banks, protocol)]
    return tuple(found)


def _few_images(
    arm: str, train: PatchDataset, banks: Mapping[str, SyntheticBank], protocol: Protocol
) -> tuple[str, ...]:
    """A doubt where the bank of an arm that blends has fewer images than its share asks for."""
    kind, name = split_arm_name(arm)
    own = own_protocol(arm, protocol)
    tuned = own.tune and tuned_option(arm)[0] == "blend_share"
    if kind not in ("blend", "blend-mixup") or name not in banks or tuned or own.blend_share == 1:
        return ()
    wanted = round(len(train) * own.blend_share / (1 - own.blend_share))
    held = sum(math.ceil(round(own.keep * count, 9)) for count in banks[name].class_counts.values())
    if held >= wanted:
        return ()
    which = f"keeps {held} of" if own.keep < 1 else "has"
    return (
        f"arm {arm!r}: a share of {own.blend_share:g} beside {len(train)} real images is {wanted} "
        f"synthetic ones, the bank {which} {len(banks[name])} ({describe_counts(banks[name].class_counts)}): "
        "they are repeated",
    )


def doubts_of_folds(arms: Sequence[str], folds: Sequence[Fold], settings: Sequence[Setting]) -> tuple[str, ...]:
    """The doubts of every fold, each once; with several folds, which it is of."""
    found: dict[str, list[int]] = {}
    for number, (fold, setting) in enumerate(zip(folds, settings, strict=True)):
        for doubt in doubts(arms, fold.splits, setting.banks, setting.protocol):
            found.setdefault(doubt, []).append(number)
    return tuple(
        doubt if len(numbers) == len(folds) else f"fold {', '.join(map(str, numbers))}: {doubt}"
        for doubt, numbers in found.items()
    )


def few_seeds(seeds: int) -> tuple[str, ...]:
    """A doubt, as :func:`doubts` has them, where there are too few seeds to know how much trainings differ.

    Of a single seed the tables say what it can show.

    Example:
        >>> few_seeds(5), few_seeds(2)[0][:28]
        ((), '2 seeds are too few to know ')
    """
    if not 1 < seeds < FEWEST_SEEDS:
        return ()
    return (
        f"{seeds} seeds are too few to know how much trainings of one arm differ: intervals are far wider than "
        f"{FEWEST_SEEDS} seeds would give (--seeds {FEWEST_SEEDS}; the finished runs are kept)",
    )
