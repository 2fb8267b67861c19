"""The kinds of arm: what becomes of a real batch before the classifier sees it.

A new arm is a function and a line in ``KINDS``; nothing else knows how many there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.rows import take_rows
from genmix_transforms.evaluation.augmix import AugMix
from genmix_transforms.evaluation.bank_choice import class_shares
from genmix_transforms.evaluation.controls import Classical
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import GRID, Protocol
from genmix_transforms.transforms import GenMix, functional
from genmix_transforms.transforms.pairing_names import Absent, PairingName


class Batch(NamedTuple):
    """What an arm makes of a real batch: what the classifier is trained on in one step.

    Args:
        images: normalized float32 ``(N, C, H, W)``.
        labels: soft, float32 ``(N, K)``.
        synthetic: bool ``(N,)``: which images are synthetic as a whole; None: an image is real, or a mixture of both.
        weights: float32 ``(N,)``: of each image in the loss, a weighted mean; None: all weigh the same.
    """

    images: Tensor
    labels: Tensor
    synthetic: Tensor | None = None
    weights: Tensor | None = None


Arm = Callable[[Tensor, Tensor], Batch]
"""Real images, normalized float32 ``(N, C, H, W)``, and labels, int64 ``(N,)`` or float32 ``(N, K)``, to the batch of
the training step. Random numbers come from torch's global generators, seeded for each step."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What arms are built from.

    Args:
        protocol: the options of all arms.
        class_counts: of the training set, ``{name: n}``, in the order of its classes.
        normalisation: that real batches went through.
        banks: by name, with the training set's classes, on its device; ``ONLY_BANK`` is the one without a name.
        real: the training set itself, as a bank: what the controls draw from.
        several_labels: whether an image has several labels: each class is a question of its own, yes or no.
        confidence: of each bank's images, float ``(N,)``, by the bank's name: what ``keep`` goes by, see
            :mod:`genmix_transforms.evaluation.confidence`.
    """

    protocol: Protocol
    class_counts: Mapping[str, int]
    normalisation: Normalisation
    banks: Mapping[str, SyntheticBank] = field(default_factory=dict)
    real: SyntheticBank | None = None
    several_labels: bool = False
    confidence: Mapping[str, Tensor] = field(default_factory=dict)


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
        part: the field of the protocol that says for what share of the steps it makes the batches, before real ones as
            they are; None: for all.
        restarts: whether the learning rate's schedule begins again after that part.
        from_pool: whether the classifier starts from ``pool_weights``; otherwise from the weights of all arms.
        revision: raised where what the arm does, or how it draws, changes its scores: kept runs are then run again.
    """

    build: Callable[[Setting, SyntheticBank | None], Arm]
    knob: str
    grid: tuple[float, ...]
    needs_bank: bool = False
    needs_real: bool = False
    options: tuple[str, ...] = ()
    part: str | None = None
    restarts: bool = False
    from_pool: bool = False
    revision: int = 1

    def __post_init__(self) -> None:
        assert len(self.grid) == GRID


def baseline(setting: Setting, bank: SyntheticBank | None = None) -> Arm:
    """Real batches as they are."""
    classes = len(setting.class_counts)
    return lambda images, labels: Batch(images, functional.soft_labels(labels, num_classes=classes))


