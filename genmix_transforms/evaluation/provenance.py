"""What the results say of the data, the banks, the protocol and the machine: facts and hashes, no paths."""

import hashlib
import platform
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import SPLITS, PatchDataset
from genmix_transforms.evaluation.arms import KINDS, ONLY_BANK, Setting, arm_kind, own_protocol, split_arm_name
from genmix_transforms.evaluation.checks import Fold, used_banks
from genmix_transforms.evaluation.classifiers import IMAGENET, LITE0, NEW_LAYER
from genmix_transforms.evaluation.leakage import Splits, bank_fingerprint, foreign, trained_on_more
from genmix_transforms.evaluation.protocol import Protocol

_PART = re.compile(r" \((fold \d+, )?train\)$")


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """Its fields; files of weights by the hashes of what is in them."""
    known = {name: _by_hash(getattr(protocol, name)) for name in ("weights", "pool_weights")}
    return {**protocol.to_dict(), **known}


def _by_hash(weights: str | None) -> str | None:
    if weights is None or weights == IMAGENET:
        return weights
    file = Path(weights).stat()
    return _file_hash(weights, file.st_size, file.st_mtime_ns)


def describe_training(
    arm: str,
    seed: int,
    protocol: Protocol,
    *,
    images: int,
    data: Sequence[str],
    bank: str | None,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that one training depends on; options that change other arms only are none of it.

    Args:
        arm: its name; that of its bank changes nothing.
        seed: of the training.
        protocol: of the comparison, with nothing left to tune.
        images: in the training set.
        data: fingerprints of the parts that it looks at.
        bank: hash of the bank's content; None: the arm has none.
        device: where it is trained.
    """
    kind = arm_kind(arm)
    foreign = {option for other in KINDS.values() for option in other.options} - set(kind.options)
    steps = own_protocol(arm, protocol).for_training_set(images)
    return {
        "arm": split_arm_name(arm)[0],
        "seed": seed,
        "protocol": {name: value for name, value in describe_protocol(steps).items() if name not in foreign},
        "data": list(data),
        "bank": bank,
        "versions": versions(device),
        # Runs kept by releases that knew no revisions stay what they are.
        **({"revision": kind.revision} if kind.revision > 1 else {}),
        **({"new_layer": NEW_LAYER} if steps.weights is not None and steps.classifier != LITE0 else {}),
    }


@cache
def _file_hash(path: str, size: int, changed: int) -> str:
    """Once for each state of the file: a run's key needs it, and there are hundreds of runs."""
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def describe_data(folds: Sequence[Splits], setting: Setting) -> dict[str, Any]:
    """Counts, shape and fingerprints of one split, or of several folds."""
    train = folds[0][0]
    facts = {
        "name": _PART.sub("", train.name),
        "shape": list(train.images.shape[1:]),
        "dtype": str(train.images.dtype).removeprefix("torch."),
        "classes": list(train.classes),
        "notes": list(train.notes),
    }
    if len(folds) == 1:
        return {
            **facts,
            "counts": {name: part.class_counts for name, part in zip(SPLITS, folds[0], strict=True)},
            "fingerprints": {name: part.fingerprint for name, part in zip(SPLITS, folds[0], strict=True)},
            "normalisation": {"mean": list(setting.normalisation.mean), "std": list(setting.normalisation.std)},
        }
    tested = {name: sum(test.class_counts[name] for *_, test in folds) for name in train.classes}
    return {
        **facts,
        "counts": {f"{len(folds)} folds": tested},
        "fold_counts": [
            {name: part.class_counts for name, part in zip(SPLITS, splits, strict=True)} for splits in folds
        ],
        "fingerprints": [
            {name: part.fingerprint for name, part in zip(SPLITS, splits, strict=True)} for splits in folds
        ],
    }


def describe_banks(arms: Sequence[str], folds: Sequence[Fold], settings: Sequence[Setting]) -> dict[str, Any]:
    """The banks that the arms use: ``bank``, the one without a name or None, and ``banks`` by name."""
    trains = [fold.splits[0] for fold in folds]
    facts = {
        name: describe_bank([setting.banks[name] for setting in settings], trains)
        for name in folds[0].banks
        if name in used_banks(arms)
    }
    return {"bank": facts.pop(ONLY_BANK, None), "banks": facts}


def describe_bank(banks: Sequence[SyntheticBank], trains: Sequence[PatchDataset]) -> dict[str, Any]:
    """One bank, or that of a name in each fold: counts and what it was trained on; the rest is the first's."""
    first = banks[0]
    generator = first.provenance.get("generator")
    counts = {name: sum(bank.class_counts[name] for bank in banks) for name in first.class_counts}
    recorded = {_trained_on(bank, train) for bank, train in zip(banks, trains, strict=True)}
    told = recorded.pop() if len(recorded) == 1 else "another set"
    return {
        "counts": counts,
        "content": content_hash(first) if len(banks) == 1 else [content_hash(bank) for bank in banks],
        "trained_on": told if len(banks) == 1 else told.replace(_THIS, "each fold's training set"),
        **_facts(first.provenance),
        **({"generator": _facts(generator)} if isinstance(generator, dict) else {}),
    }


_THIS = "this training set"


def _trained_on(bank: SyntheticBank, train: PatchDataset) -> str:
    if bank_fingerprint(bank) is None:
        return "not recorded"
    if trained_on_more(bank, train):
        return f"{_THIS} and other images"
    return "another set" if foreign(bank, train) else _THIS


def content_hash(bank: SyntheticBank) -> str:
    """SHA-256 of a bank's images, labels and class names, in their order."""
    digest = hashlib.sha256()
    digest.update(f"{bank.classes}{(len(bank), *bank.image_shape)}{bank.pixel_dtype}{bank.labels.dtype}".encode())
    for tensor in (bank.labels, bank.images):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _facts(provenance: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a provenance, without paths: results are published."""
    return {
        name: value
        for name, value in provenance.items()
        if isinstance(value, (str, int, float, bool))
        and not (
            isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute())
        )
    }


def versions(device: torch.device) -> dict[str, str]:
    """Of the libraries that a score may depend on, and the kind of device."""
    from genmix_transforms import __version__

    return {
        "genmix_transforms": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "device": device.type,
    }
