"""The arms of a comparison: what becomes of a real batch before the classifier sees it.

A new arm is a function and a line in ``KINDS``; nothing else knows how many there are. An arm's name is its kind, and
after a colon the name of the bank that it draws from, where there are several: ``genmix:dcgan``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.rows import take_rows
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.augmix import AugMix
from genmix_transforms.evaluation.controls import Classical
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import GRID, Protocol
from genmix_transforms.transforms import GenMix, functional

Arm = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Real images, normalised float32 ``(N, C, H, W)``, and labels, int64 ``(N,)``, to the images and the soft labels,
float32 ``(N, K)``, of the training step. Random numbers come from torch's global generators, seeded for each step."""

ONLY_BANK = ""
"""The name of the bank where there is but one, and nobody has named it."""

_JOINT = ":"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What arms are built from.

    Args:
        protocol: the options of all arms.
        class_counts: of the training set, ``{name: n}``, in the order of its classes.
        normalisation: that real batches went through.
        banks: by name, with the training set's classes, on its device; ``ONLY_BANK`` is the one without a name.
        real: the training set itself, as a bank: what the controls draw from.
    """

    protocol: Protocol
    class_counts: Mapping[str, int]
    normalisation: Normalisation
    banks: Mapping[str, SyntheticBank] = field(default_factory=dict)
    real: SyntheticBank | None = None


@dataclass(frozen=True, kw_only=True)
class ArmKind:
    """A kind of arm.

    Args:
        build: makes the arm, given the bank it draws from; raises InputError where the setting cannot give it.
        knob: the field of the protocol that is tuned for it.
        grid: the values that are tried, from weak to strong; the same number for every kind.
        needs_bank: whether it draws from a bank of synthetic images.
        needs_real: whether it draws from the training set, beside the batch.
        options: the fields of the protocol that change this arm and not all: a run depends on its own arm's alone.
        revision: raised where what the arm does, or how it draws, changes its scores: kept runs are then run again.
    """

    build: Callable[[Setting, SyntheticBank | None], Arm]
    knob: str
    grid: tuple[float, ...]
    needs_bank: bool = False
    needs_real: bool = False
    options: tuple[str, ...] = ()
    revision: int = 1

    def __post_init__(self) -> None:
        assert len(self.grid) == GRID


def arm_name(kind: str, bank: str = ONLY_BANK) -> str:
    """``genmix``, or with the name of a bank ``genmix:dcgan``."""
    return kind if bank == ONLY_BANK else f"{kind}{_JOINT}{bank}"


def split_arm_name(name: str) -> tuple[str, str]:
    """The kind and the bank's name, ``ONLY_BANK`` where none is named; of the kind nothing is asked."""
    kind, _, bank = name.partition(_JOINT)
    return kind, bank


def arm_kind(name: str) -> ArmKind:
    """The kind of an arm; an unknown one is an InputError that lists all."""
    kind, bank = split_arm_name(name)
    if kind not in KINDS:
        raise InputError(f"no arm {name!r}; there are {', '.join(ARMS)}")
    if bank and not KINDS[kind].needs_bank:
        raise InputError(f"no arm {name!r}: {kind!r} draws from no bank of synthetic images")
    return KINDS[kind]


def expand_arms(arms: Iterable[str], banks: Collection[str]) -> tuple[str, ...]:
    """Every kind that needs a bank and names none, once for each bank by name.

    Args:
        arms: names of arms or kinds.
        banks: the banks' names; with an unnamed one among them, a kind stands for that one.

    Raises:
        InputError: an unknown arm, or one of a bank that is not there.

    Example:
        >>> expand_arms(["baseline", "blend", "genmix:adm"], ["dcgan", "adm"])
        ('baseline', 'blend:dcgan', 'blend:adm', 'genmix:adm')
    """
    found: list[str] = []
    for arm in arms:
        _, bank = split_arm_name(arm)
        kind = arm_kind(arm)
        if bank and bank not in banks:
            known = ", ".join(name for name in banks if name) or "none with a name"
            raise InputError(f"the arm {arm!r}: no bank {bank!r}; there are {known} (--bank {bank}=FOLDER)")
        if kind.needs_bank and not bank and banks and ONLY_BANK not in banks:
            found += [arm_name(arm, name) for name in banks]
        else:
            found.append(arm)
    return tuple(found)


def check_arms(arms: Sequence[str]) -> tuple[str, ...]:
    """The arms' names, each known and there once."""
    if isinstance(arms, str):
        raise InputError(f"arms must be a list of names, got the text {arms!r}; give ({arms!r},)")
    arms = tuple(arms)
    if not arms:
        raise InputError("no arms to compare")
    for arm in arms:
        arm_kind(arm)
    if len(set(arms)) != len(arms):
        raise InputError(f"every arm once, got {', '.join(arms)}")
    return arms


