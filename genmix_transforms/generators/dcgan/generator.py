"""The DCGAN generator: any power-of-two size from 16 to 256, one class or several in one network."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.generators.augmentation import POLICIES, check_policy
from genmix_transforms.generators.base import Generator, check_labels_and_seeds
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator, DCGANNetwork, initialise
from genmix_transforms.generators.dcgan.training import PRESETS, DCGANTraining
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.randomness import noise
from genmix_transforms.generators.training import train

RESOLUTIONS = (16, 32, 64, 128, 256)

CHUNK = 32
"""Images of one pass through the network when sampling.

Always whole chunks: convolutions of another batch size may round otherwise, and then an image would depend on who was
drawn with it."""


class DCGAN(Generator):
    """Deep convolutional GAN.

    With one class it is unconditional; with several, one network learns them all, told the class by a learned vector.
    The paper trains one network for each class: that is :class:`genmix_transforms.generators.PerClass`.

    Args:
        classes: the class names.
        resolution: side of the images in pixels: 16, 32, 64, 128 or 256.
        channels: of the images: 1 for grey, 3 for colour, any other number for stacks.
        base_width: channels of the networks at half resolution; 64 in the paper, less for small machines.
        latent_size: numbers in a latent; 100 in the paper.
        bits: 8 or 16 a pixel.

    Raises:
        InputError: a size that is not a power of two from 16 to 256, or other values that make no network.

    Source: Radford, Metz, Chintala (arXiv 1511.06434).

    Example:
        >>> generator = DCGAN(classes=["cyst", "metastasis"], resolution=16, base_width=4)
        >>> generator.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
    """

    kind = "dcgan"

    def __init__(
        self,
        *,
        classes: Sequence[str],
        resolution: int = 64,
        channels: int = 1,
        base_width: int = 64,
        latent_size: int = 100,
        bits: int = 8,
    ) -> None:
        if resolution not in RESOLUTIONS:
            whole_number(resolution, name="DCGAN: resolution", least=1)
            larger = next((size for size in RESOLUTIONS if size >= resolution), RESOLUTIONS[-1])
            raise InputError(
                f"DCGAN: the size must be a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}, got {resolution}; "
                f"bring the images to {larger} pixels (--size {larger}, with --fit pad to pad them instead of resizing)"
            )
        if isinstance(classes, str):
            raise InputError(f"DCGAN: classes must be different names, in a list; got the text {classes!r}")
        classes = tuple(classes)
        if not all(isinstance(name, str) for name in classes):
            raise InputError(f"DCGAN: classes must be names, got {classes!r}")
        if not classes or len(set(classes)) != len(classes):
            raise InputError(f"DCGAN: classes must be different names, at least one, got {classes!r}")
        for name, value in (("channels", channels), ("base_width", base_width), ("latent_size", latent_size)):
            whole_number(value, name=f"DCGAN: {name}", least=1)
        if bits not in (8, 16):
            raise InputError(f"DCGAN: bits must be 8 or 16, got {bits}")
        self.classes = classes
        self.image_shape = (channels, resolution, resolution)
        self.pixel_dtype = torch.uint8 if bits == 8 else torch.uint16
        self.base_width = base_width
        self.latent_size = latent_size
        self.provenance: dict[str, Any] = {}
        self._network = DCGANNetwork(
            resolution=resolution,
            channels=channels,
            classes=len(classes),
            latent_size=latent_size,
            base_width=base_width,
        ).eval()
        initialise(self._network, seed=0)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "classes": list(self.classes),
            "resolution": self.image_shape[1],
            "channels": self.image_shape[0],
            "base_width": self.base_width,
            "latent_size": self.latent_size,
            "bits": 8 if self.pixel_dtype == torch.uint8 else 16,
        }

    @property
    def network(self) -> DCGANNetwork:
        """Latents ``(N, latent_size)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        return self._network

    def with_network(self, network: torch.nn.Module) -> "DCGAN":
        """The same DCGAN with other weights: it shares ``network``, and has a provenance of its own."""
        other = copy.copy(self)
        other._network = network  # type: ignore[assignment]
        other.provenance = dict(self.provenance)
        return other

    @property
    def sample_batch(self) -> int:
        """Images in one pass through the network."""
        return CHUNK

    @torch.no_grad()
    def sample(self, labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images; see :meth:`Generator.sample`."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes)
        self._network.eval()
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        for start in range(0, len(labels), CHUNK):
            some = slice(start, min(start + CHUNK, len(labels)))
            latents = torch.zeros(CHUNK, self.latent_size)
            classes = torch.zeros(CHUNK, dtype=torch.int64)
            here = some.stop - start
            latents[:here] = noise(seeds[some].tolist(), (self.latent_size,))
            classes[:here] = labels[some]
            values = self._network(latents.to(self.device), classes.to(self.device))[:here]
            images[some] = to_pixels(values, self.pixel_dtype).cpu()
        return images

    def fit(
        self,
        dataset: PatchDataset,
        *,
        out: str | Path,
        preset: str = "dcgan",
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
        augment: Sequence[str] = POLICIES,
        ema_half_life: float = 10_000,
        checkpoint_every: int = 20_000,
        mixed_precision: str = "no",
        seed: int = 0,
        warm_start: bool = False,
        restart: bool = False,
        device: str | torch.device | None = None,
        progress: bool = True,
        **unknown: Any,
    ) -> "DCGAN":
        """Train on real patches. Run again with the same arguments, it goes on where it stopped: on the CPU, exactly.

        The weights are drawn with ``seed``, unless ``warm_start`` says to go on from those it has.

        Args:
            dataset: the training set; its classes, size and channels are this DCGAN's.
            out: the run's folder; ``load_generator`` takes it, during the training too.
            preset: "dcgan" (Radford et al.'s learning rate) or "paper" (Lee et al.: 70,000 steps of 8 at 0.001).
            steps: optimiser steps; None: the preset's.
            batch_size: images in a step, all processes together; None: the preset's.
            learning_rate: of Adam; None: the preset's.
            betas: of Adam.
            augment: the DiffAugment policy; () turns it off, which small sets do not survive.
            ema_half_life: of the averaged weights, in images.
            checkpoint_every: images between checkpoints and sample sheets.
            mixed_precision: "no" or "bf16".
            seed: of the weights, the data order and the noise.
            warm_start: start from the weights that this DCGAN has: fine-tuning. The discriminator is new all the same.
            restart: throw away an earlier run in ``out``.
            device: where to train; None: CUDA where there is one. Several processes each get their own.
            progress: show a bar.
            **unknown: nothing; an unknown option is an error that names it.

        Raises:
            InputError: data or options that do not fit; before any work.
            FloatingPointError: the training diverged.
        """
        if unknown:
            raise InputError(f"DCGAN.fit: no such option: {', '.join(unknown)}")
        if preset not in PRESETS:
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        schedule = PRESETS[preset]
        learning_rate = schedule.learning_rate if learning_rate is None else learning_rate
        for name, value in (("learning_rate", learning_rate), ("ema_half_life", ema_half_life)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be positive, got {value}")
        seed = check_seed(seed)
        augment = check_policy(augment)
        self.check_trainable_on(dataset)
        processes = Processes.join(device)

        discriminator = DCGANDiscriminator(
            resolution=self.image_shape[1],
            channels=self.image_shape[0],
            classes=len(self.classes),
            base_width=self.base_width,
        )
        initialise(discriminator, seed=seed + 1)
        started_from = {"weights": self.weights_hash, **self.provenance} if warm_start else None
        if not warm_start:
            initialise(self._network, seed=seed)
        self.to(processes.device)
        training = DCGANTraining(
            self,
            discriminator.to(processes.device),
            learning_rate=learning_rate,
            betas=betas,
            augment=augment,
            ema_half_life=ema_half_life,
        )
        train(
            training,
            dataset,
            out=out,
            steps=schedule.steps if steps is None else steps,
            batch_size=schedule.batch_size if batch_size is None else batch_size,
            seed=seed,
            options={
                "kind": self.kind,
                "config": self.config,
                "learning_rate": learning_rate,
                "betas": list(betas),
                "augment": list(augment),
                "ema_half_life": ema_half_life,
                **({"started_from": started_from["weights"]} if started_from else {}),
            },
            checkpoint_every=checkpoint_every,
            mixed_precision=mixed_precision,
            restart=restart,
            progress=progress,
            processes=processes,
            started_from=started_from,
        )
        # What is sampled from is the average; the weights under training have done their work.
        trained = training.snapshot()
        self._network = trained.network
        self.provenance = DCGAN.from_pretrained(out).provenance
        return self
