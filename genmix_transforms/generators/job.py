"""What a training is: the trainee, the data, the settings, and what is left behind; said once for all that serve it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.state import Stateful


class Trainee(Protocol):
    """What is trained: the loop knows no more of a generator than this."""

    def state_objects(self) -> Mapping[str, Stateful]:
        """Everything that must survive a kill, by name: networks, optimizers, averages, controllers."""
        ...

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One optimizer step.

        Args:
            images: this process's part of the batch, float32 ``(n, C, *spatial)`` in [-1, 1], or what ``inputs`` gives.
            labels: int64 ``(n,)``.
            images_seen: by all processes together, before this step.

        Returns:
            The losses by name, scalars still on the device. Random numbers come from torch's global generators, which
            the loop has seeded for this step.
        """
        ...


class Saveable(Protocol):
    """What a run leaves: a generator, or a model that draws nothing."""

    provenance: dict[str, Any]

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save it in a folder."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """What sheets are drawn from: a generator. The loop does not import the generators' base, which imports it."""

    classes: tuple[str, ...]

    def sample(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Draw an image ``(C, *spatial)`` for each label and seed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training.

    Args:
        trainee: what is trained, already on the device of ``processes``.
        dataset: the training set; it sits on the device as integers.
        out: the run's folder: the generator (``config.json``, ``model.safetensors``), ``samples/`` with a sheet at
            every checkpoint, ``training/`` with the last checkpoint and the losses.
        snapshot: gives what is trained as it stands now, to save and, if it is :class:`Drawable`, to draw sheets from.
        settings: steps in all (a finished run goes on if they are raised), images in a step, and the rest; the
            provenance has them.
        seed: of the data order and of every step's randomness.
        options: what else defines the run; a resume with other options is refused.
        processes: who trains together.
        started_from: the provenance of the weights that the training starts from; None: new ones.
        evolution: the figure of fixed seeds to keep up to date in ``out``, from before the first step on; None: none.
        inputs: from indices into the training set, int64 ``(n,)`` on the device, to what the trainee is shown in place
            of the pixels; None: the images in [-1, 1].
    """

    trainee: Trainee
    dataset: PatchDataset
    out: Path
    snapshot: Callable[[], Saveable]
    settings: TrainingSettings
    seed: int
    options: Mapping[str, Any]
    processes: Processes
    started_from: Mapping[str, Any] | None = None
    evolution: Evolution | None = None
    inputs: Callable[[Tensor], Tensor] | None = None

    def state_objects(self) -> dict[str, Stateful]:
        """All that a checkpoint holds, by name."""
        evolution = {} if self.evolution is None else {"evolution": self.evolution}
        return {**self.trainee.state_objects(), **evolution}
