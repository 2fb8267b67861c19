"""The StyleGAN generator: sizes up to 1024 pixels, one class or several in one network."""

import logging
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

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
    shape_of,
)
from genmix_transforms.generators.batches import whole_batches
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.randomness import noise
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.stylegan.adapting import adapt_discriminator, adapt_network
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.schedule import resolution_at
from genmix_transforms.generators.stylegan.settings import (
    RESOLUTIONS,
    SMALLEST_IMAGE,
    StyleGANNetworkSettings,
    StyleGANSettings,
)
from genmix_transforms.generators.stylegan.training import StyleGANTraining
from genmix_transforms.settings import Settings

log: logging.Logger = logging.getLogger(__name__)

DRAWING = ("psi", "cutoff")
"""Settings that change what is drawn, and not what is trained."""


class StyleGAN(AdversarialGenerator):
    """Style-based GAN, the first version.

    With one class it is unconditional; with several, one network learns them all. The paper on GenMix trains one
    network for each class: that is :class:`genmix_transforms.generators.PerClass`.

    Args:
        classes: the class names.
        resolution: side of the images in pixels, from 9 to 1024. The networks work at powers of two from 16; images of
            another size are padded to the next by mirroring, and cropped back when they are drawn.
        channels: of the images: 1 for gray, 3 for color, any other number for stacks.
        bits: 8 or 16 a pixel.
        **network: fields of :class:`StyleGANNetworkSettings`, such as ``fmap_base`` or ``psi``.

    Attributes:
        settings: the network's settings.
        discriminator: what it was trained with, or what came with converted weights, for fine-tuning; None without.

    Raises:
        InputError: values that make no network.

    Source: Karras, Laine, Aila (arXiv 1812.04948).

    Example:
        >>> generator = StyleGAN(classes=["cyst", "metastasis"], resolution=16, fmap_base=64, latent_size=16)
        >>> generator.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
    """

    kind = "stylegan"
    network_settings: ClassVar[type[Settings]] = StyleGANNetworkSettings
    training_settings: ClassVar[type[TrainingSettings]] = StyleGANSettings
    trains_per_class = True
    refuses_soft_labels: ClassVar[str | None] = None
    command_help: ClassVar[str | None] = (
        "sizes 9 to 1024, growing from 8 pixels on; class-conditional, or with --per-class a network for each class"
    )
    settings: StyleGANNetworkSettings
    discriminator: StyleGANDiscriminator | None
    _network: StyleGANNetwork

    def __init__(
        self, *, classes: Sequence[str], resolution: int = 64, channels: int = 1, bits: int = 8, **network: Any
    ) -> None:
        whole_number(resolution, name="StyleGAN: resolution", least=SMALLEST_IMAGE, most=RESOLUTIONS[-1])
        whole_number(channels, name="StyleGAN: channels", least=1)
        self.settings = StyleGANNetworkSettings.of(network, name="StyleGAN")
        self.classes: tuple[str, ...] = check_class_names(classes, name="StyleGAN")
        self.image_shape: tuple[int, int, int] = (channels, resolution, resolution)
        self.pixel_dtype: torch.dtype = check_bits(bits, name="StyleGAN")
        self.provenance: dict[str, Any] = {}
        self._network = StyleGANNetwork(self.settings, **self._sizes).eval()
        initialise(self._network, seed=0)

    @property
    def psi(self) -> float:
        """Truncation of what is drawn: 1 for none, 0 for the class's mean image."""
        return self.settings.psi

    @property
    def cutoff(self) -> int | None:
        """How many layers are truncated, from the coarsest; None: all."""
        return self.settings.cutoff

    @classmethod
    def from_checkpoint(cls, file: str | Path, **options: Any) -> "StyleGAN":
        """Deprecated; use :func:`genmix_transforms.generators.stylegan.convert_stylegan`."""
        warnings.warn("StyleGAN.from_checkpoint is now convert_stylegan", DeprecationWarning, stacklevel=2)
        converted: StyleGAN = import_module(__package__).convert_stylegan(file, **options)
        return converted

    def made_for(self, patches: PatchDataset, *, source: str | Path = "the weights", **options: Any) -> Self:
        """:func:`adapt_stylegan` to a dataset's classes and kind of image; see :meth:`Generator.made_for`.

        Args:
            patches: what it will be trained on.
            source: what to call the weights in messages.
            **options: of the constructor. ``psi`` and ``cutoff`` replace those of the weights, which fix all others.

        Raises:
            InputError: weights that cannot be adapted to the patches, or that fix an option otherwise.
        """
        asked = StyleGANNetworkSettings.of(options, name="StyleGAN")
        generator = adapt_stylegan(self, classes=patches.classes, **shape_of(patches, painter="StyleGAN"))
        given = {name: getattr(asked, name) for name in options}
        drawing = {name: given.pop(name) for name in DRAWING if name in given}
        refuse_fixed(source, given, generator.config)
        return generator.truncated(**{"psi": generator.psi, "cutoff": generator.cutoff, **drawing})

    @property
    def network(self) -> StyleGANNetwork:
        """Latents ``(N, latent_size)``, labels ``(N,)`` and noise to images ``(N, C, side, side)``, about [-1, 1].

        ``side`` is :attr:`network_resolution`.
        """
        return self._network

    @property
    def network_resolution(self) -> int:
        """The side of the images within the networks: a power of two, at least that of the images."""
        return next(side for side in RESOLUTIONS if side >= self.image_shape[1])

    @property
    def _sizes(self) -> dict[str, int]:
        return {
            "resolution": self.network_resolution,
            "channels": self.image_shape[0],
            "classes": len(self.classes),
        }

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels that the networks' images have beyond ours: left (and on top), right (and below)."""
        missing = self.network_resolution - self.image_shape[1]
        return missing // 2, missing - missing // 2

    def new_discriminator(self, **options: Any) -> StyleGANDiscriminator:
        """A discriminator of this StyleGAN's sizes, all zeros; ``options`` may have ``minibatch_group``."""
        return StyleGANDiscriminator(self.settings, **self._sizes, **options)

    def truncated(self, *, psi: float, cutoff: int | None = None) -> Self:
        """The same StyleGAN drawing with another truncation, see :class:`StyleGANNetworkSettings`."""
        other = self.with_network(self._network)
        other.discriminator = self.discriminator
        changed = {**self.settings.to_json(), "psi": psi, "cutoff": cutoff}
        other.settings = StyleGANNetworkSettings.of(changed, name="StyleGAN")
        return other

    @property
    def sample_batch(self) -> int:
        """Images in one pass through the network.

        Always whole batches: convolutions of another batch size may round otherwise, and then an image would depend on
        who was drawn with it. Fewer of large images, to spare memory.
        """
        return min(32, max(1, 32 * 64**2 // self.network_resolution**2))

    def sample(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images; see :meth:`Generator.sample`. Latent and noise of an image both follow from its seed."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes, refuses_rows=None)
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        batch = self.sample_batch
        for start in range(0, len(labels), batch):  # w of a whole bank of 1024 pixels need not be there at once
            some = slice(start, start + batch)
            images[some] = self.paint(self.styles(labels[some], seeds[some]), seeds[some])
        return images

    @torch.no_grad()
    def styles(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """The truncated w of images: one vector for each layer.

        Args:
            labels: ``(n,)``, or soft labels ``(n, K)``.
            seeds: ``(n,)``.

        Returns:
            float32 ``(n, layers, latent_size)``, on the CPU; ``layers`` is two for each resolution from 4 pixels on.
        """
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes, refuses_rows=None)
        network, device = self._network.eval(), self.device
        styles = torch.empty(len(labels), network.layer_count, network.latent_size)
        for here, some, latents, _ in whole_batches(labels, seeds, self.sample_batch, (network.latent_size,)):
            own = some.to(device)
            w = network.broadcast(network.mapping(latents.to(device), own))
            w = network.truncate(w, own, psi=self.psi, cutoff=self.cutoff)
            styles[here] = w[: here.stop - here.start].cpu()
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
        _, seeds = check_labels_and_seeds(torch.zeros(len(styles), dtype=torch.int64), seeds, classes=self.classes)
        network, device, batch = self._network.eval(), self.device, self.sample_batch
        expected = (network.layer_count, network.latent_size)
        if styles.shape[1:] != expected:
            raise InputError(f"paint: styles must be (n, {expected[0]}, {expected[1]}), got {tuple(styles.shape)}")
        before = self.padding[0]
        inside = slice(before, before + self.image_shape[1])
        images = torch.empty(len(styles), *self.image_shape, dtype=self.pixel_dtype)
        for start in range(0, len(styles), batch):
            own = seeds[start : start + batch].tolist()
            here = slice(start, start + len(own))
            maps = [
                _whole(noise(own, (1, side, side), stream=1 + layer), batch).to(device)
                for layer, side in enumerate(network.noise_sides(float(network.growth)))
            ]
            values = network.paint(_whole(styles[here], batch).to(device), noise=maps)
            images[here] = to_pixels(values[: len(own), :, inside, inside], self.pixel_dtype).cpu()
        return images

    def training_identity(self) -> dict[str, Any]:
        """The configuration, but for what only drawing knows: a resumed run may truncate otherwise."""
        return {"config": {name: value for name, value in self.config.items() if name not in DRAWING}}

    def resolve(
        self, settings: StyleGANSettings, dataset: PatchDataset, *, warm_start: bool, processes: Processes
    ) -> StyleGANSettings:
        """Start growing at 8 pixels, or with a warm start where the weights stand; say what is padded."""
        full = self.network_resolution
        start = resolution_at(float(self._network.growth)) if warm_start else 8
        settings = settings.resolved(full=full, start=start, processes=processes.count)
        if any(self.padding):
            log.warning(
                "%s pixels are no power of two: trained at %s on mirrored borders, and cropped back when drawn",
                self.image_shape[1],
                full,
            )
        return settings

    def make_trainee(
        self, settings: StyleGANSettings, dataset: PatchDataset, *, seed: int, warm_start: bool, processes: Processes
    ) -> StyleGANTraining:
        """Put the networks together. The discriminator is new, unless one came with the weights of a warm start."""
        discriminator = self.new_discriminator(minibatch_group=settings.minibatch_group)
        if warm_start and self.discriminator is not None:
            discriminator.load_state_dict(self.discriminator.state_dict())
        else:
            initialise(discriminator, seed=seed + 1)
        if not warm_start:
            initialise(self._network, seed=seed)
        self.to(processes.device)
        return StyleGANTraining(
            self._network,
            discriminator.to(processes.device),
            settings=settings,
            padding=self.padding,
            gather=processes.gather,
        )

    def take_up(self, trained: Self) -> None:
        """Draw from now on as ``trained`` does, in the memory format of a network that was loaded."""
        super().take_up(trained)
        self._network.to(memory_format=torch.contiguous_format)


def _whole(rows: Tensor, batch: int) -> Tensor:
    """Rows, filled up with zeros to a whole batch."""
    return F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, batch - len(rows)))


Adapted = TypeVar("Adapted", bound=StyleGAN)


def adapt_stylegan(
    generator: Adapted,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
    bits: int | None = None,
    seed: int = 0,
) -> Adapted:
    """A StyleGAN for other images, that starts from the weights of this one.

    Args:
        generator: stays as it is.
        resolution: side of the images in pixels; None: as it is.
        channels: of the images; None: as it is.
        classes: class names; None: as they are.
        bits: 8 or 16 a pixel; None: as it is.
        seed: of the weights of blocks that this one does not have.

    Returns:
        A new StyleGAN, on the CPU; with a discriminator if this one has one.

    Raises:
        InputError: another number of classes than a class-conditional network knows, or a resolution at which the
            weights cannot make an image.

    Example:
        >>> grey = adapt_stylegan(StyleGAN(classes=["face"], resolution=32, channels=3, fmap_base=64, latent_size=16),
        ...                       resolution=16, channels=1, classes=["cyst", "metastasis"])
        >>> grey.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
    """
    config = generator.config
    asked = {"resolution": resolution, "channels": channels, "classes": classes, "bits": bits}
    config |= {name: value for name, value in asked.items() if value is not None}
    before = generator.classes
    if len(before) == 1 and len(config["classes"]) > 1:
        config["conditioning"] = "multiply"
    new = type(generator)(**config)
    if len(before) > 1 and len(new.classes) != len(before):
        raise InputError(
            f"the network knows {len(before)} classes ({', '.join(before)[:200]}), and was to be adapted to "
            f"{len(new.classes)} ({', '.join(new.classes)[:200]}): name as many, or take a network without classes"
        )
    smaller = min(new.network_resolution, generator.network_resolution)
    without = generator.provenance.get("without_to_rgb", [])
    if smaller in without:
        raise InputError(
            f"the file had a ToRGB for {generator.network_resolution} pixels alone, and the blocks for {smaller} "
            f"pixels make no image without one: adapt to {generator.network_resolution} or more"
        )
    initialise(new.network, seed=seed)
    adapt_network(new.network, generator.network)
    if generator.discriminator is not None:
        new.discriminator = new.new_discriminator()
        initialise(new.discriminator, seed=seed + 1)
        adapt_discriminator(new.discriminator, generator.discriminator)
    new.provenance = dict(generator.provenance)
    if new.config != generator.config:
        keys = ("resolution", "channels", "classes")
        new.provenance["adapted_from"] = {key: generator.config[key] for key in keys}
    return new
