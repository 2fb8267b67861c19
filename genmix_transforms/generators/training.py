"""The one training loop. It owns time: data position, randomness, checkpoints and sheets follow from the images seen.

A generator hands it named state objects and one method, ``training_step``; an exact resume is a property of this file,
not of any generator.
"""

import json
import logging
import math
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.atomic import remove_leftovers, write_text
from genmix_transforms.files.checks import check_output_folder, check_seed, whole_number
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.files.sheet import draw_sheet, save_picture
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.folder import CONFIG, TRAINING, WEIGHTS
from genmix_transforms.generators.pixels import to_signed_unit
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.randomness import DataOrder, reseed, step_seed
from genmix_transforms.generators.state import Stateful, clear, load_checkpoint, read_record, save_checkpoint

log = logging.getLogger(__name__)

MIXED_PRECISION = ("no", "bf16")
"""float16 is not offered: its narrow range turns GAN and diffusion losses into NaN after some thousand steps."""

SHEET_COLUMNS = 8
LOG_STEPS = 50
EVOLUTION = "evolution.png"


class Saveable(Protocol):
    """What a run leaves: a generator, or a model that draws nothing."""

    provenance: dict[str, Any]

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save it in a folder."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """What sheets are drawn from: a generator. This file does not import the generators' base, which imports it."""

    classes: tuple[str, ...]

    def sample(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Draw an image ``(C, H, W)`` for each label and seed."""
        ...


class Trainee(Protocol):
    """What is trained: the loop knows no more of a generator than this."""

    def state_objects(self) -> Mapping[str, Stateful]:
        """Everything that must survive a kill, by name: networks, optimisers, averages, controllers."""
        ...

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One optimiser step.

        Args:
            images: this process's part of the batch, float32 ``(n, C, H, W)`` in [-1, 1], or as ``inputs`` gives it.
            labels: int64 ``(n,)``.
            images_seen: by all processes together, before this step.

        Returns:
            The losses by name, scalars still on the device. Random numbers come from torch's global generators, which
            the loop has seeded for this step.
        """
        ...


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
    settings: Mapping[str, Any] | None = None,
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
        settings: all of the run's settings, for its provenance; a resume may have others, as far as ``options`` are
            the same.

    Returns:
        The provenance of what was trained.

    Raises:
        InputError: arguments that cannot work, or a folder that holds another run.
        FloatingPointError: a loss is no longer finite.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    out = Path(out)
    processes = processes or Processes.join()
    check_seed(seed)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("checkpoint_every", checkpoint_every)):
        whole_number(value, name=name, least=1)
    _check(dataset, batch_size=batch_size, mixed_precision=mixed_precision, processes=processes.count)
    check_output_folder(out)
    folder = out / TRAINING
    record = {
        "seed": seed,
        "batch_size": batch_size,
        "options": dict(options),
        "mixed_precision": mixed_precision,
        "training_set": {"fingerprint": dataset.fingerprint, "class_counts": dataset.class_counts},
        "processes": processes.count,
    }
    provenance = {**_provenance(record, started_from), **({"settings": dict(settings)} if settings else {})}
    if processes.is_main:
        if restart:
            _forget(out)
        elif folder.exists():
            remove_leftovers(folder)
    processes.wait()
    objects = dict(trainee.state_objects())
    if evolution is not None:
        objects["evolution"] = evolution
    earlier = read_record(folder)
    if earlier is not None:
        _check_same_run(out, earlier, record)
        images_seen = load_checkpoint(folder, earlier, objects)
        if images_seen > steps * batch_size:
            done = images_seen // batch_size
            raise InputError(
                f"{out}: has taken {done:,} steps already, and {steps:,} were asked for; "
                f"give --steps {done} or more, another folder, or --restart"
            )
        log.info("%s: going on at %s of %s images", out, f"{images_seen:,}", f"{steps * batch_size:,}")
    else:
        if processes.is_main and (out / CONFIG).exists() and not (folder.exists() or restart):
            raise InputError(
                f"{out}: holds a generator but no training to go on with; give another folder or --restart"
            )
        images_seen = 0
    losses = _LossLog(folder / "losses.jsonl", images_seen=images_seen, writes=processes.is_main)

    device = processes.device
    labels = dataset.labels.to(device)
    if inputs is None:
        images = dataset.images.to(device)

        def inputs(index: Tensor) -> Tensor:
            return to_signed_unit(images.index_select(0, index))

    order = DataOrder(len(dataset), seed=seed)
    share = batch_size // processes.count
    total = steps * batch_size
    checkpoint_steps = max(1, math.ceil(checkpoint_every / batch_size))
    for optimiser in objects.values():
        if isinstance(optimiser, torch.optim.Optimizer) and processes.count > 1:
            optimiser.register_step_pre_hook(
                lambda optimiser, *_: processes.average_gradients(
                    parameter for group in optimiser.param_groups for parameter in group["params"]
                )
            )

    def current_provenance() -> dict[str, Any]:
        # As JSON holds it: what is returned is what a loaded generator will say.
        now = {**provenance, "images_seen": images_seen, "steps": images_seen // batch_size}
        return dict(json.loads(json.dumps(now)))

    def save_snapshot() -> Saveable:
        saved = snapshot()
        saved.provenance = current_provenance()
        saved.save_pretrained(out, overwrite=True)
        return saved

    def checkpoint() -> None:
        if processes.is_main:
            saved = save_snapshot()
            if isinstance(saved, Drawable):
                drawn = _draw(saved)
                save_picture(draw_sheet(drawn, saved.classes), out / "samples" / f"{images_seen:012d}.png")
                if evolution is not None:
                    evolution.add(images_seen, drawn)
                    save_picture(evolution.picture(), out / EVOLUTION)
            # Last, so that a kill before this line repeats the steps since the checkpoint before, and all of the above.
            save_checkpoint(folder, objects, images_seen=images_seen, record=record)

    if processes.is_main and images_seen >= total:
        save_snapshot()  # nothing is left to train, and somebody may have removed it
    if evolution is not None and processes.is_main and images_seen == 0:
        before = snapshot()
        if isinstance(before, Drawable):
            evolution.add(0, _draw(before))
    bar = progress_bar(
        total=total, initial=images_seen, unit="img", desc=str(out), disable=not (progress and processes.is_main)
    )
    random_devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=random_devices), _stop_after_step() as stop, bar:
        while images_seen < total:
            # The indices of all steps up to the next log point go to the device in one copy.
            until = min(total, images_seen + batch_size * (LOG_STEPS - (images_seen // batch_size) % LOG_STEPS))
            index = order(images_seen, until).to(device, non_blocking=True)
            for batch in index.split(batch_size):
                mine = batch[processes.rank * share : (processes.rank + 1) * share]
                reseed(step_seed(seed, rank=processes.rank, images_seen=images_seen), device)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision == "bf16"):
                    values = trainee.training_step(inputs(mine), labels.index_select(0, mine), images_seen)
                losses.add(values)
                images_seen += batch_size
                bar.update(batch_size)
                step = images_seen // batch_size
                last = images_seen >= total or stop.is_set()
                if step % LOG_STEPS == 0 or step % checkpoint_steps == 0 or last:
                    bar.set_postfix(losses.flush(images_seen))
                if step % checkpoint_steps == 0 or last:
                    checkpoint()
                if stop.is_set():
                    log.warning("%s: stopped at %s of %s images", out, f"{images_seen:,}", f"{total:,}")
                    raise KeyboardInterrupt
    processes.wait()
    return current_provenance()


class _LossLog:
    """Losses summed on the device, read at log points only, and appended to a file."""

    def __init__(self, path: Path, *, images_seen: int, writes: bool) -> None:
        self.path = path if writes else None
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        if writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            # What a killed run wrote after its last checkpoint happens again: forget it.
            lines = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["images_seen"] <= images_seen]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def flush(self, images_seen: int) -> dict[str, str]:
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"the {name} loss is {mean} at {images_seen:,} images; "
                    "the last checkpoint is kept: start anew with a lower learning rate"
                )
        if self.path is not None:
            with open(self.path, "a") as file:
                file.write(json.dumps({"images_seen": images_seen, **means}) + "\n")
        return {name: f"{mean:.3f}" for name, mean in means.items()}