def _mixup(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """MixUp among the real images of the batch, as torchvision does it: one lambda a batch."""
    classes = len(setting.class_counts)
    mixup = v2.MixUp(alpha=setting.protocol.mixup_alpha, num_classes=classes)

    def arm(images: Tensor, labels: Tensor) -> Batch:
        mixed, soft = mixup(images, functional.soft_labels(labels, num_classes=classes))
        return Batch(mixed, soft)

    return arm


def _balanced_mixup(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Balanced-MixUp: real images, each with a real partner whose class is drawn from all alike, Beta(alpha, 1).

    Galdran, Carneiro, González Ballester, "Balanced-MixUp for Highly Imbalanced Medical Image Classification" (MICCAI
    2021). There one lambda is drawn for a batch, here one for each image, as in GenMix. A class without real images is
    no partner.
    """
    return _mixed(setting, bank, 0.0, pairing="balanced", absent="redraw")


def _augmix(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """AugMix of each real image by itself."""
    classes = len(setting.class_counts)
    augment = AugMix(setting.normalisation, severity=setting.protocol.augmix_severity)
    return lambda images, labels: Batch(augment(images), functional.soft_labels(labels, num_classes=classes))


def _classical(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Flips, rotations and crops of the real images."""
    classes = len(setting.class_counts)
    augment = Classical(strength=setting.protocol.classical_strength)
    return lambda images, labels: Batch(augment(images), functional.soft_labels(labels, num_classes=classes))


def _blend(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Real and synthetic images together in one training set, of which the synthetic ones are the given share."""
    return _shared(setting, bank, setting.protocol.blend_share)


def _blend_mixup(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """MixUp over the union: the batches of "blend", mixed among themselves, real and synthetic alike."""
    blend = _shared(setting, bank, setting.protocol.blend_share)
    mixup = v2.MixUp(alpha=setting.protocol.mixup_alpha, num_classes=len(setting.class_counts))

    def arm(images: Tensor, labels: Tensor) -> Batch:
        batch = blend(images, labels)
        mixed, soft = mixup(batch.images, batch.labels)
        return Batch(mixed, soft)

    return arm


def _repeat(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """What "blend" is with the real training images for its bank: real images, repeated to the blend's count.

    The control of Pink and Sykes (PMLR 318:954-961, 2026).
    """
    return _shared(setting, bank, setting.protocol.repeat_share)


def _only(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """The images of the bank alone: the first phase of "pretrain", or, with the real images, of its control."""
    return _shared(setting, bank, 1.0)


def _shared(setting: Setting, bank: SyntheticBank | None, share: float) -> Arm:
    """Each image of a batch is replaced, with that probability, by one drawn from the whole bank.

    That is what batches of the shuffled union look like, for any size of bank. Classes come as often as the bank has
    them, or as ``balance`` says.
    """
    assert bank is not None  # build_arm has looked
    protocol, classes = setting.protocol, len(setting.class_counts)
    scale, shift = setting.normalisation.unit(bank.images)
    index_of = _draw(bank, class_shares(bank, protocol.balance, class_counts=setting.class_counts))

    def arm(images: Tensor, labels: Tensor) -> Batch:
        kind, place = torch.rand(2, len(images), device=images.device)
        synthetic = kind < share
        index = index_of(place)
        others = functional.dequantise(take_rows(bank.images, index), scale, shift)
        other_labels = functional.soft_labels(bank.labels.index_select(0, index), num_classes=classes)
        soft = functional.soft_labels(labels, num_classes=classes)
        weight = protocol.synthetic_weight
        return Batch(
            torch.where(synthetic.view(-1, 1, 1, 1), others, images),
            torch.where(synthetic.view(-1, 1), other_labels, soft),
            synthetic,
            None if weight == 1 else torch.where(synthetic, weight, 1.0),
        )

    return arm


def _draw(bank: SyntheticBank, shares: Tensor | None) -> Callable[[Tensor], Tensor]:
    """From uniform numbers in [0, 1) to numbers of images, with the given shares of the classes or, for None, all
    images alike."""
    if shares is None:
        return lambda place: (place.double() * len(bank)).long().clamp_(max=len(bank) - 1)
    # An image's share is its class's, divided among its images; a class that is not drawn ends where it begins.
    each = shares.to(bank.device) / bank.class_count.clamp(min=1)
    ends = each.repeat_interleave(bank.class_count).cumsum(0)
    last = int(ends.argmax())  # the first image of those at the very end: behind it none has a share
    return lambda place: torch.searchsorted(ends, place.double() * ends[-1], right=True).clamp_(max=last)


def _genmix(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """Real batches through GenMix, Eq. (1): every partner is synthetic, unless ``real_partner`` says otherwise."""
    return _mixed(setting, bank, setting.protocol.real_partner)


def _genmix_union(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """GenMix with real and synthetic partners alike: the reading of the paper's section 2."""
    return _mixed(setting, bank, UNION_SHARE)


def _genmix_real(setting: Setting, bank: SyntheticBank | None) -> Arm:
    """GenMix with the real training images for its bank: what the mixing does without anything synthetic."""
    return _mixed(setting, bank, 0.0)


def _mixed(
    setting: Setting,
    bank: SyntheticBank | None,
    real_partner: float,
    *,
    pairing: PairingName | None = None,
    absent: Absent = "error",
) -> Arm:
    assert bank is not None  # build_arm has looked
    protocol = setting.protocol
    transform = GenMix(
        bank,
        alpha=protocol.alpha,
        pairing=protocol.pairing if pairing is None else pairing,
        absent=absent,
        real_partner=real_partner,
        p=protocol.p,
        mean=setting.normalisation.mean,
        std=setting.normalisation.std,
        class_counts=setting.class_counts,
        check_range=False,  # the same numbers have normalized the batch
    )

    def arm(images: Tensor, labels: Tensor) -> Batch:
        mixed, soft = transform(images, labels)
        return Batch(mixed, soft)

    return arm


UNION_SHARE = 0.5
"""Of "genmix-union": what the union of a training set and a bank as large gives."""

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_ALPHAS = (0.1, 0.2, 0.3, 0.6, 1.0)
_DECAYS = (0.0, 0.001, 0.01, 0.05, 0.1)
_PARTS = (0.1, 0.25, 0.5, 0.75, 0.9)
_MIXING = ("alpha", "pairing", "p")
_KEPT = ("keep", "keep_by")
_WHOLE = ("balance", *_KEPT)

KINDS: dict[str, ArmKind] = {
    "baseline": ArmKind(build=baseline, knob="weight_decay", grid=_DECAYS),
    "mixup": ArmKind(build=_mixup, knob="mixup_alpha", grid=(0.1, 0.2, 0.4, 0.7, 1.0), options=("mixup_alpha",)),
    "balanced-mixup": ArmKind(
        build=_balanced_mixup, knob="alpha", grid=_ALPHAS, needs_real=True, options=("alpha", "p")
    ),
    "augmix": ArmKind(
        build=_augmix, knob="augmix_severity", grid=(1, 2, 3, 4, 5), options=("augmix_severity",), revision=2
    ),
    "classical": ArmKind(
        build=_classical, knob="classical_strength", grid=(0.2, 0.4, 0.6, 0.8, 1.0), options=("classical_strength",)
    ),
    "repeat": ArmKind(build=_repeat, knob="repeat_share", grid=_SHARES, needs_real=True, options=("repeat_share",)),
    "pretrain-repeat": ArmKind(
        build=_only,
        knob="pretrain_part",
        grid=_PARTS,
        needs_real=True,
        options=("pretrain_part",),
        part="pretrain_part",
        restarts=True,
    ),
    "pool": ArmKind(build=baseline, knob="weight_decay", grid=_DECAYS, options=("pool_weights",), from_pool=True),
    "blend": ArmKind(
        build=_blend,
        knob="blend_share",
        grid=_SHARES,
        needs_bank=True,
        options=("blend_share", "synthetic_weight", "aux_norm", *_WHOLE),
    ),
    "blend-mixup": ArmKind(
        build=_blend_mixup,
        knob="blend_share",
        grid=_SHARES,
        needs_bank=True,
        options=("blend_share", "mixup_alpha", *_WHOLE),
    ),
    "pretrain": ArmKind(
        build=_only,
        knob="pretrain_part",
        grid=_PARTS,
        needs_bank=True,
        options=("pretrain_part", *_WHOLE),
        part="pretrain_part",
        restarts=True,
    ),
    "genmix-real": ArmKind(build=_genmix_real, knob="alpha", grid=_ALPHAS, needs_real=True, options=_MIXING),
    "genmix": ArmKind(
        build=_genmix, knob="alpha", grid=_ALPHAS, needs_bank=True, options=(*_MIXING, "real_partner", *_KEPT)
    ),
    "genmix-union": ArmKind(
        build=_genmix_union, knob="alpha", grid=_ALPHAS, needs_bank=True, options=(*_MIXING, *_KEPT)
    ),
    "genmix-first": ArmKind(
        build=_genmix,
        knob="mixing_part",
        grid=_PARTS,
        needs_bank=True,
        options=("mixing_part", *_MIXING, "real_partner", *_KEPT),
        part="mixing_part",
    ),
}
"""Every kind of arm by its name, in the order of the table."""

ARMS = tuple(KINDS)

DEFAULT_ARMS = ("baseline", "mixup", "blend", "genmix")
"""What is compared unless somebody says otherwise."""
