"""Label images that were drawn without labels, with a classifier of a few labeled images."""

from dataclasses import replace

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.checks import check_images_fit
from genmix_transforms.evaluation.confidence import judge_of
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.protocol import Protocol, preset
from genmix_transforms.evaluation.training import class_probabilities
from genmix_transforms.files.checks import whole_number

CPU = torch.device("cpu")


def label_bank(
    bank: SyntheticBank,
    splits: Splits,
    *,
    per_class: int | None = None,
    soft: bool = False,
    protocol: Protocol | None = None,
    device: torch.device = CPU,
) -> SyntheticBank:
    """Give a bank the classes of a labeled training set, by a classifier that is trained on that set.

    Use it for a generator that was trained on a large unlabeled pool. A GAN that is fine-tuned on a few labeled images
    hardly learns their classes, but a classifier of the same images does. Each image gets its most likely class or,
    with ``soft``, the probabilities of all classes, which is distillation. ``per_class`` keeps the images with the
    highest confidence.

    Args:
        bank: a bank with the size and channels of the training set; its own labels are ignored.
        splits: train, validation (which chooses the step whose weights are taken, if the protocol says so) and test,
            which is not used.
        per_class: images to keep of each class, those with the highest probability of their most likely class; None:
            all.
        soft: keep the probabilities as labels, float32 ``(N, K)``.
        protocol: how the classifier is trained, and from which weights; None: ``preset("few-labels")``. Use ``weights``
            from :func:`pretrain_classifier` on the pool to use the information of the pool.
        device: where to train.

    Returns:
        A bank in memory. Its provenance records the training set as seen, so that an evaluation with test images from
        this set refuses it.

    Raises:
        InputError: parts that do not match; images with a different size, depth or window; fewer images of a class than
            asked for.

    Source: Lee, "Pseudo-Label" (ICML 2013 workshop), of synthetic images; for ``soft``, Hinton et al. (arXiv
    1503.02531).

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> splits = LesionPhantom(size=16, train=(12, 12, 12), val=(6, 6, 6), test=(6, 6, 6), seed=0).dataset().split()
        >>> images = torch.randint(0, 256, (30, 1, 16, 16), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.zeros(30, dtype=torch.int64), classes=["unlabelled"])
        >>> labeled = label_bank(bank, splits, soft=True, protocol=preset("few-labels", steps=4))
        >>> labeled.classes == splits[0].classes, labeled.label_kind, len(labeled)
        (True, 'probabilities', 30)
    """
    train = splits[0]
    if per_class is not None:
        whole_number(per_class, name="label_bank: per_class", least=1)
    check_images_fit(bank, train)
    protocol = preset("few-labels") if protocol is None else protocol
    trained, setting = judge_of(
        splits, replace(protocol, batch_size=min(protocol.batch_size, len(train))), device=device
    )
    found = class_probabilities(trained.network, bank.images.to(device), setting).cpu()
    likeliest = found.argmax(dim=1)
    kept = torch.arange(len(bank)) if per_class is None else _surest(found, likeliest, per_class, train.classes)
    # A source of its own, of no image: whose labels these are is known, also where nobody knows what its generator saw.
    told = {"classifier": protocol.to_json(), "per_class": per_class, "soft": soft}
    sources = [*bank.sources, {"labelled_by": told, "training_set": train.training_set()}]
    labels = found.float() if soft else likeliest
    # First taken and then labeled, for a bank is sorted by its labels.
    return bank.take(kept).replace(labels=labels[kept], classes=train.classes, provenance=sources)


def _surest(found: Tensor, likeliest: Tensor, per_class: int, classes: tuple[str, ...]) -> Tensor:
    kept = []
    for number, name in enumerate(classes):
        own = torch.nonzero(likeliest == number).squeeze(1)
        if len(own) < per_class:
            counts = dict(zip(classes, torch.bincount(likeliest, minlength=len(classes)).tolist(), strict=True))
            told = ", ".join(f"{one} {count}" for one, count in counts.items())
            raise InputError(
                f"label_bank: {per_class} images of each class were asked for, and the classifier takes {len(own)} for "
                f"{name} ({told}); fill a larger bank, or ask for fewer"
            )
        kept.append(own[found[own, number].argsort(descending=True, stable=True)[:per_class]])
    return torch.cat(kept).sort().values
