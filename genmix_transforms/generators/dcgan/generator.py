"""The DCGAN generator: images or volumes of any power-of-two size from 16 to 256, one class or several in a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.adversarial_generator import AdversarialGenerator
from genmix_transforms.generators.arguments import (
    Labels,
    check_bits,
    check_class_names,
    check_labels_and_seeds,
    refuse_fixed,
)
from genmix_transforms.generators.batches import whole_batches
from genmix_transforms.generators.dcgan.network import (
    LAYERS,
    DCGANDiscriminator,
    DCGANNetwork,
    Dimensions,
    adapt_classes,
    adapt_scores,
    initialise,
)
from genmix_transforms.generators.dcgan.settings import DCGANNetworkSettings, DCGANSettings
from genmix_transforms.generators.dcgan.training import DCGANTraining
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.settings import Settings

RESOLUTIONS = (16, 32, 64, 128, 256)

CHUNK = 32
"""Images of one pass through the network when sampling.

Always whole chunks: convolutions of another batch size may round otherwise, and then an image would depend on who was
drawn with it."""

VOLUME_CHUNK = 8
"""Volumes of one pass: each takes as much memory as a stack of images."""


class DCGAN(AdversarialGenerator):
    """Deep convolutional GAN.

    With one class it is unconditional. With several, one network learns all classes, with a learned vector per class as
    input. To train one network per class, as the paper does, use :class:`genmix_transforms.generators.PerClass`.

    Args:
        classes: the class names.
        resolution: side of the images in pixels: 16, 32, 64, 128 or 256.
        channels: channels of the images: 1 for gray, 3 for color, any other number for stacks.
        bits: bits per pixel, 8 or 16.
        dimensions: 2 for images ``(C, H, W)``, 3 for volumes ``(C, D, H, W)``, which are cubes.
        **network: fields of :class:`DCGANNetworkSettings`: ``base_width`` and ``latent_size``.

    Raises:
        InputError: a size that is not a power of two from 16 to 256, or other invalid values.

    Source: Radford, Metz, Chintala (arXiv 1511.06434).

    Example:
        >>> generator = DCGAN(classes=["cyst", "metastasis"], resolution=16, base_width=4)
        >>> generator.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
        >>> volumes = DCGAN(classes=["cyst", "metastasis"], resolution=16, base_width=4, dimensions=3)
        >>> volumes.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16, 16])
    """

    kind = "dcgan"
    network_settings: ClassVar[type[Settings]] = DCGANNetworkSettings
    training_settings: ClassVar[type[TrainingSettings]] = DCGANSettings
    trains_per_class = True
    draws_volumes = True
    refuses_soft_labels: ClassVar[str | None] = None
    command_help: ClassVar[str | None] = (
        "images or volumes of sides 16, 32, 64, 128 and 256; class-conditional, or with --per-class a network for each "
        "class"
    )
    settings: DCGANNetworkSettings
    _network: DCGANNetwork
    discriminator: DCGANDiscriminator | None

    def __init__(
        self,
        *,
        classes: Sequence[str],
        resolution: int = 64,
        channels: int = 1,
        bits: int = 8,
        dimensions: Dimensions = 2,
        **network: Any,
    ) -> None:
        if resolution not in RESOLUTIONS:
            whole_number(resolution, name="DCGAN: resolution", least=1)
            larger = next((size for size in RESOLUTIONS if size >= resolution), RESOLUTIONS[-1])
            raise InputError(
                f"DCGAN: the size must be a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}, got {resolution}; "
                f"bring the images to {larger} pixels (--size {larger}, with --fit pad to pad them instead of resizing)"
            )
        self.settings = DCGANNetworkSettings.of(network, name="DCGAN")
        whole_number(channels, name="DCGAN: channels", least=1)
        if dimensions not in LAYERS:
            raise InputError(f"DCGAN: dimensions must be 2 for images or 3 for volumes, got {dimensions!r}")
        self.classes: tuple[str, ...] = check_class_names(classes, name="DCGAN")
        self.image_shape: tuple[int, ...] = (channels, *[resolution] * dimensions)
        self.pixel_dtype: torch.dtype = check_bits(bits, name="DCGAN")
        self.provenance: dict[str, Any] = {}
        self._network = DCGANNetwork(
            resolution=resolution,
            channels=channels,
            classes=len(classes),
            dimensions=dimensions,
            **self.settings.to_json(),
        ).eval()
        initialise(self._network, seed=0)

    @property
    def dimensions(self) -> Dimensions:
        """2 for images, 3 for volumes."""
        return self._network.dimensions

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; :attr:`dimensions` of volumes alone, as earlier releases do not know it."""
        return {**super().config, **({} if self.dimensions == 2 else {"dimensions": self.dimensions})}

    @property
    def base_width(self) -> int:
        """Channels of the networks at half resolution."""
        return self.settings.base_width

    @property
    def latent_size(self) -> int:
        """Numbers in a latent."""
        return self.settings.latent_size

    @property
    def network(self) -> DCGANNetwork:
        """Latents ``(N, latent_size)`` and labels ``(N,)`` to images or volumes in [-1, 1]."""
        return self._network

    @property
    def sample_batch(self) -> int:
        """Images in one pass through the network."""
        return CHUNK if self.dimensions == 2 else VOLUME_CHUNK

    @torch.no_grad()
    def sample(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images; see :meth:`Generator.sample`."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes, refuses_rows=None)
        self._network.eval()
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        for here, some, latents, _ in whole_batches(labels, seeds, self.sample_batch, (self.latent_size,)):
            values = self._network(latents.to(self.device), some.to(self.device))[: here.stop - here.start]
            images[here] = to_pixels(values, self.pixel_dtype).cpu()
        return images

    def made_for(self, patches: PatchDataset, *, source: str | Path = "the weights", **options: Any) -> Self:
        """Give it a dataset's classes: see :func:`adapt_classes` and :meth:`Generator.made_for`."""
        refuse_fixed(source, options, self.config)
        if patches.classes == self.classes:
            self.check_trainable_on(patches)
            return self
        other = type(self)(**{**self.config, "classes": patches.classes})
        other.check_trainable_on(patches)
        names = {"new_classes": other.classes, "old_classes": self.classes}
        adapt_classes(other._network, self._network, **names)
        if self.discriminator is not None:
            other.discriminator = other.new_discriminator()
            adapt_scores(other.discriminator, self.discriminator, **names)
        other.provenance = {**self.provenance, "adapted_from": {"classes": list(self.classes)}}
        return other

    def make_trainee(
        self, settings: DCGANSettings, dataset: PatchDataset, *, seed: int, warm_start: bool, processes: Processes
    ) -> DCGANTraining:
        """Put the networks and their optimizers together.

        A warm start goes on with the discriminator too, where there is one.
        """
        discriminator = self.new_discriminator()
        if warm_start and self.discriminator is not None:
            discriminator.load_state_dict(self.discriminator.state_dict())
        else:
            initialise(discriminator, seed=seed + 1)
        if not warm_start:
            initialise(self._network, seed=seed)
        self.to(processes.device)
        return DCGANTraining(self._network, discriminator.to(processes.device), settings=settings)

    def new_discriminator(self) -> DCGANDiscriminator:
        """A discriminator of this DCGAN's sizes."""
        return DCGANDiscriminator(
            resolution=self.image_shape[1],
            channels=self.image_shape[0],
            classes=len(self.classes),
            base_width=self.settings.base_width,
            dimensions=self.dimensions,
        )
