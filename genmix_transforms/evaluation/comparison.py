"""The comparison: every arm with every seed, on one split, each run kept as soon as it is done."""

import hashlib
import platform
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import SPLITS, PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arms import ARMS, KINDS, Setting, arm_kind
from genmix_transforms.evaluation.checks import Splits, bank_fingerprint, check_arms, doubts, prepare
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.results import Results
from genmix_transforms.evaluation.runs import Run, RunCache, run_key
from genmix_transforms.evaluation.training import train_and_test
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.generators.processes import own_device

_RUNS = "runs"


def evaluate(
    splits: Splits,
    *,
    bank: SyntheticBank | None = None,
    arms: Sequence[str] = ARMS,
    seeds: int = 5,
    protocol: Protocol | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Results:
    """Compare classifiers trained with and without synthetic images.

    Every arm takes the same number of optimiser steps at the same batch size and, for each seed, from the same weights
    and with the real images in the same order. Only the final score looks at the test set.

    Args:
        splits: train, validation and test, as ``patches.split(seed=0)`` returns them.
        bank: of synthetic images, for the arms that use one. Labels are re-mapped by class name.
        arms: of "baseline" (real images), "mixup" (MixUp among them), "blend" (real and synthetic images in one
            training set) and "genmix".
        seeds: how many; they are 0 to ``seeds`` - 1. The paper's differences need at least 5.
        protocol: how to train; None: the defaults of :class:`Protocol`.
        out: a folder for the results (see :meth:`Results.save`) and, in ``runs/``, each finished run: the same call
            again goes on where it was stopped. A run whose data, bank, options or versions have changed is run again.
            None: keep nothing.
        device: None: the GPU where there is one.
        progress: show a bar.

    Returns:
        The scores of every run, and their mean and standard deviation over the seeds.

    Raises:
        InputError: anything that cannot work, before the first run.

    Warns:
        UserWarning: what is doubtful about the comparison, such as a bank whose generator was trained on other images
            than ``train`` (the results repeat it).

    Source: Lee, Lee, Hong (arXiv 2405.20650), section 3 and Table 1.

    Example:
        >>> pixels = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8)
        >>> patches = PatchDataset(images=pixels, labels=torch.arange(60) % 2, classes=("cyst", "metastasis"))
        >>> quick = Protocol(steps=3)
        >>> results = evaluate(patches.split(), arms=("baseline", "mixup"), seeds=2, protocol=quick, progress=False)
        >>> len(results.runs), results.arms
        (4, ('baseline', 'mixup'))
    """
    protocol = protocol or Protocol()
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise InputError(f"seeds must be a whole number, at least 1, got {seeds!r}")
    where = own_device(device)
    arms = check_arms(arms)
    setting = prepare(arms, splits, bank, protocol, device=where)
    folder = None if out is None else _folder(Path(out))
    found = doubts(arms, splits, setting.bank, protocol)
    for doubt in found:
        warnings.warn(doubt, stacklevel=2)
    runs = _run_all(arms, splits, setting, seeds, device=where, folder=folder, progress=progress)
    results = Results(
        classes=splits[0].classes,
        runs=tuple(runs),
        protocol=protocol.to_dict(),
        data=_describe_data(splits, setting),
        bank=None if setting.bank is None else _describe_bank(setting.bank, splits[0]),
        warnings=found,
        versions=_versions(where),
    )
    if folder is not None:
        results.save(folder)
    return results


def _run_all(
    arms: Sequence[str],
    splits: Splits,
    setting: Setting,
    seeds: int,
    *,
    device: torch.device,
    folder: Path | None,
    progress: bool,
) -> list[Run]:
    cache = None if folder is None else RunCache(_folder(folder / _RUNS))
    fingerprints = [part.fingerprint for part in splits]
    bank_hash = None if setting.bank is None else content_hash(setting.bank)
    # Seed by seed: a comparison that is stopped half way has all arms.
    pairs = [(arm, seed) for seed in range(seeds) for arm in arms]
    runs = []
    with progress_bar(total=len(pairs), desc="evaluating", unit="run", disable=not progress) as bar:
        for arm, seed in pairs:
            bar.set_postfix_str(f"{arm}, seed {seed}")
            key = run_key(_dependencies(arm, seed, setting.protocol, fingerprints, bank_hash, device))
            run = cache.get(arm, seed, key=key) if cache else None
            if run is None:
                run = train_and_test(arm, splits, setting, seed, device=device)
                if cache:
                    cache.put(run, key=key)
            runs.append(run)
            bar.update()
    return sorted(runs, key=lambda run: (arms.index(run.arm), run.seed))


def _dependencies(
    arm: str, seed: int, protocol: Protocol, fingerprints: Sequence[str], bank_hash: str | None, device: torch.device
) -> dict[str, Any]:
    """Everything one run depends on; options that change other arms only are none of it."""
    kind = arm_kind(arm)
    foreign = {option for other in KINDS.values() for option in other.options} - set(kind.options)
    return {
        "arm": arm,
        "seed": seed,
        "protocol": {name: value for name, value in protocol.to_dict().items() if name not in foreign},
        "data": list(fingerprints),
        "bank": bank_hash if kind.needs_bank else None,
        "versions": _versions(device),
    }


def content_hash(bank: SyntheticBank) -> str:
    """SHA-256 of a bank's images, labels and class names, in their order."""
    digest = hashlib.sha256()
    digest.update(f"{bank.classes}{(len(bank), *bank.image_shape)}{bank.pixel_dtype}{bank.labels.dtype}".encode())
    for tensor in (bank.labels, bank.images):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder}: the results need a folder, and a file stands there") from error
    return folder


def _describe_data(splits: Splits, setting: Setting) -> dict[str, Any]:
    train = splits[0]
    return {
        "name": train.name.removesuffix(" (train)"),
        "shape": list(train.images.shape[1:]),
        "dtype": str(train.images.dtype).removeprefix("torch."),
        "classes": list(train.classes),
        "counts": {name: part.class_counts for name, part in zip(SPLITS, splits, strict=True)},
        "fingerprints": {name: part.fingerprint for name, part in zip(SPLITS, splits, strict=True)},
        "normalisation": {"mean": list(setting.normalisation.mean), "std": list(setting.normalisation.std)},
        "notes": list(train.notes),
    }


def _describe_bank(bank: SyntheticBank, train: PatchDataset) -> dict[str, Any]:
    recorded = bank_fingerprint(bank)
    told = {None: "not recorded", train.fingerprint: "this training set"}.get(recorded, "another set")
    generator = bank.provenance.get("generator")
    return {
        "counts": bank.class_counts,
        "content": content_hash(bank),
        "trained_on": told,
        **_facts(bank.provenance),
        **({"generator": _facts(generator)} if isinstance(generator, dict) else {}),
    }


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


def _versions(device: torch.device) -> dict[str, str]:
    from genmix_transforms import __version__

    return {
        "genmix_transforms": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "torchmetrics": version("torchmetrics"),
        "device": device.type,
    }
