"""The training of a classifier of noisy images, which guides an ADM's sampling."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.folder import save_network
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.network import initialise
from genmix_transforms.generators.augmentation import check_policy, diff_augment, draw_augmentation, mirrored
from genmix_transforms.generators.folder import check_free
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.state import Stateful, weights_hash
from genmix_transforms.generators.training import train

if TYPE_CHECKING:
    from genmix_transforms.generators.adm.generator import ADM

QUARTERS = 4
"""Of the timesteps, for which the accuracy is logged apart: a class shows in little noise, and not in much."""


class ClassifierTraining:
    """A classifier in training.

    Args:
        classifier: its weights are where the training starts, on the device.
        loss: what makes images noisy, on the same device.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        augment: the DiffAugment policy of the clean images.
        mirror: show images mirrored, half of the time.
    """

    def __init__(
        self,
        classifier: NoisyClassifier,
        *,
        loss: HybridLoss,
        learning_rate: float,
        weight_decay: float,
        augment: Sequence[str] = (),
        mirror: bool = False,
    ) -> None:
        self.classifier = classifier.train().requires_grad_(True)
        self.loss = loss
        self.augment = tuple(augment)
        self.mirror = mirror
        self.optimiser = torch.optim.AdamW(
            self.classifier.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
        )

    def state_objects(self) -> Mapping[str, Stateful]:
        """The classifier and its optimiser."""
        return {"classifier": self.classifier, "optimiser": self.optimiser}

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step on images of all kinds of noise.

        The timesteps of a batch are spread: one in each of as many equal parts as there are images. A quarter of the
        batch is then of each quarter of the timesteps.

        Returns:
            "cross_entropy"; "accuracy", and "accuracy_1" to "accuracy_4", the same for each quarter of the timesteps,
            the least noisy first (left out for batches of fewer than four images).
        """
        count = len(images)
        if self.mirror:
            images = mirrored(images)
        if self.augment:
            images = diff_augment(images, draw_augmentation(images), policy=self.augment)
        spread = (torch.arange(count, device=images.device) + torch.rand(count, device=images.device)) / count
        timesteps = (spread * self.loss.count).long().clamp_(max=self.loss.count - 1)
        noisy = self.loss.noisy(images, torch.randn_like(images), timesteps)
        logits = self.classifier(noisy, timesteps).float()
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        right = (logits.argmax(1) == labels).float()
        values = {"cross_entropy": loss, "accuracy": right.mean()}
        if count >= QUARTERS:
            for number in range(QUARTERS):
                quarter = right[number * count // QUARTERS : (number + 1) * count // QUARTERS]
                values[f"accuracy_{number + 1}"] = quarter.mean()
        return values

    def result(self) -> NoisyClassifier:
        """The classifier as it stands."""
        classifier: NoisyClassifier = self.classifier
        return classifier


@dataclass
class TrainedClassifier:
    """A classifier that knows where it comes from: what the loop saves."""

    classifier: NoisyClassifier

    def __post_init__(self) -> None:
        self.provenance: dict[str, Any] = {}

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save it as diffusers does: ``NoisyClassifier.from_pretrained`` opens the folder."""
        check_free(Path(folder), overwrite=overwrite)
        save_network(Path(folder), self.classifier, provenance=self.provenance)


def train_classifier(
    dataset: PatchDataset,
    *,
    generator: "ADM",
    out: str | Path,
    configuration: ADMConfiguration | None = None,
    classifier: NoisyClassifier | None = None,
    steps: int = 10_000,
    batch_size: int = 32,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.05,
    augment: Sequence[str] = ("translation",),
    mirror: bool = False,
    checkpoint_every: int = 20_000,
    mixed_precision: str = "no",
    seed: int = 0,
    restart: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> NoisyClassifier:
    """Train the classifier that guides a generator's sampling. Run again, it goes on where it stopped.

    Args:
        dataset: the training set, with the generator's classes, size and channels.
        generator: what it will guide; its noise schedule is the classifier's.
        out: the run's folder, which ``NoisyClassifier.from_pretrained`` opens.
        configuration: of a new classifier; None: the generator's, of which it has the first half.
        classifier: one whose weights the training starts from; None: a new one.
        steps: optimiser steps.
        batch_size: images in a step, all processes together.
        learning_rate: of AdamW; 0.0003 in the original.
        weight_decay: of AdamW; 0.05 in the original.
        augment: the DiffAugment policy of the clean images: the original crops at random against overfitting.
        mirror: show images mirrored, half of the time.
        checkpoint_every: images between checkpoints.
        mixed_precision: "no" or "bf16".
        seed: of the weights, the data order and the noise.
        restart: throw away an earlier run in ``out``.
        device: where to train; None: CUDA where there is one.
        progress: show a bar.

    Returns:
        The classifier, on the CPU: ``generator.with_classifier(classifier, scale=1.0)`` is guided by it.

    Raises:
        InputError: data, a classifier or options that do not fit; before any work.

    Source: Dhariwal, Nichol (arXiv 2105.05233), section 4 and appendix H.
    """
    seed = check_seed(seed)
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        whole_number(value, name=name, least=1)
    for name, number, least in (("learning_rate", learning_rate, 1e-12), ("weight_decay", weight_decay, 0)):
        if not least <= number < float("inf"):
            raise InputError(f"{name} must be {'positive' if least else 'at least 0'}, got {number}")
    augment = check_policy(augment)
    if len(generator.classes) < 2:
        raise InputError(f"a classifier needs at least two classes, the generator has {', '.join(generator.classes)}")
    generator.check_trainable_on(dataset)
    if batch_size > len(dataset):
        raise InputError(
            f"train_classifier: {dataset.name} has {len(dataset)} images, fewer than a batch of {batch_size}; give a "
            f"batch size (--batch-size) of at most {len(dataset)}"
        )
    if classifier is None:
        classifier, started = _new_classifier(generator, configuration, seed=seed), {}
    else:
        classifier = copy.deepcopy(classifier)
        started = {"started_from": weights_hash(classifier.state_dict())}
    generator.with_classifier(classifier)  # says what does not fit
    processes = Processes.join(device)
    training = ClassifierTraining(
        classifier.to(processes.device),
        loss=HybridLoss(generator.schedule, device=processes.device),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augment=augment,
        mirror=mirror,
    )
    train(
        training,
        dataset,
        out=out,
        snapshot=lambda: TrainedClassifier(training.result()),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        options={
            "kind": "adm-classifier",
            "classes": list(generator.classes),
            "flags": {name: _plain(value) for name, value in classifier.config.items() if not name.startswith("_")},
            "noise_schedule": generator.configuration.noise_schedule,
            "diffusion_steps": generator.configuration.diffusion_steps,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "augment": list(augment),
            "mirror": mirror,
            **started,
        },
        checkpoint_every=checkpoint_every,
        mixed_precision=mixed_precision,
        restart=restart,
        progress=progress,
        processes=processes,
    )
    trained: NoisyClassifier = classifier.eval().requires_grad_(False).to("cpu")
    return trained


def _new_classifier(generator: "ADM", configuration: ADMConfiguration | None, *, seed: int) -> NoisyClassifier:
    flags = replace(
        configuration or generator.configuration,
        learn_sigma=False,
        null_class=False,
        class_cond=True,
        num_classes=len(generator.classes),
        channels=generator.configuration.channels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier: NoisyClassifier = NoisyClassifier.of(flags)
    initialise(classifier, seed=seed)
    return classifier


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
