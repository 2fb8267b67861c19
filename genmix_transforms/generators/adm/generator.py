"""The ADM generator: a diffusion model of one class or several, and the sampler that its images are drawn with."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.adapting import adapt_configuration, adapt_network
from genmix_transforms.generators.adm.checkpoint import Checkpoint, read_checkpoint
from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration, check_names, choose_configuration
from genmix_transforms.generators.adm.fitting import fit_adm
from genmix_transforms.generators.adm.folder import (
    CLASSIFIER,
    NETWORK,
    SCHEDULER,
    WEIGHTS,
    load_classifier,
    save_classifier,
    save_network,
    save_scheduler,
)
from genmix_transforms.generators.adm.network import build_network, initialise
from genmix_transforms.generators.adm.sampler_settings import SamplerSettings
from genmix_transforms.generators.adm.sampling import draw_images
from genmix_transforms.generators.adm.schedule import NoiseSchedule
from genmix_transforms.generators.adm.settings import TrainingSettings
from genmix_transforms.generators.arguments import check_labels_and_seeds
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.folder import CONFIG, check_free, read_provenance, read_weights, write_config
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.state import weights_hash


class ADM(Generator):
    """A diffusion model of OpenAI's ADM architecture, class-conditional if it has several classes.

    The network is a diffusers ``UNet2DModel``. The folder that :meth:`save_pretrained` writes holds it as diffusers
    does, in ``unet/``: ``UNet2DModel.from_pretrained(folder, subfolder="unet")`` opens it (the networks that it cannot
    describe, with four heads or a wider time embedding, :class:`ADMUNet` opens).

    Args:
        classes: the class names.
        resolution: side of the images in pixels; None: the configuration's.
        channels: of the images; None: 1 for a preset, else the configuration's.
        configuration: a preset ("small-32", "small-64", or one of the published: "64", "128", "256", "256-uncond",
            "512"), or the original's flags. None: a small preset of the resolution.
        null_class: whether the network has a row for "no class", for classifier-free guidance; None: as the
            configuration says.
        sampler: how images are drawn, :class:`SamplerSettings` or a mapping of them; None: 25 steps of DDIM.
        bits: 8 or 16 a pixel.

    Raises:
        InputError: a size that is no multiple of what the network halves, or other values that make no network.

    Source: Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233).

    Example:
        >>> tiny = {"image_size": 8, "num_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1}
        >>> generator = ADM(classes=["cyst"], channels=1, configuration=tiny, sampler={"steps": 2, "batch_size": 1})
        >>> generator.sample(labels=[0], seeds=[7]).shape
        torch.Size([1, 1, 8, 8])
    """

    kind = "adm"

    def __init__(
        self,
        *,
        classes: Sequence[str],
        resolution: int | None = None,
        channels: int | None = None,
        configuration: str | Mapping[str, Any] | ADMConfiguration | None = None,
        null_class: bool | None = None,
        sampler: SamplerSettings | Mapping[str, Any] | None = None,
        bits: int = 8,
    ) -> None:
        self.classes = check_names(classes)
        if bits not in (8, 16):
            raise InputError(f"ADM: bits must be 8 or 16, got {bits}")
        self.configuration = choose_configuration(
            configuration, classes=len(self.classes), resolution=resolution, channels=channels, null_class=null_class
        )
        if self.configuration.small_size is not None:
            raise InputError("ADM: an upsampler draws nothing without a smaller image; it is no generator by itself")
        self.pixel_dtype = torch.uint8 if bits == 8 else torch.uint16
        self.provenance: dict[str, Any] = {}
        self.classifier: NoisyClassifier | None = None
        self._set_sampler(SamplerSettings.of(sampler))
        with torch.random.fork_rng(devices=[]):
            self._take(build_network(self.configuration))
        initialise(self._network, seed=0)

    @property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """``(C, H, W)`` of what it draws."""
        return (self.configuration.channels, self.configuration.image_size, self.configuration.image_size)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments. The sampler's settings are among them: they are part of an image's identity."""
        return {
            "classes": list(self.classes),
            "configuration": self.configuration.to_flags(),
            "sampler": self.sampler.to_json(),
            "bits": 8 if self.pixel_dtype == torch.uint8 else 16,
        }

    @property
    def network(self) -> UNet2DModel:
        """Noisy images ``(N, C, H, W)``, timesteps and labels ``(N,)`` to the noise in them; a diffusers network."""
        return self._network

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the network was trained with."""
        return NoiseSchedule.of(self.configuration)

    @property
    def weights_hash(self) -> str:
        """sha256 of the weights, the classifier's included if it guides."""
        tensors = dict(self._network.state_dict())
        if self.sampler.classifier_scale and self.classifier is not None:
            tensors |= {f"classifier.{name}": value for name, value in self.classifier.state_dict().items()}
        return weights_hash(tensors)

    def to(self, device: str | torch.device) -> "ADM":
        """Move the network and the classifier, and return the generator."""
        self._network.to(device)
        if self.classifier is not None:
            self.classifier.to(device)
        return self

    def with_network(self, network: torch.nn.Module) -> "ADM":
        """The same ADM with other weights: it shares ``network``, and has a provenance of its own."""
        other = copy.copy(self)
        other._network = network
        other.provenance = copy.deepcopy(self.provenance)
        return other

    def with_sampler(self, **settings: Any) -> "ADM":
        """The same ADM, its images drawn otherwise.

        Args:
            **settings: fields of :class:`SamplerSettings`; those left out stay as they are.

        Returns:
            Another generator; it shares the network.

        Raises:
            InputError: settings that cannot work, or guidance that the network was not made for.
        """
        other = self.with_network(self._network)
        other._set_sampler(SamplerSettings.of({**self.sampler.to_json(), **settings}))
        return other

    def with_classifier(
        self, classifier: NoisyClassifier | None, *, scale: float = 1.0, classes: Sequence[str] | None = None
    ) -> "ADM":
        """The same ADM, guided by a classifier of noisy images.

        Args:
            classifier: of the same classes, size and channels, trained on the same noise schedule; None: no longer.
            scale: of its gradient; 0.5 to 10 in the paper.
            classes: for a network that is not told the class, the classifier's: it alone then knows them.

        Returns:
            Another generator; it shares network and classifier.

        Raises:
            InputError: a classifier of something else.
        """
        other = self.with_network(self._network)
        if classes is not None:
            if self.configuration.class_cond:
                raise InputError("ADM: the network is told the class, and its classes are the classifier's too")
            other.classes = check_names(classes)
        if classifier is not None:
            theirs = (classifier.config["channels"], classifier.config["image_size"], classifier.config["num_classes"])
            ours = (self.configuration.channels, self.configuration.image_size, len(other.classes))
            if theirs != ours:
                raise InputError(
                    f"ADM: a classifier of (channels, size, classes) {theirs} cannot guide a generator of {ours}"
                )
            classifier = classifier.eval().to(self.device)
        other.classifier = classifier
        other._set_sampler(replace(self.sampler, classifier_scale=scale if classifier is not None else 0.0))
        return other

    def adapt(
        self,
        *,
        classes: Sequence[str] | None = None,
        channels: int | None = None,
        resolution: int | None = None,
        null_class: bool | None = None,
    ) -> "ADM":
        """The same network for other classes, channels or sizes: where fine-tuning starts.

        * Classes: names that it knows keep their row of the class embedding, others begin with the mean of all rows. A
          network that was not told the class gets rows of zeros, and draws what it drew.
        * Channels: each new one begins as the mean of the old ones, at both ends: a grey image gives the activations
          that the same image gave in colour.
        * Size: nothing changes but the size; attention stays at the same levels.

        Args:
            classes: the new class names.
            channels: of the new images.
            resolution: their side in pixels.
            null_class: whether to have a row for "no class".

        Returns:
            Another generator, with weights of its own and no classifier.

        Raises:
            InputError: a size or classes that do not fit.
        """
        names = self.classes if classes is None else check_names(classes)
        configuration = adapt_configuration(
            self.configuration, classes=len(names), channels=channels, resolution=resolution, null_class=null_class
        )
        with torch.device("meta"):
            other = ADM(
                classes=names,
                configuration=configuration,
                sampler=replace(
                    self.sampler,
                    classifier_scale=0.0,
                    guidance_scale=self.sampler.guidance_scale if configuration.null_class else 1.0,
                ),
                bits=8 if self.pixel_dtype == torch.uint8 else 16,
            )
        weights = adapt_network(
            self._network.state_dict(), old=self.configuration, new=configuration,
            old_classes=self.classes, new_classes=names,
        )  # fmt: skip
        other._network.load_state_dict(weights, assign=True)
        other._take(other._network)
        other.provenance = {"adapted_from": {"weights": self.weights_hash, **self.provenance}}
        return other

    def sample(self, labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images with :attr:`sampler`; see :meth:`Generator.sample`. A batch may be of several classes."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes)
        if self.sampler.classifier_scale and self.classifier is None:
            raise InputError(
                f"ADM: the sampler has classifier_scale {self.sampler.classifier_scale}, but there is no classifier; "
                "give one with with_classifier(...), or set it to 0"
            )
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        batches = draw_images(
            self._network,
            labels,
            seeds,
            configuration=self.configuration,
            settings=self.sampler,
            classifier=self.classifier,
        )
        for here, values in batches:
            images[here] = to_pixels(values, self.pixel_dtype).cpu()
        return images

    def fit(
        self,
        dataset: PatchDataset,
        *,
        out: str | Path,
        seed: int = 0,
        warm_start: bool = False,
        restart: bool = False,
        device: str | torch.device | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> "ADM":
        """Train on real patches. Run again with the same arguments, it goes on where it stopped: on the CPU, exactly.

        The weights are drawn with ``seed``, unless ``warm_start`` says to go on from those it has: fine-tuning.

        Args:
            dataset: the training set; its classes, size and channels are this ADM's (:meth:`adapt` changes those).
            out: the run's folder; ``load_generator`` takes it, during the training too. ``evolution.png`` in it shows
                images of fixed seeds, before the training and at its checkpoints.
            seed: of the weights, the data order and the noise.
            warm_start: start from the weights that this ADM has.
            restart: throw away an earlier run in ``out``.
            device: where to train; None: CUDA where there is one. Several processes each get their own.
            progress: show a bar.
            **settings: fields of :class:`TrainingSettings`; an unknown one is an error that names it.

        Raises:
            InputError: data or options that do not fit; before any work.
            FloatingPointError: the training diverged.
        """
        network = fit_adm(
            self, dataset, out=out, settings=TrainingSettings.of(settings), seed=seed, warm_start=warm_start,
            restart=restart, device=device, progress=progress,
        )  # fmt: skip
        self._take(network.to(self.device))
        self.provenance = read_provenance(Path(out) / NETWORK / WEIGHTS)
        return self

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as ``config.json``, and as diffusers keeps them, ``unet/``, ``scheduler/`` and ``classifier/``.

        Args:
            folder: made if need be.
            overwrite: replace a generator that is there.

        Raises:
            OverwriteError: the folder holds a generator, and ``overwrite`` is False.
        """
        folder = Path(folder)
        check_free(folder, overwrite=overwrite)
        save_network(folder / NETWORK, self._network, provenance=self.provenance)
        save_classifier(folder / CLASSIFIER, self.classifier)
        save_scheduler(folder / SCHEDULER, self.configuration)
        write_config(folder, kind=self.kind, config=self.config)

    @classmethod
    def _from_folder(cls, folder: Path, config: dict[str, Any]) -> "ADM":
        weights, provenance = read_weights(folder / NETWORK / WEIGHTS)
        # On no device: the weights come from the file, and none need be drawn.
        with torch.device("meta"):
            generator = cls(**config)
        try:
            generator._network.load_state_dict(weights, assign=True)
            generator._take(generator._network)
        except RuntimeError as error:
            raise InputError(f"{folder / NETWORK}: not the weights that {CONFIG} describes ({error})") from error
        generator.provenance = provenance
        generator.classifier = load_classifier(folder / CLASSIFIER)
        return generator

    @classmethod
    def from_checkpoint(
        cls,
        file: str | Path,
        *,
        configuration: ADMConfiguration | Mapping[str, Any] | str | Path | None = None,
        classes: Sequence[str] | None = None,
        sampler: SamplerSettings | Mapping[str, Any] | None = None,
    ) -> "ADM":
        """Take over a network that was trained with OpenAI's guided-diffusion.

        Args:
            file: ``.pt`` or ``.pth`` (read with ``weights_only=True``), ``.safetensors``, or a file's place on the hub,
                ``owner/name/file.pt``.
            configuration: the flags it was trained with, or a JSON file of them; None: one of the published networks,
                recognised from the weights' shapes.
            classes: a name for each of its classes, in its order; None: class-0000, class-0001, ..., or "image".
            sampler: how images are drawn; None: 25 steps of DDIM.

        Raises:
            InputError: a file that holds something else, an upsampler or classifier, several networks, or code (nothing
                in it is run); one that was cut short; weights that do not fit the flags; or another number of names.
        """
        checkpoint = read_checkpoint(file, configuration=configuration)
        return cls.of_checkpoint(checkpoint, classes=classes, sampler=sampler)

    @classmethod
    def of_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        classes: Sequence[str] | None = None,
        sampler: SamplerSettings | Mapping[str, Any] | None = None,
    ) -> "ADM":
        """The generator of a checkpoint that is read already: see :meth:`from_checkpoint`."""
        names = checkpoint.class_names(classes)
        with torch.device("meta"):
            generator = cls(classes=names, configuration=checkpoint.configuration, sampler=sampler)
        generator._take(checkpoint.network)
        generator.provenance = {"converted": "OpenAI guided-diffusion", "file": f"sha256:{checkpoint.sha256}"}
        return generator

    def _take(self, network: Any) -> None:
        # Convolutions are faster with the channels last, on GPUs in bfloat16 by far.
        self._network = network.to(memory_format=torch.channels_last).eval()

    def _set_sampler(self, sampler: SamplerSettings) -> None:
        if len(self.classes) > 1 and not self.configuration.class_cond and not sampler.classifier_scale:
            raise InputError(
                f"ADM: the network is not told the class (class_cond is false), and the classes are "
                f"{', '.join(self.classes[:8])}; give one name, set class_cond, adapt(classes=...) the network, or let "
                "a classifier guide it"
            )
        if sampler.guidance_scale != 1 and not self.configuration.null_class:
            raise InputError(
                f"ADM: guidance_scale {sampler.guidance_scale} needs a network that was trained with label dropout "
                "(null_class): this one knows no image without a class"
            )
        if sampler.steps > self.configuration.diffusion_steps:
            raise InputError(
                f"ADM: {sampler.steps} sampling steps of a diffusion that has "
                f"{self.configuration.diffusion_steps} timesteps; give at most as many"
            )
        self.sampler = sampler
