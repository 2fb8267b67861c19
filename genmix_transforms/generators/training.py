"""The one training loop. It owns time: data position, randomness, checkpoints and sheets follow from the images seen.

A generator hands it named state objects and one method, ``training_step``; an exact resume is a property of this file
and of those that it calls, not of any generator.
"""

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed, whole_number
from genmix_transforms.files.disk import check_free_space
from genmix_transforms.generators.estimate import Estimate, measure
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.folder import TRAINING
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.run import Drawable, Run, Saveable
from genmix_transforms.generators.run_folder import (
    check_same_run,
    held,
    provenance_of,
)
from genmix_transforms.generators.settings import LARGEST_BATCH
from genmix_transforms.generators.state import Stateful, load_checkpoint, read_record, state_bytes
from genmix_transforms.generators.steps import Steps, Trainee
from genmix_transforms.generators.trackers import check_trackers

__all__ = ["MIXED_PRECISION", "Drawable", "Saveable", "Trainee", "train"]

log = logging.getLogger(__name__)

MIXED_PRECISION = ("no", "bf16")
"""float16 is not offered: its narrow range turns GAN and diffusion losses into NaN after some thousand steps."""


def train(
    trainee: Trainee,
    dataset: PatchDataset,
    *,
    out: str | Path,
    snapshot: Callable[[], Saveable],
    steps: int,
    batch_size: int,
    seed: int,
    options: Mapping[str, Any],
    checkpoint_every: int,
    mixed_precision: str = "no",
    restart: bool = False,
    progress: bool = True,
    processes: Processes | None = None,
    started_from: Mapping[str, Any] | None = None,
    evolution: Evolution | None = None,
    inputs: Callable[[Tensor], Tensor] | None = None,
    assumed: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    report_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, or go on where an earlier run with the same arguments stopped.

    Args:
        trainee: what is trained, already on the device of ``processes``.
        dataset: the training set; it sits on the device as integers.
        out: the run's folder: the generator (``config.json``, ``model.safetensors``), ``samples/`` with a sheet at
            every checkpoint, ``training/`` with the last checkpoint and the losses.
        snapshot: gives what is trained as it stands now, to save and, if it is :class:`Drawable`, to draw sheets from.
        steps: optimiser steps in all. A finished run goes on if they are raised.
        batch_size: images in a step, all processes together.
        seed: of the data order and of every step's randomness.
        options: what else defines the run; a resume with other options is refused.
        checkpoint_every: images between checkpoints (rounded up to whole steps).
        mixed_precision: "no" or "bf16".
        restart: throw away what ``out`` holds and start anew.
        progress: show a bar.
        processes: who trains together; None: alone, on the default device.
        started_from: the provenance of the weights that the training starts from; None: new ones.
        evolution: the figure of fixed seeds to keep up to date in ``out``, from before the first step on; None: none.
        inputs: from indices into the training set, int64 ``(n,)`` on the device, to what the trainee is shown in place
            of the pixels; None: the images in [-1, 1].
        assumed: options that an earlier release may not have recorded, with the values that they then had.
        settings: all of the run's settings, for its provenance; a resume may have others, as far as ``options`` are
            the same.
        report_to: trackers to tell of losses, learning rates, speed and sheets: "tensorboard", "wandb", "mlflow".

    Returns:
        The provenance of what was trained.

    Raises:
        InputError: arguments that cannot work, a folder that holds another run or that another training works in, or
            too little free space there.
        FloatingPointError: a loss or a weight is no longer finite; the last checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, in every process, once a checkpoint is written.
        OSError: a checkpoint cannot be written; the one before is whole.
    """
    out = Path(out)
    processes = processes or Processes.join()
    whole_number(checkpoint_every, name="checkpoint_every", least=1)
    report_to = check_trackers(report_to)
    record = _record(
        out, dataset, steps=steps, batch_size=batch_size, seed=seed, options=options,
        mixed_precision=mixed_precision, processes=processes,
    )  # fmt: skip
    with ExitStack() as hold:
        processes.on_main(
            lambda: hold.enter_context(held(out, restart=restart)), failure=f"{out}: the training cannot begin"
        )
        objects = dict(trainee.state_objects())
        if evolution is not None:
            objects["evolution"] = evolution
        images_seen = _resume(out, record, objects, steps=steps, assumed=assumed)
        processes.on_main(lambda: _check_space(out, objects), failure=f"{out}: the training cannot begin")
        run = Run(
            out,
            snapshot=snapshot,
            objects=objects,
            taker=Steps(
                trainee, dataset, objects=objects, batch_size=batch_size, seed=seed,
                mixed_precision=mixed_precision, processes=processes, inputs=inputs,
            ),
            batch_size=batch_size,
            total=steps * batch_size,
            images_seen=images_seen,
            checkpoint_steps=max(1, math.ceil(checkpoint_every / batch_size)),
            record=record,
            provenance={**provenance_of(record, started_from), **({"settings": dict(settings)} if settings else {})},
            processes=processes,
            evolution=evolution,
            progress=progress,
            report_to=report_to,
        )  # fmt: skip
        run.go()
        return run.provenance()


def rehearse(
    trainee: Trainee,
    dataset: PatchDataset,
    *,
    out: str | Path,
    steps: int,
    batch_size: int,
    seed: int,
    options: Mapping[str, Any],
    mixed_precision: str = "no",
    processes: Processes | None = None,
    inputs: Callable[[Tensor], Tensor] | None = None,
    assumed: Mapping[str, Any] | None = None,
) -> Estimate:
    """Check all that :func:`train` checks before its first step, and time a few steps; nothing is written.

    Args:
        trainee: as for :func:`train`, as are the other arguments. The steps change it.
        dataset: the training set.
        out: the run's folder.
        steps: optimizer steps in all.
        batch_size: images in a step, all processes together.
        seed: of the data order.
        options: what else defines the run.
        mixed_precision: "no" or "bf16".
        processes: who trains together.
        inputs: what the trainee is shown.
        assumed: options that an earlier release may not have recorded.

    Returns:
        How long the training would take here, and how much memory and disk.

    Raises:
        InputError: what :func:`train` would raise.
    """
    out = Path(out)
    processes = processes or Processes.join()
    record = _record(
        out, dataset, steps=steps, batch_size=batch_size, seed=seed, options=options,
        mixed_precision=mixed_precision, processes=processes,
    )  # fmt: skip
    earlier = read_record(out / TRAINING)
    if earlier is not None:
        check_same_run(out, earlier, record, assumed=assumed)
    _check_space(out, dict(trainee.state_objects()))
    return measure(
        trainee, dataset, steps=steps, batch_size=batch_size, seed=seed, mixed_precision=mixed_precision,
        processes=processes, inputs=inputs,
    )  # fmt: skip


def _record(
    out: Path,
    dataset: PatchDataset,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    options: Mapping[str, Any],
    mixed_precision: str,
    processes: Processes,
) -> dict[str, Any]:
    """Check what was given, and return what defines the run."""
    check_seed(seed)
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        whole_number(value, name=name, least=1)
    _check(dataset, batch_size=batch_size, mixed_precision=mixed_precision, processes=processes.count)
    check_output_folder(out)
    return {
        "seed": seed,
        "batch_size": batch_size,
        "options": dict(options),
        "mixed_precision": mixed_precision,
        "training_set": dataset.training_set(),
        "processes": processes.count,
    }


def _resume(
    out: Path,
    record: Mapping[str, Any],
    objects: Mapping[str, Stateful],
    *,
    steps: int,
    assumed: Mapping[str, Any] | None,
) -> int:
    """Take up the last checkpoint, if there is one, and return the images seen."""
    batch_size = record["batch_size"]
    earlier = read_record(out / TRAINING)
    if earlier is None:
        return 0
    check_same_run(out, earlier, record, assumed=assumed)
    images_seen = load_checkpoint(out / TRAINING, earlier, objects)
    if images_seen > steps * batch_size:
        done = images_seen // batch_size
        raise InputError(
            f"{out}: has taken {done:,} steps already, and {steps:,} were asked for; "
            f"give --steps {done} or more, another folder, or --restart"
        )
    log.info("%s: going on at step %s of %s", out, f"{images_seen // batch_size:,}", f"{steps:,}")
    return images_seen


def _check(dataset: PatchDataset, *, batch_size: int, mixed_precision: str, processes: int) -> None:
    if batch_size > LARGEST_BATCH:
        raise InputError(f"batch_size must be at most {LARGEST_BATCH:,}, got {batch_size:,}")
    if batch_size % processes:
        raise InputError(
            f"a batch of {batch_size} cannot be shared by {processes} processes: give a multiple of {processes}"
        )
    if mixed_precision not in MIXED_PRECISION:
        raise InputError(f"mixed_precision must be one of {', '.join(MIXED_PRECISION)}, got {mixed_precision!r}")
    if not len(dataset):
        raise InputError(f"{dataset.name}: no images to train on")
    if batch_size > len(dataset):
        warnings.warn(
            f"{dataset.name}: has {len(dataset)} images, fewer than a batch of {batch_size}: every step shows some of "
            f"them twice; a batch of at most {len(dataset)} (--batch-size) takes less time for the same",
            stacklevel=3,
        )


def _check_space(out: Path, objects: Mapping[str, Stateful]) -> None:
    """Refuse a disk too full for two checkpoints, which are there while one replaces the other, and for the weights."""
    weights = max((state_bytes({name: item}) for name, item in objects.items()), default=0)
    there = sum(file.stat().st_size for file in (out / TRAINING).glob("state-*.safetensors"))
    check_free_space(out, 2 * state_bytes(objects) + weights - there, what="the training (two checkpoints and weights)")
