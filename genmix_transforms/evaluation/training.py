"""One classifier, trained in one arm with one seed, and tested once."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.bank.rows import take_rows
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_kinds import Batch, Setting, baseline
from genmix_transforms.evaluation.arms import build_arm, own_setting, phases_of
from genmix_transforms.evaluation.auxiliary_norm import AuxiliaryNorms
from genmix_transforms.evaluation.classifiers import build_classifier, last_layer
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.metrics import Scores, score, score_several
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.phases import learning_rate_share as learning_rate_share
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.runs import Run, as_prediction, kept_probabilities
from genmix_transforms.generators.fast_math import fast_math
from genmix_transforms.generators.randomness import DataOrder, reseed
from genmix_transforms.transforms import functional

_PREDICT = 128
"""Images of one pass through the network without gradients."""

# Streams of random numbers: what one of them uses up never moves another.
_WEIGHTS, _ORDER, _ARM, _FLIPS, _NETWORK = range(5)


def train_and_test(
    arm: str,
    splits: Splits,
    setting: Setting,
    seed: int,
    *,
    device: torch.device,
    fold: int = 0,
    knob: float | None = None,
) -> Run:
    """Train one classifier and test it.

    All arms of one seed see the same real images in the same order, and all but "pool" start from the same weights; the
    random numbers of a step follow from the seed and the step alone. On the CPU a seed gives the same scores whatever
    ran before.

    Args:
        arm: its name, one of ``ARMS``.
        splits: train, validation and test.
        setting: of :func:`genmix_transforms.evaluation.checks.prepare`, for these splits.
        seed: of the weights, the data order and the arm's draws; not negative.
        device: where the setting's banks are.
        fold: the number of these splits, which the run records; it changes nothing.
        knob: what was tuned for this arm, likewise: the setting's protocol has it already.

    Raises:
        InputError: a negative seed.
        FloatingPointError: the loss is no longer finite.
    """
    started = time.perf_counter()
    trained = train_network(arm, splits, setting, seed, device=device)
    setting = own_setting(arm, setting)
    test = _Pixels.of(splits[2], setting.normalisation, device)
    with fast_math(device, setting.protocol.fast_math):
        logits = _logits(trained.network, test, precision=setting.protocol.precision)
    several = setting.several_labels
    predictions = predicted(logits, several=several)
    probabilities = logits.double().sigmoid() if several else logits.double().softmax(dim=1)
    return Run(
        arm=arm,
        fold=fold,
        seed=seed,
        steps=trained.steps,
        best_step=trained.best_step,
        validation_macro_f1=trained.validation_macro_f1,
        scores=_scored(predictions, test, several=several, probabilities=probabilities),
        predictions=tuple(map(as_prediction, predictions.tolist())),
        probabilities=kept_probabilities(probabilities),
        knob=knob,
        seconds=round(time.perf_counter() - started, 2),
    )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training leaves.

    Args:
        network: with the weights of the best validation, in evaluation mode, on the device.
        steps: that were taken.
        best_step: whose weights these are.
        validation_macro_f1: of these weights.
        validations: by the step, the classes predicted for the validation images, int64 ``(N,)`` on the CPU (``(N, K)``
            of 0 and 1 where an image has several labels); only of weights that could have been taken.
    """

    network: nn.Module
    steps: int
    best_step: int
    validation_macro_f1: float
    validations: Mapping[int, Tensor] = field(default_factory=dict)


