"""A trainee that learns nothing and remembers what it was given: what the tests of the loop share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import DCGAN
from genmix_transforms.generators.training import train
from tests.generators.jobs import make_job


class Recorder:
    """A trainee that learns nothing and remembers what it was given."""

    def __init__(self, generator: DCGAN, *, fail_at: int | None = None, loss: float = 1.0) -> None:
        self.generator = generator
        self.steps: list[tuple[int, list[int], float]] = []
        self.fail_at = fail_at
        self.loss = loss

    def state_objects(self) -> Mapping[str, Any]:
        return {"network": self.generator.network}

    def training_step(self, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Mapping[str, torch.Tensor]:
        if self.fail_at == images_seen:
            raise RuntimeError("power cut")
        self.steps.append((images_seen, labels.tolist(), float(torch.rand(()))))
        self.last_images = images
        return {"value": torch.tensor(self.loss)}


def run(trainee: Recorder, patches: PatchDataset, out: Path, **options: Any) -> None:
    """Ten steps of four images, a checkpoint every three."""
    how = {"progress": options.pop("progress", False), "restart": options.pop("restart", False)}
    given = {"snapshot": lambda: trainee.generator, "steps": 10, "checkpoint_every": 12, **options}
    train(make_job(trainee, patches, out, **given), **how)
