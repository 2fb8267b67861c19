"""What the generators of banks and the classifier's weights have learned from: no test image may be among it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import find_recorded, pixel_hashes, record_images
from genmix_transforms.data.patches import SPLITS, PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.bank_making import RESIZED_FROM
from genmix_transforms.evaluation.classifiers import SMALL
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.small_weights import SmallWeights

Splits = tuple[PatchDataset, PatchDataset, PatchDataset]
"""Train, validation and test, as :meth:`PatchDataset.split` returns them."""


def bank_text(name: str) -> str:
    """How messages call a bank."""
    return f"the bank {name!r}" if name else "the bank"


def check_unseen(bank: SyntheticBank, splits: Splits, *, name: str) -> None:
    """The bank's generator was not trained on test images, as far as it is recorded."""
    seen = seen_images(bank, splits)
    if seen is not None and seen["test"]:
        raise InputError(
            f"{name}: its generator was trained on {seen['test']} of the {len(splits[2])} test images, and scores of "
            "arms that use it would be too high; train it on the training part of this split: save the split once "
            "(genmix split DATA --out split.csv), and give every command --split split.csv"
        )


def check_weights_unseen(protocol: Protocol, splits: Splits) -> None:
    """Raise an InputError if the classifier's weights were pre-trained on test images, as far as it is recorded."""
    seen = _seen_by_weights(protocol, splits)
    if seen is not None and seen["test"]:
        raise InputError(
            f"the weights {protocol.weights}: pre-trained on {seen['test']} of the {len(splits[2])} test images, "
            "labels or not, and all scores would be too high; pre-train on a pool without them: save the split once "
            "(genmix split DATA --out split.csv), and give genmix pretrain-classifier the same --split"
        )


def doubts_of_weights(protocol: Protocol, splits: Splits) -> tuple[str, ...]:
    """What is doubtful about the images that the classifier's weights were pre-trained on."""
    if protocol.classifier != SMALL or protocol.weights is None:
        return ()
    seen = _seen_by_weights(protocol, splits)
    if seen is None:
        return (
            "the classifier's weights do not record which images they were pre-trained on: they may be test images",
        )
    if seen["val"]:
        return (
            f"the classifier's weights were pre-trained on {seen['val']} of the validation images, without labels: the "
            "step whose weights are tested is chosen on them",
        )
    return ()


def _seen_by_weights(protocol: Protocol, splits: Splits) -> dict[str, int] | None:
    if protocol.classifier != SMALL or protocol.weights is None:
        return None
    return _seen([SmallWeights.load(protocol.weights).training_set], splits)


def seen_images(bank: SyntheticBank, splits: Splits) -> dict[str, int] | None:
    """How many validation and test images the bank's generator was trained on, ``{"val": n, "test": m}``.

    Images that are in the training part too do not count: it is the data that has them twice.

    Returns:
        None where the bank does not record the images of its generator's training set.
    """
    return _seen(training_sets(bank), splits)


def _seen(records: Sequence[Mapping[str, Any]], splits: Splits) -> dict[str, int] | None:
    """How many validation and test images these records name, and the training part has not."""
    train, *others = splits
    found: dict[str, int] = {}
    for name, part in zip(SPLITS[1:], others, strict=True):
        # A pool may have come at the very size that the data is brought to here.
        named = [
            find_recorded(identity, record)
            for record in records
            for identity in (part.origins, pixel_hashes(part.images))
        ]
        known = [of_record for of_record in named if of_record is not None]
        if not known:
            return None
        seen = torch.stack(known).any(dim=0) & ~part.found_in(train)
        found[name] = int(seen.sum())
    return found


def foreign(bank: SyntheticBank, train: PatchDataset) -> bool:
    """Whether the bank says that its generator was trained on something else than this set, at its size or another.

    A bank that does not say what its generator was trained on is not foreign: nobody can tell.
    """
    records = training_sets(bank)
    if records and all(record.get("images") is not None for record in records):
        here = record_images(train.origins)
        return any(record["images"] != here for record in records)
    recorded = bank_fingerprint(bank)
    if recorded in (None, train.fingerprint):
        return False
    # Records without images, of an earlier release or of very large sets, have a fingerprint of the pixels alone.
    sizes = {source.get(RESIZED_FROM) for source in bank.sources}
    return not any(isinstance(size, int) and recorded == train.resized(size).fingerprint for size in sizes)


def trained_on_more(bank: SyntheticBank, train: PatchDataset) -> bool:
    """Whether all of this set was seen and more: a pool, what the first weights had seen, or what labeled the bank.

    A bank that :func:`~genmix_transforms.evaluation.label_bank` labeled has two records, the generator's and the
    classifier's: together they must hold the set.
    """
    named = [find_recorded(train.origins, record) for record in training_sets(bank)]
    known = [seen for seen in named if seen is not None]
    if not known or len(known) < len(named):
        return False
    return foreign(bank, train) and bool(torch.stack(known).any(dim=0).all())


def bank_fingerprint(bank: SyntheticBank) -> str | None:
    """The fingerprint of the set that the bank's generator was trained on, where the bank records it."""
    prints = {record.get("fingerprint") for record in training_sets(bank)}
    return "+".join(sorted(text for text in prints if isinstance(text, str))) or None


def is_unlisted(bank: SyntheticBank) -> bool:
    """Whether it records a training set without its images, so that nobody can tell which they were."""
    return any(record.get("images") is None for record in training_sets(bank))


def training_sets(bank: SyntheticBank) -> list[Mapping[str, Any]]:
    """The records of what the bank's generators, and a classifier that labeled it, were trained on."""
    records = [source.get("training_set") for source in bank.sources]
    return [record for record in records if isinstance(record, Mapping)]
