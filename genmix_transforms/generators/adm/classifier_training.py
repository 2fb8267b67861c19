"""The training of a classifier of noisy images, which guides an ADM's sampling."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.generator import ADM
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.network import initialise, save_network
from genmix_transforms.generators.adm.settings import ClassifierSettings
from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation, mirrored
from genmix_transforms.generators.estimate import Estimate
from genmix_transforms.generators.folder import check_free
from genmix_transforms.generators.job import Job
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.state import Stateful, weights_hash
from genmix_transforms.generators.training import rehearse, train

QUARTERS = 4
"""Of the timesteps, for which the accuracy is logged apart: a class shows in little noise, and not in much."""


class ClassifierTraining:
    """A classifier in training, on the device where ``loss`` makes images noisy."""

    def __init__(self, classifier: NoisyClassifier, *, loss: HybridLoss, settings: ClassifierSettings) -> None:
        self.classifier: NoisyClassifier = classifier.train().requires_grad_(True)
        self.loss = loss
        self.settings = settings
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            self.classifier.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def state_objects(self) -> Mapping[str, Stateful]:
        """The classifier and its optimizer."""
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
        if self.settings.mirror:
            images = mirrored(images)
        if self.settings.augment:
            images = diff_augment(images, draw_augmentation(images), policy=self.settings.augment)
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


@dataclass
class TrainedClassifier:
    """A classifier that knows where it comes from: what the loop saves."""

    classifier: NoisyClassifier
    provenance: dict[str, Any] = field(default_factory=dict)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save it as diffusers does: ``NoisyClassifier.from_pretrained`` opens the folder."""
        check_free(Path(folder), overwrite=overwrite)
        save_network(Path(folder), self.classifier, provenance=self.provenance)


def train_classifier(
    dataset: PatchDataset,
    *,
    generator: ADM,
    out: str | Path,
    configuration: ADMConfiguration | None = None,
    classifier: NoisyClassifier | None = None,
    seed: int = 0,
    restart: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
    **settings: Any,
) -> NoisyClassifier:
    """Train the classifier that guides a generator's sampling. Run it again to go on where it stopped.

    Args:
        dataset: the training set, with the generator's size and channels, and with its classes, unless it was trained
            without labels: only the classifier then knows the classes.
        generator: what it will guide; its noise schedule is the classifier's.
        out: the run's folder, which ``NoisyClassifier.from_pretrained`` opens.
        configuration: of a new classifier; None: the generator's, of which it has the first half.
        classifier: one whose weights the training starts from; None: a new one.
        seed: of the weights, the data order and the noise.
        restart: throw away an earlier run in ``out``.
        device: where to train; None: CUDA where there is one.
        progress: show a bar.
        **settings: fields of :class:`ClassifierSettings`.

    Returns:
        The classifier, on the CPU: ``generator.with_classifier(classifier, scale=1.0)`` is guided by it; with
        ``classes=dataset.classes`` if the generator was trained without labels.

    Raises:
        InputError: data, a classifier or settings that do not fit; before any work.

    Source: Dhariwal, Nichol (arXiv 2105.05233), section 4 and appendix H.
    """
    job = _job(dataset, generator, configuration, classifier, out=out, seed=seed, device=device, given=settings)
    train(job, restart=restart, progress=progress)
    assert isinstance(job.trainee, ClassifierTraining)
    trained: NoisyClassifier = job.trainee.classifier.eval().requires_grad_(False).to("cpu")
    trained.training_set = dataset.training_set()
    return trained


def estimate_classifier(
    dataset: PatchDataset,
    *,
    generator: ADM,
    out: str | Path,
    configuration: ADMConfiguration | None = None,
    classifier: NoisyClassifier | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Estimate:
    """Say how long :func:`train_classifier` would take here, and how much memory and disk: a few real steps are timed.

    The arguments are those of :func:`train_classifier`; all that it checks is checked, and nothing is written.

    Raises:
        InputError: what :func:`train_classifier` would raise.
    """
    return rehearse(
        _job(dataset, generator, configuration, classifier, out=out, seed=seed, device=device, given=settings)
    )


def _job(
    dataset: PatchDataset,
    generator: ADM,
    configuration: ADMConfiguration | None,
    classifier: NoisyClassifier | None,
    *,
    out: str | Path,
    seed: int,
    device: str | torch.device | None,
    given: Mapping[str, Any],
) -> Job:
    """Check and put together a training."""
    settings = ClassifierSettings.of(given, name="train_classifier")
    seed = check_seed(seed)
    if isinstance(dataset, PatchDataset) and not generator.configuration.class_cond:
        # Such a network draws what its classifier alone is told.
        generator = generator.adapt(classes=dataset.classes)
    if len(generator.classes) < 2:
        raise InputError(f"a classifier needs at least two classes, the generator has {', '.join(generator.classes)}")
    generator.check_trainable_on(dataset)
    if classifier is None:
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
            classifier = NoisyClassifier.of(flags)
        initialise(classifier, seed=seed)
        started = {}
    else:
        classifier = copy.deepcopy(classifier)
        started = {"started_from": weights_hash(classifier.state_dict())}
    generator.with_classifier(classifier)  # says what does not fit
    processes = Processes.join(device)
    loss = HybridLoss(generator.schedule, device=processes.device)
    training = ClassifierTraining(classifier.to(processes.device), loss=loss, settings=settings)
    return Job(
        trainee=training,
        dataset=dataset,
        out=Path(out),
        snapshot=lambda: TrainedClassifier(training.classifier),
        settings=settings,
        seed=seed,
        options={
            "kind": "adm-classifier",
            "classes": list(generator.classes),
            "flags": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in classifier.config.items()
                if not name.startswith("_")
            },
            "noise_schedule": generator.configuration.noise_schedule,
            "diffusion_steps": generator.configuration.diffusion_steps,
            **settings.identity(),
            **started,
        },
        processes=processes,
    )
