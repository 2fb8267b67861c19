"""Filling a bank: labels and seeds are fixed beforehand, so that work can stop, go on and be shared without a word."""

import hashlib
import json
import re
import time
from collections.abc import Generator as Yields
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmix_transforms import __version__
from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.card import LICENCE
from genmix_transforms.bank.manifest import MAX_SHARDS, Manifest
from genmix_transforms.bank.planned_writing import ShardPlan, Task, bank_bytes, write_planned
from genmix_transforms.bank.rows import LabelKind, Rows, check_classes
from genmix_transforms.bank.shard import images_per_shard
from genmix_transforms.errors import InputError, UnfinishedBankError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.shard_drawing import Key, ShardDrawing
from genmix_transforms.generators.soft_labels import check_concentration, draw_soft_labels

__all__ = ["Plan", "UnfinishedBankError", "balanced_counts", "fill_bank", "make_plan"]

SEEDS_PER_BANK = 2**32
"""Bank seed s uses the image seeds from s * 2**32 on: banks of different seeds share no image."""

MAX_BANK_SEED = 2**31 - 1


@dataclass(frozen=True)
class Plan:
    """What a bank will hold, before any of it is drawn.

    Args:
        counts: images of each class, in the generator's order of classes.
        seed: of the bank.
        images_per_shard: shards hold at most this many images, and all the same number or one less.
        soft: the concentration of soft labels, see :func:`draw_soft_labels`; None: labels are indices of classes.
    """

    counts: tuple[int, ...]
    seed: int
    images_per_shard: int
    soft: float | None = None

    @property
    def total(self) -> int:
        """Images in all."""
        return sum(self.counts)

    @property
    def shards(self) -> int:
        """How many shards."""
        return -(-self.total // self.images_per_shard)

    def images_in(self, shard: int) -> int:
        """How many images a shard has."""
        return len(range(shard, self.total, self.shards))

    def shard(self, number: int) -> tuple[Tensor, Tensor]:
        """Labels and seeds of one shard: int64 ``(n,)`` each, class by class.

        The images, class by class and counted by seed, are dealt to the shards like cards: each has its share of every
        class, so that a bank of which only some shards are there is of the proportions of the whole.
        """
        position = torch.arange(number, self.total, self.shards)
        labels = torch.searchsorted(torch.tensor(self.counts).cumsum(0), position, right=True)
        return labels, self.seed * SEEDS_PER_BANK + position - self._begins[labels]

    def told(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """What the generator is told of images, and the bank holds: int64 ``(n,)``, or float32 ``(n, K)``."""
        if self.soft is None:
            return labels
        return draw_soft_labels(labels.tolist(), seeds.tolist(), classes=len(self.counts), alpha=self.soft)

    def shard_of(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """The shards that images of the bank are in: int64 ``(n,)``."""
        return (self._begins[labels] + seeds - self.seed * SEEDS_PER_BANK) % self.shards

    @property
    def _begins(self) -> Tensor:
        """How many images the classes before each class have."""
        return torch.tensor((0, *self.counts[:-1])).cumsum(0)


def fill_bank(
    generator: Generator,
    *,
    counts: Mapping[str, int] | None = None,
    out: str | Path,
    balance: bool = False,
    soft: float | None = None,
    seed: int = 0,
    licence: str | None = None,
    share: tuple[int, int] | None = None,
    append: bool = False,
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
        soft: draw each image from a soft label of its own (GeMix), and keep that as its label: weights of the classes
            from a Dirichlet distribution with this concentration, at least 1, for the image's class and 1 for the
            others, in which its class has the most weight; ``counts`` count by that class. 2 is the authors'; the
            larger, the nearer to labels of one class. None: labels of one class.
        seed: another seed, other images.
        licence: that the images are under, such as "cc-by-4.0": kept in the bank, and on its card when it is published.
        share: ``(rank, count)``: draw every ``count``-th shard from number ``rank`` on; ``(0, 1)``: all of them. None:
            as torchrun, Accelerate or Slurm has numbered the processes.
        append: add to the bank in ``out``, of the same classes and kind of image.
        overwrite: throw away the bank in ``out``.
        progress: show a bar.

    Returns:
        The finished bank, opened from ``out``.

    Raises:
        InputError: counts that name other classes, or nothing to draw; or soft labels of one class, or for a generator
            that takes none.
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
    check_options(seed=seed, licence=licence, append=append, overwrite=overwrite, soft=soft)
    plan = make_plan(generator, counts=counts, balance=balance, seed=seed, soft=soft)
    check_classes(generator.classes)

    def make(task: Task) -> Yields[Rows, None, None]:
        def drawn(count: int) -> None:
            task.advance(count)
            if drawing.ready:
                task.kept.save_now_and_then(lambda: _rows(drawing.ready))

        drawing = ShardDrawing(generator, task.shards, plan.shard, told=plan.told, ready=_kept(task, plan), drawn=drawn)
        try:
            for images, labels, seeds in drawing:
                yield Rows.complete(images, plan.told(labels, seeds), seeds=seeds)
        finally:
            if drawing.ready:  # a stop, or an error: of which a full disk must not be hidden by another
                with suppress(OSError):
                    task.kept.save(_rows(drawing.ready))

    write_planned(
        out,
        _bank(generator, plan, licence=licence),
        ShardPlan(
            identity=_identity(generator, plan, licence=licence),
            counts=[plan.images_in(shard) for shard in range(plan.shards)],
            make=make,
            other="of another generator, other counts or another seed",
        ),
        share=share,
        append=append,
        overwrite=overwrite,
        progress=progress,
    )
    return SyntheticBank.load(out)


def check_options(
    *,
    seed: int = 0,
    licence: str | None = None,
    append: bool = False,
    overwrite: bool = False,
    soft: float | None = None,
) -> None:
    """Check what can be checked of :func:`fill_bank`'s options without a generator or data.

    Raises:
        InputError: a seed out of range, a license that is no identifier, both ``append`` and ``overwrite``, or a
            concentration that is none.
    """
    if soft is not None:
        check_concentration(soft, name="fill_bank: soft")
    whole_number(seed, name="fill_bank: seed", least=0, most=MAX_BANK_SEED)
    if licence is not None and not re.fullmatch(LICENCE, licence):
        raise InputError(f"fill_bank: licence must be a short identifier, such as 'cc-by-4.0', got {licence!r}")
    if append and overwrite:
        raise InputError("fill_bank: append and overwrite exclude each other")


def estimate_fill(generator: Generator, plan: Plan) -> tuple[int, float]:
    """Measure on one batch, which is thrown away, what filling a bank takes.

    Returns:
        Bytes on the disk, and seconds if this process draws every image.
    """
    labels, seeds = plan.shard(0)
    one_class = slice(0, min(generator.sample_batch, int((labels == labels[0]).sum())))
    begun = time.monotonic()
    generator.sample(plan.told(labels[one_class], seeds[one_class]), seeds[one_class])
    batches = -(-plan.total // generator.sample_batch)
    return bank_bytes(_kind(generator, plan), plan.total, shards=plan.shards), (time.monotonic() - begun) * batches


def _kept(task: Task, plan: Plan) -> dict[Key, Tensor]:
    """The images of a task's shards that earlier runs have drawn."""
    shards = torch.tensor(task.shards, dtype=torch.int64)
    images: dict[Key, Tensor] = {}
    for rows in task.kept.load():
        mine = rows.take(torch.isin(plan.shard_of(rows.labels, rows.seeds), shards).nonzero().flatten())
        images.update(zip(zip(mine.labels.tolist(), mine.seeds.tolist(), strict=True), mine.images, strict=True))
    return images


def _rows(images: Mapping[Key, Tensor]) -> Rows:
    labels, seeds = torch.tensor(list(images)).unbind(1)
    return Rows.complete(torch.stack(list(images.values())), labels, seeds=seeds)


def balanced_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """How many synthetic images fill every class up to the largest, real and synthetic together.

    Example:
        >>> balanced_counts({"cyst": 433, "hemangioma": 70, "metastasis": 178})
        {'cyst': 0, 'hemangioma': 363, 'metastasis': 255}
    """
    largest = max(counts.values(), default=0)
    return {name: largest - count for name, count in counts.items()}


def make_plan(
    generator: Generator,
    *,
    counts: Mapping[str, int] | None,
    balance: bool = False,
    seed: int = 0,
    soft: float | None = None,
) -> Plan:
    """Check the counts against the generator, and lay out the bank."""
    if soft is not None:
        soft = _checked_soft(generator, soft)
    if counts is None:
        counts = generator.training_record().get("class_counts")
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
    largest = images_per_shard(generator.image_shape, generator.pixel_dtype)
    per_shard = min(largest, max(64, sum(ordered) // 64))
    plan = Plan(counts=ordered, seed=seed, images_per_shard=per_shard, soft=soft)
    if plan.shards > MAX_SHARDS:
        raise InputError(
            f"fill_bank: {plan.total:,} images would be {plan.shards:,} shards, a bank has at most {MAX_SHARDS:,}: "
            "fill several banks, each with a seed of its own"
        )
    return plan


def _checked_soft(generator: Generator, soft: float) -> float:
    if generator.refuses_soft_labels is not None:
        raise InputError(
            f"fill_bank: soft: a {generator.kind} generator draws nothing between classes: "
            f"{generator.refuses_soft_labels}; leave soft out, or train one network for all classes"
        )
    if len(generator.classes) < 2:
        raise InputError(
            f"fill_bank: soft: a soft label mixes classes, and the generator has {generator.classes[0]} alone"
        )
    return check_concentration(soft, name="fill_bank: soft")


def _identity(generator: Generator, plan: Plan, *, licence: str | None) -> str:
    """A hash of all that determines the bank's bytes."""
    content = [generator.kind, generator.config, generator.weights_hash, plan.counts, plan.seed, plan.images_per_shard]
    content += [] if licence is None else [licence]
    content += [] if plan.soft is None else [{"soft": plan.soft}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _bank(generator: Generator, plan: Plan, *, licence: str | None) -> Manifest:
    """What the manifest says of the bank, but for the shards."""
    described, training_set = json.loads(json.dumps([generator.describe(), generator.training_record()]))
    source = {
        "generator": _without_images(described) if training_set and "images" in training_set else described,
        **({"training_set": training_set} if training_set else {}),
        "seed": plan.seed,
        **({} if plan.soft is None else {"soft": plan.soft}),
        **({"licence": licence} if licence else {}),
        "genmix_transforms": __version__,
    }
    return replace(_kind(generator, plan), sources=(source,))


def _without_images(described: Any) -> Any:
    """A description without the images of the training sets in it: the bank records those once, beside it."""
    if isinstance(described, list):
        return [_without_images(item) for item in described]
    if not isinstance(described, dict):
        return described
    left_out = {"images"} if "fingerprint" in described else set()
    return {key: _without_images(value) for key, value in described.items() if key not in left_out}


def _kind(generator: Generator, plan: Plan) -> Manifest:
    """What the manifest says of any bank of this generator, with the plan's kind of labels."""
    dtype = str(generator.pixel_dtype).removeprefix("torch.")
    labels: LabelKind = "index" if plan.soft is None else "probabilities"
    window = generator.training_record().get("window")
    return Manifest(
        classes=generator.classes,
        dtype=dtype,
        shape=generator.image_shape,
        labels=labels,
        window=None if window is None else (float(window[0]), float(window[1])),
    )