def train_network(arm: str, splits: Splits, setting: Setting, seed: int, *, device: torch.device) -> Trained:
    """Train one classifier; the test part is not looked at.

    Args:
        arm: its name.
        splits: train, validation and test.
        setting: of :func:`genmix_transforms.evaluation.checks.prepare`, for these splits.
        seed: of the weights, the data order and the arm's draws; not negative.
        device: where the setting's banks are.

    Raises:
        InputError: a negative seed.
        FloatingPointError: the loss is no longer finite.
    """
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    train, validation, _ = splits
    # torch's global generators, the caller's, are as before when this is over.
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, fast_math(device, setting.protocol.fast_math):
        return _train(arm, train, validation, own_setting(arm, setting), seed, device=device)


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
            images=images, labels=patches.label_rows.to(device), scale=scale, shift=shift, classes=len(patches.classes)
        )

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized images, float32, and labels, int64 or float32 rows; the index is on the device."""
        return functional.dequantise(take_rows(self.images, index), self.scale, self.shift), self.labels[index]


def _train(
    arm_name: str, train: PatchDataset, validation: PatchDataset, setting: Setting, seed: int, *, device: torch.device
) -> Trained:
    protocol = setting.protocol.for_training_set(len(train))
    phases = phases_of(arm_name, protocol)
    channels, height, width = train.images.shape[1:]
    network = build_classifier(
        protocol.classifier,
        channels=channels,
        classes=len(train.classes),
        size=(height, width),
        seed=_seed_of(seed, _WEIGHTS),
        weights=protocol.weights,
        input_size=protocol.input_size,
    )
    # Channels last: half the time on a CPU, and what tensor cores want.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    norms = AuxiliaryNorms(network) if protocol.aux_norm else None
    arm, plain = build_arm(arm_name, setting), baseline(setting)
    # Fused: one pass over the weights, where VGG-16's 138 million would otherwise be passed over a dozen times a step.
    optimiser = torch.optim.AdamW(_parameter_groups(network, protocol), weight_decay=protocol.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, phases.rate)
    real, held_out = (_Pixels.of(part, setting.normalisation, device) for part in (train, validation))
    best, best_step, best_weights, since_best, step = -1.0, 0, {}, 0, 0
    validations: dict[int, Tensor] = {}
    for batches in _between_validations(len(train), protocol, seed=_seed_of(seed, _ORDER), device=device):
        for index in batches:
            step += 1
            images, labels = real.batch(index)
            reseed(_seed_of(seed, _ARM, step), device)
            batch = (arm if phases.is_first(step) else plain)(images, labels)
            if protocol.flips:
                reseed(_seed_of(seed, _FLIPS, step), device)
                batch = batch._replace(images=_flipped(batch.images))
            reseed(_seed_of(seed, _NETWORK, step), device)
            optimiser.zero_grad(set_to_none=True)
            if norms is not None:
                norms.synthetic = batch.synthetic
            logits = _forward(network, batch.images, precision=protocol.precision)
            loss = batch_loss(logits, batch, several=setting.several_labels)
            loss.backward()
            if protocol.clip_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), protocol.clip_norm)
            optimiser.step()
            schedule.step()
        # The only place of the loop that waits for the device.
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"arm {arm_name!r}, seed {seed}: the loss is {loss.item()} at step {step}; lower the learning rate "
                f"({protocol.learning_rate:g})"
            )
        if not phases.can_be_tested(step):
            continue
        logits = _logits(network, held_out, precision=protocol.precision)
        predictions = predicted(logits, several=setting.several_labels)
        validations[step] = predictions.cpu()
        reached = _scored(predictions, held_out, several=setting.several_labels).macro_f1
        if math.isnan(reached):  # several labels an image, and none had or predicted in the validation part
            reached = 0.0
        since_best += 1
        if reached > best:
            best, best_step, since_best = reached, step, 0
            best_weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if protocol.patience is not None and since_best >= protocol.patience:
            break
    network.load_state_dict(best_weights)
    if norms is not None:
        network = norms.removed()
    return Trained(
        network=network.eval(), steps=step, best_step=best_step, validation_macro_f1=best, validations=validations
    )


def predicted(logits: Tensor, *, several: bool = False) -> Tensor:
    """The classes that logits ``(N, K)`` say: int64 ``(N,)``; or, of several an image, ``(N, K)`` of 0 and 1."""
    return (logits > 0).long() if several else logits.argmax(dim=1)


def _scored(predictions: Tensor, pixels: _Pixels, *, several: bool, probabilities: Tensor | None = None) -> Scores:
    if several:
        return score_several(predictions, pixels.labels, probabilities=probabilities)
    return score(predictions, pixels.labels, num_classes=pixels.classes, probabilities=probabilities)


def batch_loss(logits: Tensor, batch: Batch, *, several: bool = False) -> Tensor:
    """Cross-entropy with soft labels: its mean over the batch, by the images' weights where they have any.

    Args:
        logits: float32 ``(N, K)``.
        batch: of an arm.
        several: whether an image has several labels: the binary cross-entropy of each class, mean over the classes.

    Example:
        >>> logits, labels = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> batch_loss(logits, Batch(logits, labels, weights=torch.tensor([1.0, 0.0]))).item()
        0.6931471824645996
    """
    if several:
        each = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").mean(dim=1)
    elif batch.weights is None:
        return F.cross_entropy(logits, batch.labels)
    else:
        each = F.cross_entropy(logits, batch.labels, reduction="none")
    if batch.weights is None:
        return each.mean()
    return (each * batch.weights).sum() / batch.weights.sum()


def _flipped(images: Tensor) -> Tensor:
    """Half of the images, at random, with left and right swapped."""
    return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images.flip(-1), images)


def _parameter_groups(network: nn.Module, protocol: Protocol) -> list[dict[str, object]]:
    """All weights at the learning rate; those of the last layer, which is new, at a multiple of it."""
    rate = protocol.learning_rate
    if protocol.head_factor == 1:
        return [{"params": list(network.parameters()), "lr": rate}]
    last = {id(parameter) for parameter in last_layer(network).parameters()}
    return [
        {"params": [parameter for parameter in network.parameters() if id(parameter) not in last], "lr": rate},
        {
            "params": [parameter for parameter in network.parameters() if id(parameter) in last],
            "lr": rate * protocol.head_factor,
        },
    ]


def _between_validations(
    count: int, protocol: Protocol, *, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """The batches from one validation to the next, as indices on the device: one copy for all of them."""
    order = DataOrder(count, seed=seed)
    for start in range(0, protocol.steps, protocol.validate_every):
        stop = min(protocol.steps, start + protocol.validate_every)
        index = order(start * protocol.batch_size, stop * protocol.batch_size)
        yield index.to(device).split(protocol.batch_size)


def _forward(network: nn.Module, images: Tensor, *, precision: str) -> Tensor:
    """Logits in float32."""
    if precision == "float32":
        logits: Tensor = network(images)
        return logits
    with torch.autocast(images.device.type, dtype=torch.bfloat16):
        logits = network(images)
    return logits.float()


def class_probabilities(network: nn.Module, images: Tensor, setting: Setting) -> Tensor:
    """What a trained classifier says of images: float64 ``(N, K)``, on their device.

    Args:
        network: as :func:`train_network` leaves it, on the images' device.
        images: integers ``(N, C, H, W)``, as the training set's.
        setting: that the network was trained in.
    """
    scale, shift = setting.normalisation.unit(images)
    nowhere = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    pixels = _Pixels(images=images, labels=nowhere, scale=scale, shift=shift, classes=len(setting.class_counts))
    return _logits(network, pixels, precision=setting.protocol.precision).double().softmax(dim=1)


@torch.no_grad()
def _logits(network: nn.Module, pixels: _Pixels, *, precision: str) -> Tensor:
    """Of every image, float32 ``(N, K)``; the network's mode is as it was afterwards."""
    was_training = network.training
    network.eval()
    everything = torch.arange(len(pixels.labels), device=pixels.labels.device)
    found = [_forward(network, pixels.batch(index)[0], precision=precision) for index in everything.split(_PREDICT)]
    network.train(was_training)
    return torch.cat(found)


def _seed_of(seed: int, stream: int, step: int = 0) -> int:
    """A seed for each stream and step; 32 bits, which is all that torch's CPU generator looks at."""
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1)[0])
