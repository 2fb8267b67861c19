"""The arms of a comparison: what becomes of a real batch before the classifier sees it.

A new arm is a function and a line in ``KINDS``; nothing else knows how many there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.transforms import GenMix, functional

Arm = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Real images, normalised float32 ``(N, C, H, W)``, and labels, int64 ``(N,)``, to the images and the soft labels,
float32 ``(N, K)``, of the training step. Random numbers come from torch's global generators, seeded for each step."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an arm is built from.

    Args:
        protocol: the options of all arms.
        class_counts: of the training set, ``{name: n}``, in the order of its classes.
        normalisation: that real batches went through.
        bank: with the training set's classes, on its device; None where no arm needs one.
    """

    protocol: Protocol
    class_counts: Mapping[str, int]
    normalisation: Normalisation
    bank: SyntheticBank | None = None


@dataclass(frozen=True, kw_only=True)
class ArmKind:
    """An arm by its name.

    Args:
        build: makes the arm; raises InputError where the setting cannot give it.
        needs_bank: whether it draws from a bank.
        options: the fields of the protocol that change this arm and no other: a run depends on its own arm's alone.
    """

    build: Callable[[Setting], Arm]
    needs_bank: bool = False
    options: tuple[str, ...] = ()


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
    if kind.needs_bank and setting.bank is None:
        raise InputError(
            f"the arm {name!r} needs a bank of synthetic images: give one (--bank), or leave the arm out (--arms)"
        )
    return kind.build(setting)


def arm_kind(name: str) -> ArmKind:
    """The arm of that name; an unknown one is an InputError that lists all."""
    if name not in KINDS:
        raise InputError(f"no arm {name!r}; there are {', '.join(ARMS)}")
    return KINDS[name]


def _baseline(setting: Setting) -> Arm:
    """Real batches as they are."""
    classes = len(setting.class_counts)
    return lambda images, labels: (images, functional.soft_labels(labels, num_classes=classes))


def _mixup(setting: Setting) -> Arm:
    """MixUp among the real images of the batch, as torchvision does it: one lambda a batch."""
    mixup = v2.MixUp(alpha=setting.protocol.mixup_alpha, num_classes=len(setting.class_counts))

    def arm(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, soft = mixup(images, labels)
        return mixed, soft.float()

    return arm


def _blend(setting: Setting) -> Arm:
    """Real and synthetic images together in one training set, of which the synthetic ones are the given share.

    Each image of a batch is replaced, with that probability, by one drawn from the whole bank: what batches of the
    shuffled union look like, for any size of bank. Classes come as often as the bank has them.
    """
    bank, share = _bank(setting), setting.protocol.blend_share
    if not len(bank):
        raise InputError("the arm 'blend': the bank is empty")
    classes = len(setting.class_counts)
    scale, shift = setting.normalisation.unit(bank.images)

    def arm(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kind, place = torch.rand(2, len(images), device=images.device)
        synthetic = kind < share
        index = (place.double() * len(bank)).long().clamp_(max=len(bank) - 1)
        others = functional.dequantise(bank.images.index_select(0, index), scale, shift)
        other_labels = functional.soft_labels(bank.labels.index_select(0, index), num_classes=classes)
        soft = functional.soft_labels(labels, num_classes=classes)
        return (
            torch.where(synthetic.view(-1, 1, 1, 1), others, images),
            torch.where(synthetic.view(-1, 1), other_labels, soft),
        )

    return arm


def _genmix(setting: Setting) -> Arm:
    """Real batches through GenMix."""
    protocol = setting.protocol
    transform = GenMix(
        _bank(setting),
        alpha=protocol.alpha,
        pairing=protocol.pairing,
        real_partner=protocol.real_partner,
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


def _bank(setting: Setting) -> SyntheticBank:
    assert setting.bank is not None  # build_arm has looked
    return setting.bank


KINDS: dict[str, ArmKind] = {
    "baseline": ArmKind(build=_baseline),
    "mixup": ArmKind(build=_mixup, options=("mixup_alpha",)),
    "blend": ArmKind(build=_blend, needs_bank=True, options=("blend_share",)),
    "genmix": ArmKind(build=_genmix, needs_bank=True, options=("alpha", "pairing", "real_partner", "p")),
}
"""Every arm by its name, in the order of the table."""

ARMS = tuple(KINDS)
