"""Pre-training of the small classifier on unlabeled images, as a control for what a generator learns from a pool.

A generator that was trained on a large pool brings information from that pool into the training set. So does a
classifier that has seen the pool. Only what a bank adds to such a classifier is due to the generator.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.evaluation.classifiers import SMALL_WIDTHS, SMALLEST_SIZE, SmallClassifier, refuse_volumes
from genmix_transforms.evaluation.controls import Classical
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.small_weights import SmallWeights
from genmix_transforms.files.checks import check_output_folder, check_seed
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.generators.processes import own_device
from genmix_transforms.generators.randomness import DataOrder, reseed, step_seed
from genmix_transforms.generators.settings import LARGEST_BATCH, LONGEST
from genmix_transforms.settings import Settings, option
from genmix_transforms.transforms import functional

_PROJECTION = 64


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings(Settings):
    """How :func:`pretrain_classifier` trains.

    Raises:
        InputError: a value out of its range; the message names it.
    """

    steps: int = option(1000, help="Optimizer steps.", least=1, most=LONGEST)
    batch_size: int = option(128, help="Images in a step, each seen in two views.", least=2, most=LARGEST_BATCH)
    learning_rate: float = option(
        2e-3, help="Peak learning rate of AdamW; it falls to 0 along a cosine.", above=0, most=10
    )
    weight_decay: float = option(1e-4, help="Weight decay of AdamW.", least=0, rare=True)
    temperature: float = option(
        0.2, help="Temperature: the similarities of two views are divided by it.", above=0, most=10, rare=True
    )
    least_area: float = option(0.3, help="The smallest crop, as a share of the image.", above=0, most=1, rare=True)
    grey_levels: float = option(
        0.4, help="How much the contrast and brightness of a view change, 0 to 1.", least=0, most=1, rare=True
    )


def pretrain_classifier(
    pool: PatchDataset,
    *,
    out: str | Path,
    seed: int = 0,
    device: str | torch.device | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> SmallWeights:
    """Train the small classifier on images without their labels, and save all but its last layer.

    The loss makes two views of each image (cropped, rotated, mirrored, with changed gray levels) more similar than
    views of different images of the batch.

    It takes minutes on two cores and writes nothing before its end, so a stopped run starts again.

    Args:
        pool: the images. It must not contain test images: otherwise ``genmix evaluate`` refuses the weights.
        out: the file to write, ``.safetensors``: ``Protocol(classifier="small", weights=out)`` takes it.
        seed: seed of the weights, the order of the images and the views.
        device: None: the GPU if available.
        overwrite: replace an existing file.
        progress: show a progress bar.
        **settings: of :class:`PretrainingSettings`: ``steps``, ``batch_size``, ...

    Returns:
        What was saved.

    Raises:
        InputError: too few or too small images, invalid settings, or a file with a different suffix.
        OverwriteError: the file exists.
        FloatingPointError: the loss is no longer finite.

    Source: SimCLR, Chen et al. (arXiv 2002.05709), with its NT-Xent loss (Eq. 1) and a projection of two layers, at
    the size of patches: AdamW for LARS, and a batch of 128.

    Example:
        >>> pixels = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8)
        >>> pool = PatchDataset(images=pixels, labels=torch.zeros(40, dtype=torch.int64), classes=("unlabelled",))
        >>> weights = pretrain_classifier(pool, out="small.safetensors", steps=2, batch_size=8, progress=False)
        >>> weights.shape
        (1, 16, 16)
    """
    chosen = PretrainingSettings.of(settings, name="pretrain_classifier")
    file = check_pretraining(out, seed=seed, overwrite=overwrite)
    refuse_volumes(pool)
    channels, height, width = pool.images.shape[1:]
    if len(pool) < 2 or min(height, width) < SMALLEST_SIZE:
        raise InputError(
            f"{pool.name}: the classifier 'small' is pre-trained on at least 2 images of at least {SMALLEST_SIZE} "
            f"pixels, got {len(pool)} of {height}x{width}"
        )
    where = own_device(device)
    normalisation = Normalisation.of(pool.images)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        network = _train(pool.images.to(where), normalisation, chosen, seed, progress=progress)
    weights = SmallWeights(
        tensors={name: tensor.cpu() for name, tensor in network.state_dict().items()},
        shape=(channels, height, width),
        mean=normalisation.mean,
        std=normalisation.std,
        training_set=pool.training_set(),
        made={"method": "SimCLR", "seed": seed, **chosen.to_json()},
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    weights.save(file)
    return weights


def check_pretraining(out: str | Path, *, seed: int, overwrite: bool) -> Path:
    """Check what can be checked before any data is read.

    Raises:
        InputError: a file of another suffix, or a seed that is none.
        OverwriteError: the file is there, and is not to be replaced.
    """
    file = Path(out)
    if file.suffix != ".safetensors":
        raise InputError(f"{file}: weights are saved as .safetensors; give such a name")
    check_seed(seed)
    check_output_folder(file.parent)
    if file.is_dir() or (file.exists() and not overwrite):
        raise OverwriteError(f"{file} is there already; give another name, or say that it may be replaced (overwrite)")
    return file


def _train(
    images: Tensor, normalisation: Normalisation, settings: PretrainingSettings, seed: int, *, progress: bool
) -> nn.Module:
    """The trained layers below the last one."""
    device = images.device
    reseed(step_seed(seed, rank=0, images_seen=0), device)
    *below, _ = SmallClassifier(channels=images.shape[1], classes=2)
    layers, width = nn.Sequential(*below), SMALL_WIDTHS[-1]
    head = nn.Sequential(
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, _PROJECTION),
    )
    network = nn.Sequential(layers, head).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    order, size = DataOrder(len(images), seed=seed), settings.batch_size
    scale, shift = normalisation.unit(images)
    with progress_bar(total=settings.steps, desc="pre-training", unit="step", disable=not progress) as bar:
        for step in range(settings.steps):
            index = order(step * size, (step + 1) * size).to(device)
            batch = functional.dequantise(images[index], scale, shift)
            reseed(step_seed(seed, rank=0, images_seen=(step + 1) * size), device)
            views = torch.cat([view(batch, settings), view(batch, settings)])
            loss = contrastive_loss(network(views), temperature=settings.temperature)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.update()
            if step % 50 == 0 or step == settings.steps - 1:  # it waits for the device
                if not bool(torch.isfinite(loss)):
                    raise FloatingPointError(f"pre-training: the loss is {loss.item()} at step {step + 1}")
                bar.set_postfix_str(f"loss {loss.item():.3f}")
    return layers.eval()


def contrastive_loss(projected: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent: each view should be closest to the other view of its image among all views of the batch.

    Args:
        projected: ``(2 N, D)``: the first views of N images, then their second ones.
        temperature: the cosine similarities are divided by it.

    Returns:
        The mean cross-entropy; log(2 N - 1) where nothing is alike.

    Source: Chen et al. (arXiv 2002.05709), Eq. (1).

    Example:
        >>> contrastive_loss(torch.eye(2).repeat(2, 1), temperature=0.01).item() < 1e-6
        True
    """
    unit = F.normalize(projected.float(), dim=1)
    similar = unit @ unit.T / temperature
    count = len(unit)
    similar = similar.masked_fill(torch.eye(count, dtype=torch.bool, device=unit.device), -math.inf)
    partner = torch.arange(count, device=unit.device).roll(count // 2)
    return F.cross_entropy(similar, partner)


def view(images: Tensor, settings: PretrainingSettings) -> Tensor:
    """Another look at normalized images ``(N, C, H, W)``: each cropped, turned, mirrored, its gray levels changed."""
    crop = Classical(strength=1.0, least_area=settings.least_area)
    count, most = len(images), settings.grey_levels
    contrast, brightness = (2 * torch.rand(2, count, 1, 1, 1, device=images.device) - 1) * most
    looked: Tensor = crop(images) * contrast.exp() + brightness
    return looked
