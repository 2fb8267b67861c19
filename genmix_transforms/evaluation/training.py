"""One classifier, trained in one arm with one seed, and tested once."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arms import Setting, build_arm
from genmix_transforms.evaluation.checks import Splits, prepare
from genmix_transforms.evaluation.classifiers import build_classifier
from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.runs import Run
from genmix_transforms.generators.processes import own_device
from genmix_transforms.generators.randomness import DataOrder
from genmix_transforms.transforms import functional

_PREDICT = 128
"""Images of one pass through the network without gradients."""

# Streams of random numbers: what one of them uses up never moves another.
_WEIGHTS, _ORDER, _ARM, _FLIPS, _NETWORK = range(5)


def run_arm(
    arm: str,
    splits: Splits,
    bank: SyntheticBank | None,
    protocol: Protocol,
    seed: int,
    *,
    device: str | torch.device | None = None,
) -> Run:
    """Train one classifier and test it.

    All arms of one seed start from the same weights and see the same real images in the same order; the random numbers
    of a step follow from the seed and the step alone. On the CPU a seed gives the same scores whatever ran before.

    Args:
        arm: its name, one of ``ARMS``.
        splits: train, validation and test.
        bank: of synthetic images; None for arms that use none.
        protocol: how to train.
        seed: of the weights, the data order and the arm's draws; not negative.
        device: None: the GPU where there is one.

    Raises:
        InputError: arguments that cannot work, before any training.
        FloatingPointError: the loss is no longer finite.
    """
    where = own_device(device)
    return train_and_test(arm, splits, prepare((arm,), splits, bank, protocol, device=where), seed, device=where)


def train_and_test(arm: str, splits: Splits, setting: Setting, seed: int, *, device: torch.device) -> Run:
    """:func:`run_arm` after its checks; :func:`genmix_transforms.evaluation.checks.prepare` returns the ``setting``."""
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    started = time.perf_counter()
    # torch's global generators, the caller's, are as before when this is over.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trained = _train(arm, splits[0], splits[1], setting, seed, device=device)
        test = _Pixels.of(splits[2], setting.normalisation, device)
        predictions = _predict(trained.network, test)
    return Run(
        arm=arm,
        seed=seed,
        steps=trained.steps,
        best_step=trained.best_step,
        validation_macro_f1=trained.best,
        scores=score(predictions, test.labels, num_classes=test.classes),
        predictions=tuple(predictions.tolist()),
        seconds=round(time.perf_counter() - started, 2),
    )


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A network with its best weights."""

    network: nn.Module
    steps: int
    best_step: int
    best: float


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """A data set on the device as integers; values are made of them a batch at a time."""

    images: Tensor
    labels: Tensor
    scale: Tensor
    shift: Tensor
    classes: int

    @classmethod
    def of(cls, patches: PatchDataset, normalisation: Normalisation, device: torch.device) -> "_Pixels":
        images = patches.images.to(device)
        scale, shift = normalisation.unit(images)
        return cls(
            images=images, labels=patches.labels.to(device), scale=scale, shift=shift, classes=len(patches.classes)
        )

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images, float32, and labels, int64."""
        index = index.to(self.images.device)
        return functional.dequantise(self.images[index], self.scale, self.shift), self.labels[index]


def _train(
    arm_name: str, train: PatchDataset, validation: PatchDataset, setting: Setting, seed: int, *, device: torch.device
) -> _Trained:
    protocol = setting.protocol
    channels, height, width = train.images.shape[1:]
    network = build_classifier(
        protocol.classifier,
        channels=channels,
        classes=len(train.classes),
        size=(height, width),
        seed=_seed_of(seed, _WEIGHTS),
    )
    # Channels last: half the time on a CPU, and what tensor cores want.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    arm = build_arm(arm_name, setting)
    optimiser = torch.optim.AdamW(network.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=protocol.steps)
    order = DataOrder(len(train), seed=_seed_of(seed, _ORDER))
    real, held_out = (_Pixels.of(part, setting.normalisation, device) for part in (train, validation))
    best, best_step, best_weights, since_best, step = -1.0, 0, {}, 0, 0
    for step in range(1, protocol.steps + 1):
        images, labels = real.batch(order((step - 1) * protocol.batch_size, step * protocol.batch_size))
        torch.manual_seed(_seed_of(seed, _ARM, step))
        images, soft = arm(images, labels)
        if protocol.flips:
            torch.manual_seed(_seed_of(seed, _FLIPS, step))
            images = torch.where(torch.rand(len(images), 1, 1, 1, device=device) < 0.5, images.flip(-1), images)
        torch.manual_seed(_seed_of(seed, _NETWORK, step))
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images), soft)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % protocol.validate_every and step != protocol.steps:
            continue
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"arm {arm_name!r}, seed {seed}: the loss is {loss.item()} at step {step}; lower the learning rate "
                f"({protocol.learning_rate:g})"
            )
        reached = score(_predict(network, held_out), held_out.labels, num_classes=held_out.classes).macro_f1
        since_best += 1
        if reached > best:
            best, best_step, since_best = reached, step, 0
            best_weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if protocol.patience is not None and since_best >= protocol.patience:
            break
    network.load_state_dict(best_weights)
    return _Trained(network=network, steps=step, best_step=best_step, best=best)


@torch.no_grad()
def _predict(network: nn.Module, pixels: _Pixels) -> Tensor:
    """The most probable class of every image, int64 ``(N,)``; the network is in training mode again afterwards."""
    network.eval()
    everything = torch.arange(len(pixels.labels))
    predictions = [network(pixels.batch(index)[0]).argmax(dim=1) for index in everything.split(_PREDICT)]
    network.train()
    return torch.cat(predictions)


def _seed_of(seed: int, stream: int, step: int = 0) -> int:
    """A seed for each stream and step; 32 bits, which is all that torch's CPU generator looks at."""
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1)[0])
