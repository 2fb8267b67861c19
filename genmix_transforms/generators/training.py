"""The one training loop. It owns time: data position, randomness, checkpoints and sheets follow from the images seen.

A generator hands it named state objects and one method, ``training_step``; an exact resume is a property of this file
and of those that it calls, not of any generator.
"""

import logging
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed
from genmix_transforms.files.disk import check_free_space
from genmix_transforms.generators.estimate import Estimate, measure
from genmix_transforms.generators.folder import TRAINING
from genmix_transforms.generators.job import Job
from genmix_transforms.generators.run import Run
from genmix_transforms.generators.run_folder import check_same_run, held
from genmix_transforms.generators.state import Stateful, load_checkpoint, read_record, state_bytes
from genmix_transforms.generators.trackers import check_trackers

log: logging.Logger = logging.getLogger(__name__)


def train(job: Job, *, restart: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train, or go on where an earlier run of the same job stopped.

    Args:
        job: what is to be done.
        restart: throw away what the job's folder holds and start anew.
        progress: show a bar.

    Returns:
        The provenance of what was trained.

    Raises:
        InputError: a job that cannot work, a folder that holds another run or that another training works in, or too
            little free space there.
        FloatingPointError: a loss or a weight is no longer finite; the last checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, in every process, once a checkpoint is written.
        OSError: a checkpoint cannot be written; the one before is whole.
    """
    record = _record(job)
    failure = f"{job.out}: the training cannot begin"
    with ExitStack() as hold:
        job.processes.on_main(lambda: hold.enter_context(held(job.out, restart=restart)), failure=failure)
        objects = job.state_objects()
        images_seen = _resume(job, record, objects)
        job.processes.on_main(lambda: _check_space(job.out, objects), failure=failure)
        run = Run(job, objects, images_seen=images_seen, record=record, progress=progress)
        run.go()
        return run.provenance()


def rehearse(job: Job) -> Estimate:
    """Check all that :func:`train` checks before its first step, and time a few steps; nothing is written.

    The steps change the trainee.

    Raises:
        InputError: what :func:`train` would raise.
    """
    record = _record(job)
    earlier = read_record(job.out / TRAINING)
    if earlier is not None:
        check_same_run(job.out, earlier, record, assumed=job.settings.assumed())
    _check_space(job.out, job.state_objects())
    return measure(job)


def _record(job: Job) -> dict[str, Any]:
    """Check what the settings alone do not tell, and return what defines the run."""
    dataset, batch_size, count = job.dataset, job.settings.batch_size, job.processes.count
    check_seed(job.seed)
    check_trackers(job.settings.report_to)
    if batch_size % count:
        raise InputError(f"a batch of {batch_size} cannot be shared by {count} processes: give a multiple of {count}")
    if not len(dataset):
        raise InputError(f"{dataset.name}: no images to train on")
    if batch_size > len(dataset):
        warnings.warn(
            f"{dataset.name}: has {len(dataset)} images, fewer than a batch of {batch_size}: every step shows some of "
            f"them twice; a batch of at most {len(dataset)} (--batch-size) takes less time for the same",
            stacklevel=3,
        )
    check_output_folder(job.out)
    return {
        "seed": job.seed,
        "batch_size": batch_size,
        "options": dict(job.options),
        "mixed_precision": job.settings.mixed_precision,
        "training_set": dataset.training_set(),
        "processes": count,
    }


def _resume(job: Job, record: Mapping[str, Any], objects: Mapping[str, Stateful]) -> int:
    """Take up the last checkpoint, if there is one, and return the images seen."""
    out, steps, batch_size = job.out, job.settings.steps, job.settings.batch_size
    earlier = read_record(out / TRAINING)
    if earlier is None:
        return 0
    check_same_run(out, earlier, record, assumed=job.settings.assumed())
    images_seen = load_checkpoint(out / TRAINING, earlier, objects)
    if images_seen > steps * batch_size:
        done = images_seen // batch_size
        raise InputError(
            f"{out}: has taken {done:,} steps already, and {steps:,} were asked for; "
            f"give --steps {done} or more, another folder, or --restart"
        )
    log.info("%s: going on at step %s of %s", out, f"{images_seen // batch_size:,}", f"{steps:,}")
    return images_seen


def _check_space(out: Path, objects: Mapping[str, Stateful]) -> None:
    """Refuse a disk too full for two checkpoints, which are there while one replaces the other, and for the weights."""
    weights = max((state_bytes({name: item}) for name, item in objects.items()), default=0)
    there = sum(file.stat().st_size for file in (out / TRAINING).glob("state-*.safetensors"))
    check_free_space(out, 2 * state_bytes(objects) + weights - there, what="the training (two checkpoints and weights)")
