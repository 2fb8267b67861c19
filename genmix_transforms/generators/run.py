"""A run under way: its steps, and what is written and said at its log points and checkpoints."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genmix_transforms.files.progress import progress_bar
from genmix_transforms.files.sheet import draw_sheet, save_picture
from genmix_transforms.generators.checkpoints import Checkpoints
from genmix_transforms.generators.estimate import Pace
from genmix_transforms.generators.folder import TRAINING
from genmix_transforms.generators.job import Drawable, Job, Saveable
from genmix_transforms.generators.losses import Losses
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.run_folder import EVOLUTION, LOSSES, SAMPLES, TRACKED, provenance_of
from genmix_transforms.generators.state import Stateful, all_finite
from genmix_transforms.generators.steps import Steps
from genmix_transforms.generators.stopping import Stopping
from genmix_transforms.generators.trackers import Trackers

log: logging.Logger = logging.getLogger(__name__)

SHEET_COLUMNS = 8
LOG_STEPS = 50


class Run:
    """A run under way, from ``images_seen`` to ``total`` images.

    Args:
        job: the training.
        objects: all that a checkpoint holds, by name.
        images_seen: before this run.
        record: what defines the run; checkpoints hold it.
        progress: show a bar.
    """

    job: Job
    objects: Mapping[str, Stateful]
    out: Path
    processes: Processes

    def __init__(
        self, job: Job, objects: Mapping[str, Stateful], *, images_seen: int, record: Mapping[str, Any], progress: bool
    ) -> None:
        settings, processes, out = job.settings, job.processes, job.out
        self.job, self.objects, self.out, self.processes = job, objects, out, processes
        self.batch_size: int = settings.batch_size
        self.total: int = settings.steps * settings.batch_size
        self.images_seen: int = images_seen
        self.checkpoint_steps: int = math.ceil(settings.checkpoint_every / settings.batch_size)
        self.origin: dict[str, Any] = {**provenance_of(record, job.started_from), "settings": settings.to_json()}
        self.taker: Steps = Steps(job, objects)
        self.progress = progress
        self.losses: Losses = Losses(out / TRAINING / LOSSES, images_seen=images_seen, processes=processes)
        self.checkpoints: Checkpoints = Checkpoints(out / TRAINING, record)
        self.trackers: Trackers = Trackers(
            settings.report_to, folder=out / TRAINING / TRACKED, title=out.name, settings=self.origin, step=self.step,
            processes=processes,
        )  # fmt: skip
        say = (lambda text: log.info("%s: %s", out, text)) if processes.is_main else None
        self.pace: Pace = Pace(steps=settings.steps, done=self.step, device=processes.device, say=say)
        self.bar: Any = progress_bar(
            total=settings.steps,
            initial=self.step,
            unit="step",
            desc=str(out),
            disable=not (progress and processes.is_main),
        )

    @property
    def step(self) -> int:
        """The steps taken so far."""
        return self.images_seen // self.batch_size

    def provenance(self) -> dict[str, Any]:
        """As JSON holds it: what is returned is what a loaded generator will say."""
        now = {**self.origin, "images_seen": self.images_seen, "steps": self.step}
        return dict(json.loads(json.dumps(now)))

    def go(self) -> None:
        """Take all steps that are left."""
        if self.processes.is_main and self.images_seen >= self.total:
            self._save()  # nothing is left to train, and somebody may have removed it
        if self.job.evolution is not None and self.processes.is_main and self.images_seen == 0:
            before = self.job.snapshot()
            if isinstance(before, Drawable):
                self.job.evolution.add(0, _draw(before))
        if self.images_seen < self.total:
            self.taker.prepare(progress=self.progress)
        device = self.processes.device
        random_devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=random_devices), self.bar, Stopping(self.processes) as stopping:
            try:
                with self.checkpoints:
                    stopped = self._take_steps(stopping)
                    self.processes.on_main(self.checkpoints.finish, failure=f"{self.out}: no checkpoint")
            finally:
                self.trackers.finish()
            if stopping.at_end() or stopped:
                log.warning("%s: stopped at step %s of %s", self.out, f"{self.step:,}", f"{self.bar.total:,}")
                raise stopping.as_exception()

    def _take_steps(self, stopping: Stopping) -> bool:
        """Until the end or a stop; returns whether it was a stop."""
        self._show()
        while self.images_seen < self.total:
            # The indices of all steps up to the next log point go to the device in one copy.
            until = min(self.total, self.images_seen + self.batch_size * (LOG_STEPS - self.step % LOG_STEPS))
            for batch in self.taker.batches(self.images_seen, until):
                self.losses.add(self.taker.take(batch, self.images_seen))
                self.images_seen += self.batch_size
                self.bar.update(1)
                self.pace.after_step(self.step)
                stop = stopping.after_step()
                last = stop or self.images_seen >= self.total
                due = last or self.step % self.checkpoint_steps == 0
                if due or self.step % LOG_STEPS == 0:
                    self._log()
                if due:
                    self._checkpoint()
                if stop:
                    return True
        return False

    def _log(self) -> None:
        means = self.losses.take(self.images_seen)
        pace = self.pace.lap(self.step)
        self._show(means)
        if self.trackers:
            rates = {
                f"learning_rate/{name}" + (f".{number}" if number else ""): group["lr"]
                for name, item in self.objects.items()
                if isinstance(item, torch.optim.Optimizer)
                for number, group in enumerate(item.param_groups)
            }
            speed = {} if not pace else {"images_per_second": self.batch_size / pace}
            losses = {f"loss/{name}": mean for name, mean in means.items()}
            self.trackers.log({**losses, **rates, **speed}, step=self.step)

    def _show(self, losses: Mapping[str, float] | None = None) -> None:
        """Say on the bar when the next checkpoint is due, and the losses."""
        due = min(self.bar.total, (self.step // self.checkpoint_steps + 1) * self.checkpoint_steps)
        told = [f"checkpoint at {due:,}", *(f"{name}={mean:.3f}" for name, mean in (losses or {}).items())]
        self.bar.set_postfix_str(", ".join(told))

    def _checkpoint(self) -> None:
        if self.processes.any(not all_finite(self.objects)):
            raise FloatingPointError(
                f"a weight is no longer finite at {self.images_seen:,} images; "
                "the last checkpoint is kept: start again with a lower learning rate"
            )
        self.processes.on_main(self._write, failure=f"{self.out}: no checkpoint")
        self.pace.skip(self.step)

    def _write(self) -> None:
        saved = self._save()
        if isinstance(saved, Drawable):
            drawn = _draw(saved)
            self._save_picture("samples", draw_sheet(drawn, saved.classes), f"{SAMPLES}/{self.images_seen:012d}.png")
            if self.job.evolution is not None:
                self.job.evolution.add(self.images_seen, drawn)
                self._save_picture("evolution", self.job.evolution.picture(), EVOLUTION)
        # Last, so that a kill before it is written repeats the steps since the one before, and all of the above.
        self.checkpoints.save(self.objects, images_seen=self.images_seen)

    def _save(self) -> Saveable:
        saved = self.job.snapshot()
        saved.provenance = self.provenance()
        saved.save_pretrained(self.out, overwrite=True)
        return saved

    def _save_picture(self, name: str, picture: Image.Image, file: str) -> None:
        save_picture(picture, self.out / file)
        self.trackers.show(name, picture, self.out / file, step=self.step)


def _draw(generator: Drawable) -> list[Tensor]:
    """Images of the same seeds each time, for each class ``(SHEET_COLUMNS, C, H, W)``."""
    classes = len(generator.classes)
    labels = [label for label in range(classes) for _ in range(SHEET_COLUMNS)]
    seeds = [*range(SHEET_COLUMNS)] * classes
    return list(generator.sample(labels, seeds).split(SHEET_COLUMNS))
