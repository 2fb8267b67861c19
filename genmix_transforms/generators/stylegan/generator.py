"""The StyleGAN generator: sizes up to 1024 pixels, one class or several in one network."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.generators.arguments import check_labels_and_seeds
from genmix_transforms.generators.augmentation import POLICIES
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.folder import check_free
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.randomness import noise
from genmix_transforms.generators.stylegan.checks import (
    RESOLUTIONS,
    check_classes,
    check_network,
    check_truncation,
)
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.fitting import TrainingSettings, fit_stylegan
from genmix_transforms.generators.stylegan.layers import EPSILON, initialise
from genmix_transforms.generators.stylegan.network import StyleGANNetwork

log = logging.getLogger(__name__)

MINIBATCH_GROUP = 4

DISCRIMINATOR = "discriminator.safetensors"


class StyleGAN(Generator):
    """Style-based GAN, the first version.

    With one class it is unconditional; with several, one network learns them all. The paper on GenMix trains one
    network for each class: that is :class:`genmix_transforms.generators.PerClass`.

    Args:
        classes: the class names.
        resolution: side of the images in pixels, from 9 to 1024. The networks work at powers of two from 16; images of
            another size are padded to the next by mirroring, and cropped back when they are drawn.
        channels: of the images: 1 for grey, 3 for colour, any other number for stacks.
        fmap_base: channels at a resolution are ``2 * fmap_base / side``; 8192 in the paper, less for small machines.
        fmap_max: the most channels; 512 in the paper.
        latent_size: numbers in z and w; 512 in the paper.
        mapping_layers: dense layers of the mapping network; 8 in the paper.
        conditioning: how the class reaches the mapping network: "multiply" the latent by a vector of the class, or
            "concatenate" both, as in NVIDIA's network. Nothing with one class.
        psi: truncation of what :meth:`sample` draws: w is pulled towards the class's mean; 1 for none, 0 for the mean
            image alone. Training knows no truncation.
        cutoff: how many layers are truncated, from the coarsest; 8 as published, None for all.
        bits: 8 or 16 a pixel.
        blurred_bias: for converted weights of a port whose doubling layers add a bias before the blur.
        norm_epsilon: of the instance norms, 1e-8 as published; for converted weights of ports, which have 1e-5.

    Attributes:
        discriminator: one that came with converted weights, for fine-tuning; None without.

    Raises:
        InputError: values that make no network.

    Source: Karras, Laine, Aila (arXiv 1812.04948).

    Example:
        >>> generator = StyleGAN(classes=["cyst", "metastasis"], resolution=16, fmap_base=64, latent_size=16)
        >>> generator.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
    """

    kind = "stylegan"

    def __init__(
        self,
        *,
        classes: Sequence[str],
        resolution: int = 64,
        channels: int = 1,
        fmap_base: int = 8192,
        fmap_max: int = 512,
        latent_size: int = 512,
        mapping_layers: int = 8,
        conditioning: str = "multiply",
        psi: float = 0.7,
        cutoff: int | None = 8,
        bits: int = 8,
        blurred_bias: bool = False,
        norm_epsilon: float = EPSILON,
    ) -> None:
        classes = check_classes(classes)
        check_network(
            resolution=resolution,
            conditioning=conditioning,
            bits=bits,
            norm_epsilon=norm_epsilon,
            channels=channels,
            fmap_base=fmap_base,
            fmap_max=fmap_max,
            latent_size=latent_size,
            mapping_layers=mapping_layers,
        )
        self.psi, self.cutoff = check_truncation(psi, cutoff)
        self.classes = classes
        self.image_shape = (channels, resolution, resolution)
        self.pixel_dtype = torch.uint8 if bits == 8 else torch.uint16
        self.fmap_base = fmap_base
        self.fmap_max = fmap_max
        self.conditioning = conditioning
        self.provenance: dict[str, Any] = {}
        self.blurred_bias = bool(blurred_bias)
        self.norm_epsilon = float(norm_epsilon)
        self.discriminator: StyleGANDiscriminator | None = None
        self._network = StyleGANNetwork(
            resolution=self.network_resolution,
            channels=channels,
            classes=len(classes),
            latent_size=latent_size,
            mapping_layers=mapping_layers,
            fmap_base=fmap_base,
            fmap_max=fmap_max,
            conditioning=conditioning,
            blurred_bias=self.blurred_bias,
            norm_epsilon=self.norm_epsilon,
        ).eval()
        initialise(self._network, seed=0)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "classes": list(self.classes),
            "resolution": self.image_shape[1],
            "channels": self.image_shape[0],
            "fmap_base": self.fmap_base,
            "fmap_max": self.fmap_max,
            "latent_size": self._network.latent_size,
            "mapping_layers": len(self._network.mapping.layers),
            "conditioning": self.conditioning,
            "psi": self.psi,
            "cutoff": self.cutoff,
            "bits": 8 if self.pixel_dtype == torch.uint8 else 16,
            "blurred_bias": self.blurred_bias,
            "norm_epsilon": self.norm_epsilon,
        }

    @classmethod
    def from_checkpoint(cls, file: str | Path, **options: Any) -> "StyleGAN":
        """Read weights trained elsewhere: :func:`genmix_transforms.generators.stylegan.convert_stylegan`."""
        from genmix_transforms.generators.stylegan.checkpoint import convert_stylegan

        return convert_stylegan(file, **options)

    @property
    def network(self) -> StyleGANNetwork:
        """Latents ``(N, latent_size)``, labels ``(N,)`` and noise to images ``(N, C, side, side)``, about [-1, 1].

        ``side`` is :attr:`network_resolution`.
        """
        network: StyleGANNetwork = self._network
        return network

    @property
    def network_resolution(self) -> int:
        """The side of the images within the networks: a power of two, at least that of the images."""
        return next(side for side in RESOLUTIONS if side >= self.image_shape[1])

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels that the networks' images have beyond ours: left (and on top), right (and below)."""
        missing = self.network_resolution - self.image_shape[1]
        return missing // 2, missing - missing // 2

    def with_network(self, network: torch.nn.Module) -> "StyleGAN":
        """The same StyleGAN with other weights: it shares ``network``, and has a provenance of its own."""
        other = copy.copy(self)
        other._network = network
        other.discriminator = None
        other.provenance = dict(self.provenance)
        return other

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as :meth:`Generator.save_pretrained` does, and the discriminator, where there is one, beside it."""
        beside = Path(folder) / DISCRIMINATOR
        check_free(Path(folder), overwrite=overwrite)
        beside.unlink(missing_ok=True)
        super().save_pretrained(folder, overwrite=overwrite)
        if self.discriminator is not None:
            write_tensors(beside, self.discriminator.state_dict())

    @classmethod
    def _from_folder(cls, folder: Path, config: dict[str, Any]) -> "StyleGAN":
        generator = super()._from_folder(folder, config)
        if (folder / DISCRIMINATOR).exists():
            generator.discriminator = generator.new_discriminator()
            try:
                generator.discriminator.load_state_dict(safetensors.torch.load_file(folder / DISCRIMINATOR))
            except (safetensors.SafetensorError, RuntimeError) as error:
                raise InputError(f"{folder / DISCRIMINATOR}: not this generator's discriminator ({error})") from error
        return generator

    def new_discriminator(self, *, minibatch_group: int = MINIBATCH_GROUP) -> StyleGANDiscriminator:
        """A discriminator of this StyleGAN's sizes, all zeros."""
        return StyleGANDiscriminator(
            resolution=self.network_resolution,
            channels=self.image_shape[0],
            classes=len(self.classes),
            fmap_base=self.fmap_base,
            fmap_max=self.fmap_max,
            minibatch_group=minibatch_group,
        )

    def truncated(self, *, psi: float, cutoff: int | None = None) -> "StyleGAN":
        """The same StyleGAN drawing with another truncation; see the class's arguments."""
        other = self.with_network(self._network)
        other.discriminator = self.discriminator
        other.psi, other.cutoff = check_truncation(psi, cutoff)
        return other

    def sample(self, labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images; see :meth:`Generator.sample`. Latent and noise of an image both follow from its seed."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes)
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        for start in range(0, len(labels), self._chunk):  # w of a whole bank of 1024 pixels need not be there at once
            some = slice(start, start + self._chunk)
            images[some] = self.paint(self.styles(labels[some], seeds[some]), seeds[some])
        return images

    @torch.no_grad()
    def styles(self, labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int]) -> Tensor:
        """The truncated w of images: one vector for each layer.

        Args:
            labels: ``(n,)``.
            seeds: ``(n,)``.

        Returns:
            float32 ``(n, layers, latent_size)``, on the CPU; ``layers`` is two for each resolution from 4 pixels on.
        """
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes)
        network = self._network.eval()
        styles = torch.empty(len(labels), network.layer_count, network.latent_size)
        for start in range(0, len(labels), self._chunk):
            some = slice(start, min(start + self._chunk, len(labels)))
            latents = noise(seeds[some].tolist(), (network.latent_size,))
            latents, own = self._whole(latents), self._whole(labels[some])
            own = own.to(self.device)
            w = network.broadcast(network.mapping(latents.to(self.device), own))
            w = network.truncate(w, own, psi=self.psi, cutoff=self.cutoff)
            styles[some] = w[: some.stop - start].cpu()
        return styles

    @torch.no_grad()
    def paint(self, styles: Tensor, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images from styles, which may be mixed or moved.

        Args:
            styles: float32 ``(n, layers, latent_size)``, as :meth:`styles` gives them.
            seeds: ``(n,)``, of the noise.

        Returns:
            ``(n, C, H, W)`` of ``pixel_dtype``, on the CPU.

        Raises:
            InputError: another number of layers, or of seeds than styles.
        """
        network = self._network.eval()
        _, seeds = check_labels_and_seeds(torch.zeros(len(styles), dtype=torch.int64), seeds, classes=self.classes)
        if styles.shape[1:] != (network.layer_count, network.latent_size):
            raise InputError(
                f"paint: styles must be (n, {network.layer_count}, {network.latent_size}), got {tuple(styles.shape)}"
            )
        images = torch.empty(len(styles), *self.image_shape, dtype=self.pixel_dtype)
        before, size = self.padding[0], self.image_shape[1]
        inside = slice(before, before + size)
        for start in range(0, len(styles), self._chunk):
            some = slice(start, min(start + self._chunk, len(styles)))
            own = seeds[some].tolist()
            maps = [
                self._whole(noise(own, (1, side, side), stream=1 + layer)).to(self.device)
                for layer, side in enumerate(network.noise_sides(float(network.growth)))
            ]
            values = network.paint(self._whole(styles[some]).to(self.device), noise=maps)
            values = values[: some.stop - start, :, inside, inside]
            images[some] = to_pixels(values, self.pixel_dtype).cpu()
        return images

    def fit(
        self,
        dataset: PatchDataset,
        *,
        out: str | Path,
        preset: str = "stylegan",
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        gamma: float | None = None,
        r1_interval: int = 1,
        style_mixing: float = 0.9,
        start_resolution: int | None = None,
        growing_share: float | None = None,
        minibatch_group: int = MINIBATCH_GROUP,
        augment: Sequence[str] = POLICIES,
        augment_target: float | None = None,
        augment_ramp: float = 100_000,
        mirror: bool = False,
        ema_half_life: float = 10_000,
        checkpoint_every: int = 20_000,
        mixed_precision: str = "no",
        compiled: bool = False,
        seed: int = 0,
        warm_start: bool = False,
        restart: bool = False,
        device: str | torch.device | None = None,
        progress: bool = True,
        **unknown: Any,
    ) -> "StyleGAN":
        """Train on real patches. Run again with the same arguments, it goes on where it stopped: on the CPU, exactly.

        The weights are drawn with ``seed``, unless ``warm_start`` says to go on from those it has. The networks grow
        from ``start_resolution`` on; the phases follow from the budget (:class:`GrowingSchedule`). A run whose
        ``steps`` are raised later keeps the phases it began with.

        Args:
            dataset: the training set; its classes, size and channels are this StyleGAN's.
            out: the run's folder; ``load_generator`` takes it, during the training too.
            preset: "stylegan" (20,000 steps of 32) or "paper" (Lee et al.: 70,000 steps of 8; R1 as published).
            steps: optimiser steps of each network; None: the preset's.
            batch_size: images in a step, all processes together; None: the preset's.
            learning_rate: of Adam up to 64 pixels (1.5 times at 128, 2 at 256, 3 above); None: the preset's.
            gamma: weight of R1, 10 as published; None: the preset's, or from resolution and batch.
            r1_interval: steps between R1 penalties, 1 as published; with 16 the training is faster and learns alike.
            style_mixing: probability that an image has the styles of two latents of its class.
            start_resolution: side in pixels at which the growing starts; None: 8 as published, or with
                ``warm_start`` where the weights stand. The full one means no growing.
            growing_share: part of the run after which the networks are fully grown; None: all phases equally long.
            minibatch_group: images over which the discriminator takes the minibatch deviation; the batch is a multiple.
            augment: the DiffAugment policy; () turns it off, which small sets do not survive.
            augment_target: mean sign of the real images' logits that the probability of an augmentation is to hold
                (0.6 in the literature); None: always augment.
            augment_ramp: images in which that probability could go from 0 to 1.
            mirror: show real images mirrored half of the time: only where left and right mean nothing.
            ema_half_life: of the averaged weights, in images.
            checkpoint_every: images between checkpoints and sample sheets.
            mixed_precision: "no" or "bf16" (R1 and the mapping network stay in float32).
            compiled: use ``torch.compile``.
            seed: of the weights, the data order and the noise.
            warm_start: start from the weights that this StyleGAN has: fine-tuning. The discriminator is new, unless
                one came with converted weights.
            restart: throw away an earlier run in ``out``.
            device: where to train; None: CUDA where there is one. Several processes each get their own.
            progress: show a bar.
            **unknown: nothing; an unknown option is an error that names it.

        Raises:
            InputError: data or options that do not fit; before any work.
            FloatingPointError: the training diverged.
        """
        if unknown:
            raise InputError(f"StyleGAN.fit: no such option: {', '.join(unknown)}")
        settings = TrainingSettings.of(
            preset=preset,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            gamma=gamma,
            r1_interval=r1_interval,
            style_mixing=style_mixing,
            start_resolution=start_resolution,
            growing_share=growing_share,
            minibatch_group=minibatch_group,
            augment=augment,
            augment_target=augment_target,
            augment_ramp=augment_ramp,
            mirror=mirror,
            ema_half_life=ema_half_life,
        )
        # What is sampled from is the average; the weights under training have done their work.
        self._network = fit_stylegan(
            self,
            dataset,
            out=out,
            settings=settings,
            checkpoint_every=checkpoint_every,
            mixed_precision=mixed_precision,
            compiled=compiled,
            seed=seed,
            warm_start=warm_start,
            restart=restart,
            device=device,
            progress=progress,
        )
        self.discriminator = None  # it belonged to the weights that the training started from
        self.provenance = StyleGAN.from_pretrained(out).provenance
        return self

    @property
    def _chunk(self) -> int:
        """Images of one pass through the network when sampling.

        Always whole chunks: convolutions of another batch size may round otherwise, and then an image would depend on
        who was drawn with it. Fewer of large images, to spare memory.
        """
        return min(32, max(1, 32 * 64**2 // self.network_resolution**2))

    def _whole(self, rows: Tensor) -> Tensor:
        """Rows, filled up with zeros to a whole chunk."""
        whole = rows.new_zeros(self._chunk, *rows.shape[1:])
        whole[: len(rows)] = rows
        return whole
