"""A training of a network with four weights: what the loop's tests share."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.training import train
from tests.generators.jobs import make_job


class Result:
    """What draws nothing, but can be saved."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = weights
        self.provenance: dict[str, Any] = {}

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_tensors(Path(folder) / "model.safetensors", self.weights)


class Tiny:
    """A network with an optimiser and an average; ``before_step`` and ``loss`` are hooks for what goes wrong."""

    def __init__(
        self,
        *,
        before_step: Callable[[int], None] = lambda images_seen: None,
        loss: Callable[[int, torch.Tensor], torch.Tensor] = lambda images_seen, loss: loss,
        width: int = 1,
    ) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Linear(4, width)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.05)
        self.average = MovingAverage(self.network, half_life=100)
        self.before_step = before_step
        self.loss = loss
        self.steps: list[int] = []

    def state_objects(self) -> Mapping[str, Any]:
        return {"network": self.network, "optimiser": self.optimiser, "average": self.average}

    def training_step(self, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Mapping[str, torch.Tensor]:
        self.before_step(images_seen)
        self.steps.append(images_seen)
        target = labels.float()[:, None] + 0.1 * torch.randn(len(labels), 1)
        loss = self.loss(images_seen, (self.network(images.flatten(1)) - target).square().mean())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.average.update(self.network, images_seen=images_seen)
        return {"squared": loss}

    def result(self) -> Result:
        return Result(self.average.state_dict())


def tiny_patches(count: int = 24) -> PatchDataset:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 2, 2), generator=random, dtype=torch.uint8)
    return PatchDataset(images=images, labels=torch.arange(count) % 2, classes=("a", "b"), name="dots")


def run(trainee: Tiny, out: Path, **options: Any) -> dict[str, Any]:
    """Twenty steps of four images, a checkpoint every five."""
    patches, restart = options.pop("patches", None) or tiny_patches(), options.pop("restart", False)
    given = {"snapshot": trainee.result, "steps": 20, "checkpoint_every": 20, **options}
    return train(make_job(trainee, patches, out, **given), restart=restart, progress=False)


def position(out: Path) -> int:
    """Where the last checkpoint stands, in images."""
    return int(json.loads((out / "training/checkpoint.json").read_text())["images_seen"])


def same_end(ours: Path, theirs: Path) -> bool:
    """Whether two runs ended with the same state and the same weights, bit for bit."""
    for name in (f"training/state-{position(theirs):012d}.safetensors", "model.safetensors"):
        one, other = (safetensors.torch.load_file(out / name) for out in (ours, theirs))
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return False
    return True