def order_arms(
    arms: Sequence[str], banks: Collection[str], missing: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """All arms in the order of the table, and those of them that stay empty, with the reason.

    Args:
        arms: names of arms or kinds.
        banks: names of the banks that are there.
        missing: names of those that are not, and why.

    Raises:
        InputError: arms that are unknown, there twice, or draw from a bank that nobody gave.
    """
    both = sorted(set(banks) & set(missing))
    if both:
        raise InputError(f"{', '.join(both)}: a bank is there or missing, not both")
    if missing and ONLY_BANK in banks:
        raise InputError("missing names banks: give those that are there by name too (banks=)")
    order = check_arms(expand_arms(check_arms(arms), [*banks, *missing]))
    for arm in order:
        check_bank_given(arm, [*banks, *missing])
    empty = {arm: missing[name] for arm in order if (name := split_arm_name(arm)[1]) in missing}
    if len(empty) == len(order):
        raise InputError(f"no arm is left to compare: {', '.join(order)} are all missing")
    return order, empty


def check_bank_given(name: str, banks: Collection[str]) -> None:
    """Raise an InputError if the arm draws from a bank that is not among these."""
    _, bank = split_arm_name(name)
    if arm_kind(name).needs_bank and bank not in banks:
        raise InputError(
            f"the arm {name!r} needs a bank of synthetic images: give one (--bank), or leave the arm out (--arms)"
        )


def build_arm(name: str, setting: Setting) -> Arm:
    """Make an arm.

    Raises:
        InputError: no such arm, an arm that needs a bank without one, or a bank it cannot use.

    Example:
        >>> setting = Setting(protocol=Protocol(), class_counts={"cyst": 2, "metastasis": 2},
        ...                   normalisation=Normalisation(mean=(0.5,), std=(0.5,)))
        >>> images, labels = build_arm("baseline", setting)(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
        >>> labels.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    kind = arm_kind(name)
    if kind.needs_real:
        if setting.real is None:
            raise InputError(f"the arm {name!r} draws from the training set: the setting has none")
        return kind.build(setting, setting.real)
    if not kind.needs_bank:
        return kind.build(setting, None)
    _, bank = split_arm_name(name)
    check_bank_given(name, setting.banks)
    if not len(setting.banks[bank]):
        raise InputError(f"the arm {name!r}: the bank is empty")
    return kind.build(setting, setting.banks[bank])


def _baseline(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Real batches as they are."""
    classes = len(setting.class_counts)
    return lambda images, labels: (images, functional.soft_labels(labels, num_classes=classes))


def _mixup(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """MixUp among the real images of the batch, as torchvision does it: one lambda a batch."""
    classes = len(setting.class_counts)
    mixup = v2.MixUp(alpha=setting.protocol.mixup_alpha, num_classes=classes)

    def arm(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, soft = mixup(images, functional.soft_labels(labels, num_classes=classes))
        return mixed, soft

    return arm


def _augmix(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """AugMix of each real image by itself."""
    classes = len(setting.class_counts)
    augment = AugMix(setting.normalisation, severity=setting.protocol.augmix_severity)
    return lambda images, labels: (augment(images), functional.soft_labels(labels, num_classes=classes))


def _classical(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Flips, rotations and crops of the real images."""
    classes = len(setting.class_counts)
    augment = Classical(strength=setting.protocol.classical_strength)
    return lambda images, labels: (augment(images), functional.soft_labels(labels, num_classes=classes))


def _blend(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Real and synthetic images together in one training set, of which the synthetic ones are the given share."""
    return _shared(setting, bank, setting.protocol.blend_share)


def _repeat(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """What "blend" is with the real training images for its bank: real images, repeated to the blend's count."""
    return _shared(setting, bank, setting.protocol.repeat_share)


def _shared(setting: Setting, bank: SyntheticBank | None, share: float) -> Arm:
    """Each image of a batch is replaced, with that probability, by one drawn from the whole bank.

    That is what batches of the shuffled union look like, for any size of bank. Classes come as often as the bank has
    them.
    """
    assert bank is not None  # build_arm has looked
    classes = len(setting.class_counts)
    scale, shift = setting.normalisation.unit(bank.images)

    def arm(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kind, place = torch.rand(2, len(images), device=images.device)
        synthetic = kind < share
        index = (place.double() * len(bank)).long().clamp_(max=len(bank) - 1)
        others = functional.dequantise(take_rows(bank.images, index), scale, shift)
        other_labels = functional.soft_labels(bank.labels.index_select(0, index), num_classes=classes)
        soft = functional.soft_labels(labels, num_classes=classes)
        return (
            torch.where(synthetic.view(-1, 1, 1, 1), others, images),
            torch.where(synthetic.view(-1, 1), other_labels, soft),
        )

    return arm


def _genmix(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Real batches through GenMix, Eq. (1): every partner is synthetic, unless ``real_partner`` says otherwise."""
    return _mixed(setting, bank, setting.protocol.real_partner)


def _genmix_union(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """GenMix with real and synthetic partners alike: the reading of the paper's section 2."""
    return _mixed(setting, bank, UNION_SHARE)


def _genmix_real(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """GenMix with the real training images for its bank: what the mixing does without anything synthetic."""
    return _mixed(setting, bank, 0.0)


def _mixed(setting: Setting, bank: SyntheticBank | None, real_partner: float) -> Arm:
    assert bank is not None  # build_arm has looked
    protocol = setting.protocol
    transform = GenMix(
        bank,
        alpha=protocol.alpha,
        pairing=protocol.pairing,
        real_partner=real_partner,
        p=protocol.p,
        mean=setting.normalisation.mean,
        std=setting.normalisation.std,
        class_counts=setting.class_counts,
        check_range=False,  # the same numbers have normalised the batch
    )

    def arm(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, soft = transform(images, labels)
        return mixed, soft

    return arm


UNION_SHARE = 0.5
"""Of "genmix-union": what the union of a training set and a bank as large gives."""

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_ALPHAS = (0.1, 0.2, 0.3, 0.6, 1.0)
_DECAYS = (0.0, 0.001, 0.01, 0.05, 0.1)
_MIXING = ("alpha", "pairing", "p")

KINDS: dict[str, ArmKind] = {
    "baseline": ArmKind(build=_baseline, knob="weight_decay", grid=_DECAYS),
    "mixup": ArmKind(build=_mixup, knob="mixup_alpha", grid=(0.1, 0.2, 0.4, 0.7, 1.0), options=("mixup_alpha",)),
    "augmix": ArmKind(
        build=_augmix, knob="augmix_severity", grid=(1, 2, 3, 4, 5), options=("augmix_severity",), revision=2
    ),
    "classical": ArmKind(
        build=_classical, knob="classical_strength", grid=(0.2, 0.4, 0.6, 0.8, 1.0), options=("classical_strength",)
    ),
    "repeat": ArmKind(build=_repeat, knob="repeat_share", grid=_SHARES, needs_real=True, options=("repeat_share",)),
    "blend": ArmKind(build=_blend, knob="blend_share", grid=_SHARES, needs_bank=True, options=("blend_share",)),
    "genmix-real": ArmKind(build=_genmix_real, knob="alpha", grid=_ALPHAS, needs_real=True, options=_MIXING),
    "genmix": ArmKind(build=_genmix, knob="alpha", grid=_ALPHAS, needs_bank=True, options=(*_MIXING, "real_partner")),
    "genmix-union": ArmKind(build=_genmix_union, knob="alpha", grid=_ALPHAS, needs_bank=True, options=_MIXING),
}
"""Every kind of arm by its name, in the order of the table."""

ARMS = tuple(KINDS)

DEFAULT_ARMS = ("baseline", "mixup", "blend", "genmix")
"""What is compared unless somebody says otherwise."""


# Tuning: an arm that is searched beside one that is not wins by the search.

TUNING_SEED = 2**31 - 1
"""Of the trials' weights, data order and draws: none of the seeds whose scores are reported."""


def trial_values(arm: str, count: int) -> tuple[float, ...]:
    """The values that an arm tries: so many of its grid, its ends among them; none for a count of 0.

    Example:
        >>> trial_values("blend", 3), trial_values("genmix", 0)
        ((0.1, 0.3, 0.5), ())
    """
    if not count:
        return ()
    grid = arm_kind(arm).grid
    return tuple(grid[round(number * (GRID - 1) / (count - 1))] for number in range(count))


def with_value(protocol: Protocol, arm: str, value: float | None) -> Protocol:
    """The protocol of a run that is not tuned further: with that value of the arm's option, or, for None, its own.

    Example:
        >>> with_value(Protocol(tune=3), "blend", 0.1).blend_share
        0.1
    """
    if value is None:
        return replace(protocol, tune=0)
    knob = arm_kind(arm).knob
    whole = next(field.type for field in fields(protocol) if field.name == knob) is int
    changes: dict[str, Any] = {knob: int(value) if whole else value}
    return replace(protocol, tune=0, **changes)


def choose(trials: Mapping[float, float]) -> float:
    """The value with the best validation score; of several, the one that changes the images least.

    Args:
        trials: the macro F1 on the validation part, by value.

    Example:
        >>> choose({0.5: 0.7, 0.1: 0.6, 0.3: 0.7})
        0.3
    """
    return min(trials, key=lambda value: (-trials[value], value))