@contextmanager
def _stop_after_step() -> Iterator[threading.Event]:
    """Ctrl-C sets the event: the step under way is finished and a checkpoint written. A second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _draw(generator: Drawable) -> list[Tensor]:
    """Images of the same seeds each time, for each class ``(SHEET_COLUMNS, C, H, W)``."""
    classes = len(generator.classes)
    labels = [label for label in range(classes) for _ in range(SHEET_COLUMNS)]
    seeds = [*range(SHEET_COLUMNS)] * classes
    return list(generator.sample(labels, seeds).split(SHEET_COLUMNS))


def _forget(out: Path) -> None:
    """Throw an earlier run away: its generator too, which would otherwise be taken for the new run's."""
    for name in (CONFIG, WEIGHTS, EVOLUTION):
        (out / name).unlink(missing_ok=True)
    clear(out / TRAINING)
    shutil.rmtree(out / "samples", ignore_errors=True)


def _provenance(record: Mapping[str, Any], started_from: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where the weights come from, those they started from included: they too saw their training set."""
    provenance = dict(record)
    if started_from is not None:
        provenance["started_from"] = dict(started_from)
        first = started_from.get("training_set", {}).get("fingerprint")
        now = record["training_set"]["fingerprint"]
        if first not in (None, now):
            provenance["training_set"] = {**record["training_set"], "fingerprint": f"{first}+{now}"}
    return provenance


def _check(dataset: PatchDataset, *, batch_size: int, mixed_precision: str, processes: int) -> None:
    if batch_size % processes:
        raise InputError(
            f"a batch of {batch_size} cannot be shared by {processes} processes: give a multiple of {processes}"
        )
    if mixed_precision not in MIXED_PRECISION:
        raise InputError(f"mixed_precision must be one of {', '.join(MIXED_PRECISION)}, got {mixed_precision!r}")
    if not len(dataset):
        raise InputError(f"{dataset.name}: no images to train on")


def _check_same_run(out: Path, earlier: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse to go on with another run's checkpoint; name what differs."""
    differing = [
        f"{key}: {was!r} there, {now!r} now"
        for key, was, now in _differences(earlier, json.loads(json.dumps(record)))
        if key != "processes"
    ]
    if differing:
        raise InputError(
            f"{out}: holds a run with other settings ({'; '.join(differing)}); "
            "give the same settings, another folder, or --restart"
        )
    if earlier["processes"] != record["processes"]:
        warnings.warn(
            f"{out}: begun with {earlier['processes']} processes, going on with {record['processes']}: "
            "the result will not be bit for bit that of an unbroken run",
            stacklevel=3,
        )


def _differences(
    earlier: Mapping[str, Any], now: Mapping[str, Any], *, prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key, value in now.items():
        was = earlier.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, value, prefix=f"{prefix}{key}.")
        elif was != value:
            yield f"{prefix}{key}", was, value
