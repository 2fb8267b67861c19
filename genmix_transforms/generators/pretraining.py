"""Pre-training: train a generator on an unlabeled pool, and then fine-tune it on labeled patches.

Two runs: the first in ``OUT/pretrain``, the second in ``OUT``, which starts from the first one's weights.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.data.identity import find_recorded
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.estimate import Estimate
from genmix_transforms.generators.folder import CONFIG
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.run_folder import held

PRETRAINED = "pretrain"
"""The folder of the first run, in that of the second."""

HeldOut = Mapping[str, PatchDataset]
"""The parts of a split that no generator may see, by their names: val and test."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """The first of two runs: a generator of a kind, trained on a pool.

    Args:
        kind: of generator.
        pool: what it is trained on, of one class: see :meth:`PatchDataset.without_labels`.
        patches: what it is then fine-tuned on.
        out: the folder of the fine-tuning; this run has its own in it.
        network: options of the constructor.
        training: settings of the fine-tuning. Those that say how a warm start goes
            (:attr:`TrainingSettings.FINE_TUNING`) are for it alone; all others hold for both runs.
        steps: of this run; None: as the kind's first preset says.
        seed: of both runs.
        device: where to train; None: CUDA where there is one.
    """

    kind: type[Generator]
    pool: PatchDataset
    patches: PatchDataset
    out: Path
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seed: int = 0
    device: str | torch.device | None = None

    def train(self, *, restart: bool = False, progress: bool = True) -> Generator:
        """Train on the pool, or go on where that stopped, or take up what is there.

        Args:
            restart: throw away both runs first.
            progress: show a bar.

        Returns:
            The generator for the patches; ``fit(..., warm_start=True)`` fine-tunes it.

        Raises:
            InputError: see :meth:`check`, and :meth:`Generator.fit`.
        """
        self.check()
        processes = Processes.join(self.device)
        # Before the hours on the pool: nobody else works in the folder, and no run of before is left to go on with.
        processes.on_main(lambda: _take(self.out, restart=restart), failure=f"{self.out}: the training cannot begin")
        self._untrained().fit(self.pool, restart=restart, progress=progress, **self._run())
        return self._made_for(self._trained())

    def estimate(self) -> tuple[Estimate, Generator]:
        """Say how long the training on the pool would take; nothing is written.

        Returns:
            The estimate, and a generator to estimate the fine-tuning with.
        """
        self.check()
        untrained = self._untrained()
        estimate = untrained.estimate(self.pool, **self._run())
        return estimate, self._made_for(self._trained() if (self.folder / CONFIG).exists() else untrained)

    def check(self) -> None:
        """Check what the fine-tuning needs, before a pool is trained on.

        Raises:
            InputError: a kind that a pool teaches nothing, a pool that does not fit, or settings of the fine-tuning
                that cannot be.
        """
        check_kind(self.kind)
        check_pool(self.pool, self.patches)
        settings = self.kind.choose_settings(self.training, warm_start=True)
        start = self._made_for(self._untrained())
        start.resolve(settings, self.patches, warm_start=True, processes=Processes.join(self.device))

    @property
    def folder(self) -> Path:
        """Of this run."""
        return self.out / PRETRAINED

    def _untrained(self) -> Generator:
        return self.kind.for_patches(self.pool, **self.kind.pretraining_options(self.network)[0])

    def _trained(self) -> Generator:
        return self.kind.from_pretrained(self.folder)

    def _made_for(self, generator: Generator) -> Generator:
        options = self.kind.pretraining_options(self.network)[1]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="very few images")  # the fine-tuning says it
            made = generator.made_for(self.patches, source=self.folder, **options)
            made.check_trainable_on(self.patches)
        return made

    def _run(self) -> dict[str, Any]:
        for_later = self.kind.training_settings.FINE_TUNING
        kept = {name: value for name, value in self.training.items() if name not in for_later}
        steps = {} if self.steps is None else {"steps": self.steps}
        return {"out": self.folder, "seed": self.seed, "device": self.device, **kept, **steps}


def _take(out: Path, *, restart: bool) -> None:
    with held(out, restart=restart):
        pass


def check_kind(kind: type[Generator]) -> None:
    """Refuse, with its reason, a kind that a pool of images teaches nothing.

    Raises:
        InputError: it does.
    """
    if kind.refuses_pretraining is not None:
        raise InputError(f"{kind.__name__}: no pre-training: {kind.refuses_pretraining}")


def check_pool(pool: PatchDataset, patches: PatchDataset, *, held_out: HeldOut | None = None) -> None:
    """Raise an error if a pool does not match the patches, or contains images that are held out.

    Images are the same if their pixels are the same, in the source or at the current size. A different picture of the
    same patient is not found: keep patients separate yourself.

    Args:
        pool: what a generator is pre-trained on.
        patches: what it is then fine-tuned on.
        held_out: the parts of the split that the pool must not contain, by name.

    Raises:
        InputError: images instead of volumes or the reverse, a different size, number of channels or bits, or images of
            a part that is held out.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> train, val, test = LesionPhantom(size=16, train=(4, 2, 3), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()
        >>> check_pool(test.without_labels(), train, held_out={"val": val, "test": test})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        genmix_transforms.errors.InputError: lesion phantom (test): 3 of its 3 images are in the test part ...
    """
    here, there = (tuple(data.images.shape[1:]) for data in (patches, pool))
    if len(here) != len(there):
        raise InputError(
            f"{pool.name}: the pool has {_kind(pool)} of {_text(there)}, {patches.name} {_kind(patches)} of "
            f"{_text(here)}, and a network is for one or the other: give a pool of {_kind(patches)}"
        )
    if here != there:
        raise InputError(
            f"{pool.name}: the pool has images of {_text(there)} (C x H x W), {patches.name} of {_text(here)}; bring "
            f"both to one size and channel count (--size {here[1]} --channels {here[0]}, in Python size={here[1]}, "
            f"channels={here[0]})"
        )
    if pool.images.dtype != patches.images.dtype:
        raise InputError(
            f"{pool.name}: the pool has {pool.images.dtype} pixels, {patches.name} {patches.images.dtype}: bring both "
            "to 8 or both to 16 bits"
        )
    for name, part in (held_out or {}).items():
        found = int(pool.found_in(part).sum())
        if found:
            raise InputError(
                f"{pool.name}: {found} of its {len(pool)} images are in the {name} part of the split: a generator "
                "that has seen them makes scores too high; take them out of the pool (in Python "
                "pool.without(val, test).save_npz('pool.npz')), or give the split's training part alone"
            )


def check_unseen(generator: Generator, patches: PatchDataset, *, held_out: HeldOut, name: str | Path) -> None:
    """Raise an error for weights that were trained on images that are held out, as far as they record it.

    Args:
        generator: what a training starts from.
        patches: the training part. Images that it has too do not count: it is the data that has them twice.
        held_out: the other parts of the split, by name.
        name: what to call the weights in the message.

    Raises:
        InputError: they were.
    """
    record = generator.origin().get("training_set", {})
    for part_name, part in held_out.items():
        known = find_recorded(part.origins, record)
        if known is None:
            continue
        seen = int((known & ~part.found_in(patches)).sum())
        if seen:
            raise InputError(
                f"{name}: these weights were trained on {seen} of the {len(part)} images of the {part_name} part of "
                "the split, and scores would be too high; start from others, or train them on the split's training "
                "part (--split)"
            )


def _kind(patches: PatchDataset) -> str:
    return "images" if patches.dimensions == 2 else "volumes"


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
