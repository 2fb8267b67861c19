"""Filling a bank: labels and seeds are fixed beforehand, so that work can stop, go on and be shared without a word."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank, store
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.files.atomic import remove_leftovers
from genmix_transforms.files.checks import check_output_folder, whole_number
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.processes import share_from_environment

log = logging.getLogger(__name__)

SEEDS_PER_BANK = 2**32
"""Bank seed s uses the image seeds from s * 2**32 on: banks of different seeds share no image."""

MAX_BANK_SEED = 2**31 - 1

FILL_KEY = "genmix_fill"
"""In every shard's header: which fill it belongs to."""


class UnfinishedBankError(RuntimeError):
    """This process's share is done, others are still at theirs."""


@dataclass(frozen=True)
class Plan:
    """What a bank will hold, before any of it is drawn.

    Args:
        counts: images of each class, in the generator's order of classes.
        seed: of the bank.
        images_per_shard: shards hold this many images, the last one what remains.
    """

    counts: tuple[int, ...]
    seed: int
    images_per_shard: int

    @property
    def total(self) -> int:
        """Images in all."""
        return sum(self.counts)

    @property
    def shards(self) -> int:
        """How many shards."""
        return -(-self.total // self.images_per_shard)

    def shard(self, number: int) -> tuple[Tensor, Tensor]:
        """Labels and seeds of one shard: int64 ``(n,)`` each. Class by class; within a class, seeds count up."""
        start = number * self.images_per_shard
        position = torch.arange(start, min(start + self.images_per_shard, self.total))
        ends = torch.tensor(self.counts).cumsum(0)
        labels = torch.searchsorted(ends, position, right=True)
        within = position - (ends - torch.tensor(self.counts))[labels]
        return labels, self.seed * SEEDS_PER_BANK + within


def fill_bank(
    generator: Generator,
    *,
    counts: Mapping[str, int] | None = None,
    out: str | Path,
    balance: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> SyntheticBank:
    """Fill a bank with a generator. Run again with the same arguments, it goes on where it stopped.

    Under ``torchrun``, ``accelerate launch`` or in a Slurm array each process draws its share of the shards, without
    communication; the files are the same for any number of processes.

    Args:
        generator: any kind.
        counts: images of each class, ``{name: n}``; None: as many as the generator's training set had (the
            paper's choice).
        out: the bank's folder.
        balance: take ``counts`` for those of the real data, and fill every class up to the largest, real and synthetic
            together.
        seed: another seed, other images.
        overwrite: throw away the bank in ``out``.
        progress: show a bar.

    Returns:
        The finished bank, opened from ``out``.

    Raises:
        InputError: counts that name other classes, or nothing to draw.
        OverwriteError: ``out`` holds something else.
        UnfinishedBankError: this process's share is done, and others are still at theirs.

    Example:
        >>> from genmix_transforms.generators import DCGAN
        >>> generator = DCGAN(classes=["cyst", "metastasis"], resolution=16, base_width=4)
        >>> bank = fill_bank(generator, counts={"cyst": 3, "metastasis": 2}, out="banks/tiny")  # doctest: +SKIP
        >>> bank.class_counts  # doctest: +SKIP
        {'cyst': 3, 'metastasis': 2}
    """
    out = Path(out)
    plan = make_plan(generator, counts=counts, balance=balance, seed=seed)
    identity = _identity(generator, plan)
    rank, processes = share_from_environment()
    _prepare(out, identity, overwrite=overwrite, alone=processes == 1)
    if (out / store.INDEX).exists():
        log.info("%s: filled already", out)
        return SyntheticBank.load(out)

    mine = range(rank, plan.shards, processes)
    missing = [number for number in mine if not _shard_path(out, plan, number).exists()]
    if len(missing) < len(mine):
        log.info("%s: going on; %s of %s shards are there", out, len(mine) - len(missing), len(mine))
    bar = progress_bar(
        total=sum(len(plan.shard(number)[0]) for number in mine),
        initial=sum(len(plan.shard(number)[0]) for number in mine if number not in missing),
        unit="img",
        desc=str(out),
        disable=not (progress and rank == 0),
    )
    with bar:
        for number in missing:
            labels, seeds = plan.shard(number)
            parts = []
            for some_labels, some_seeds in zip(labels.split(64), seeds.split(64), strict=True):
                parts.append(generator.sample(some_labels, some_seeds))
                bar.update(len(some_labels))
            store.write_shard(
                _shard_path(out, plan, number),
                images=torch.cat(parts),
                labels=labels,
                seeds=seeds,
                metadata={FILL_KEY: identity},
            )
    waiting = [number for number in range(plan.shards) if not _shard_path(out, plan, number).exists()]
    if waiting:
        raise UnfinishedBankError(
            f"{out}: this process's share is done; {len(waiting)} of {plan.shards} shards are still to come from "
            "others. The last to finish completes the bank"
        )
    _finish(out, generator, plan, identity)
    return SyntheticBank.load(out)


def balanced_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """How many synthetic images fill every class up to the largest, real and synthetic together.

    Example:
        >>> balanced_counts({"cyst": 433, "hemangioma": 70, "metastasis": 178})
        {'cyst': 0, 'hemangioma': 363, 'metastasis': 255}
    """
    largest = max(counts.values(), default=0)
    return {name: largest - count for name, count in counts.items()}


def make_plan(generator: Generator, *, counts: Mapping[str, int] | None, balance: bool = False, seed: int = 0) -> Plan:
    """Check the counts against the generator, and lay out the bank."""
    if counts is None:
        counts = generator.provenance.get("training_set", {}).get("class_counts")
        if counts is None:
            raise InputError(
                "fill_bank: the generator does not record its training set's class counts: give counts, "
                f"for the classes {', '.join(generator.classes)}"
            )
    if not isinstance(counts, Mapping):
        raise InputError(f"fill_bank: counts must be {{class name: number}}, got a {type(counts).__name__}")
    unknown = [str(name) for name in counts if name not in generator.classes]
    if unknown:
        raise InputError(
            f"fill_bank: the generator's classes are {', '.join(generator.classes)}; "
            f"it cannot draw {', '.join(unknown)}"
        )
    counts = {
        name: whole_number(count, name=f"fill_bank: the count of {name}", least=0) for name, count in counts.items()
    }
    if balance:
        counts = balanced_counts({name: counts.get(name, 0) for name in generator.classes})
    seed = whole_number(seed, name="fill_bank: seed", least=0, most=MAX_BANK_SEED)
    ordered = tuple(counts.get(name, 0) for name in generator.classes)
    if not sum(ordered):
        raise InputError(
            "fill_bank: nothing to draw: every class is as large as the largest already"
            if balance
            else f"fill_bank: nothing to draw: the counts are {dict(counts)}"
        )
    # Small enough that a stop loses little, large enough that a big bank has few files.
    largest = store.images_per_shard(generator.image_shape, generator.pixel_dtype)
    return Plan(counts=ordered, seed=seed, images_per_shard=min(largest, max(64, sum(ordered) // 64)))


def _identity(generator: Generator, plan: Plan) -> str:
    """A hash of all that determines the bank's bytes."""
    content = [generator.kind, generator.config, generator.weights_hash, plan.counts, plan.seed, plan.images_per_shard]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _shard_path(out: Path, plan: Plan, number: int) -> Path:
    return out / store.shard_name(number, plan.shards)


def _prepare(out: Path, identity: str, *, overwrite: bool, alone: bool) -> None:
    """Make the folder ready, or refuse it: only the same fill may go on in it."""
    if overwrite and not alone:
        raise InputError("fill_bank: several processes cannot overwrite a bank: remove the folder first")
    check_output_folder(out)
    files = list(out.iterdir()) if out.exists() else []
    shards = sorted(file for file in files if store.is_shard_name(file.name))
    filled = (out / store.INDEX).exists()
    others = [file.name for file in files if file not in shards and not file.name.startswith(".")]
    if others and not filled:
        raise OverwriteError(f"{out}: holds other files and no bank ({others[0]}); give another folder")
    if overwrite:
        # The manifest first: without it, what is left is no bank, whenever this is killed.
        (out / store.INDEX).unlink(missing_ok=True)
        for shard in shards:
            shard.unlink()
    elif filled and store.read_manifest(out).provenance.get("fill") != identity:
        raise OverwriteError(
            f"{out}: holds a bank of another generator, other counts or another seed; give another folder, or overwrite"
        )
    else:
        for shard in shards:
            if store.shard_metadata(shard).get(FILL_KEY) != identity:
                raise OverwriteError(
                    f"{out}: {shard.name} belongs to a bank of another generator, other counts or another seed; "
                    "give another folder, or overwrite"
                )
    out.mkdir(parents=True, exist_ok=True)
    if alone:
        remove_leftovers(out)


def _finish(out: Path, generator: Generator, plan: Plan, identity: str) -> None:
    shards = []
    for number in range(plan.shards):
        path = _shard_path(out, plan, number)
        shards.append(store.Shard(file=path.name, count=len(plan.shard(number)[0]), sha256=store.file_hash(path)))
    training_set = generator.provenance.get("training_set")
    store.write_manifest(
        out,
        store.Manifest(
            classes=generator.classes,
            dtype=str(generator.pixel_dtype).removeprefix("torch."),
            shape=generator.image_shape,
            class_counts=plan.counts,
            shards=tuple(shards),
            provenance={
                "generator": generator.describe(),
                **({"training_set": training_set} if training_set else {}),
                "seed": plan.seed,
                "fill": identity,
                "genmix_transforms": _version(),
            },
        ),
    )


def _version() -> str:
    try:
        return version("genmix-transforms")
    except PackageNotFoundError:
        return "0+unknown"
