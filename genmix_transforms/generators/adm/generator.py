"""The ADM generator: a diffusion model of one class or several, and the sampler that its images are drawn with."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import UNet2DModel
from torch import Tensor

from genmix_transforms.data.identity import join_training_sets
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.classifier import NoisyClassifier, load_classifier, save_classifier
from genmix_transforms.generators.adm.configuration import ADMConfiguration, choose_configuration
from genmix_transforms.generators.adm.convert import Checkpoint, read_checkpoint
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.network import WEIGHTS, adapt_network, build_network, initialise, save_network
from genmix_transforms.generators.adm.noise_schedule import NoiseSchedule, save_scheduler
from genmix_transforms.generators.adm.sampling import Denoiser, SamplerSettings, draw
from genmix_transforms.generators.adm.settings import ADMNetworkSettings, ADMSettings, resolve
from genmix_transforms.generators.adm.timesteps import make_timesteps
from genmix_transforms.generators.adm.training import ADMTraining, prepare_for_tuning
from genmix_transforms.generators.arguments import (
    Labels,
    check_bits,
    check_class_names,
    check_labels_and_seeds,
    shape_of,
)
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.batches import whole_batches
from genmix_transforms.generators.folder import CONFIG, check_free, read_weights, write_config
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.settings import Settings

NETWORK = "unet"
SCHEDULER = "scheduler"
CLASSIFIER = "classifier"
"""The folders of a saved ADM, as diffusers' pipelines call theirs."""


class ADM(Generator):
    """A diffusion model of OpenAI's ADM architecture, class-conditional if it has several classes.

    The network is a diffusers ``UNet2DModel``. The folder that :meth:`save_pretrained` writes holds it as diffusers
    does, in ``unet/``: ``UNet2DModel.from_pretrained(folder, subfolder="unet")`` opens it (the networks that it cannot
    describe, with four heads or a wider time embedding, :class:`ADMUNet` opens).

    Args:
        classes: the class names.
        resolution: side of the images in pixels; None: the configuration's.
        channels: of the images; None: 1 for a preset, else the configuration's.
        sampler: how images are drawn, :class:`SamplerSettings` or a mapping of them; None: 25 steps of DDIM.
        bits: 8 or 16 a pixel.
        **network: fields of :class:`ADMNetworkSettings`: ``configuration`` (a preset's name, the original's flags, or
            an :class:`ADMConfiguration`) and ``null_class``.

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
    network_settings: ClassVar[type[Settings]] = ADMNetworkSettings
    training_settings: ClassVar[type[TrainingSettings]] = ADMSettings
    fine_tuning_preset: ClassVar[str | None] = "fine-tune"
    shows_evolution = True
    refuses_soft_labels: ClassVar[str | None] = None
    command_help: ClassVar[str | None] = "a diffusion model, from scratch or from other weights (--init)"

    def __init__(
        self,
        *,
        classes: Sequence[str],
        resolution: int | None = None,
        channels: int | None = None,
        sampler: SamplerSettings | Mapping[str, Any] | None = None,
        bits: int = 8,
        **network: Any,
    ) -> None:
        settings = ADMNetworkSettings.of(network, name="ADM")
        self.classes: tuple[str, ...] = check_class_names(classes, name="ADM")
        self.pixel_dtype: torch.dtype = check_bits(bits, name="ADM")
        self.configuration: ADMConfiguration = choose_configuration(
            settings.configuration,
            classes=len(self.classes),
            resolution=resolution,
            channels=channels,
            null_class=settings.null_class,
        )
        if self.configuration.small_size is not None:
            raise InputError("ADM: an upsampler draws nothing without a smaller image; it is no generator by itself")
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
            "bits": self.bits,
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
            other.classes = check_class_names(classes, name="ADM")
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
        * Channels: each new one begins as the mean of the old ones, at both ends: a gray image gives the activations
          that the same image gave in color.
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
        names = self.classes if classes is None else check_class_names(classes, name="ADM")
        configuration = self.configuration.adapted(
            classes=len(names), channels=channels, resolution=resolution, null_class=null_class
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
                bits=self.bits,
            )
        weights = adapt_network(
            self._network.state_dict(), old=self.configuration, new=configuration,
            old_classes=self.classes, new_classes=names,
        )  # fmt: skip
        other._network.load_state_dict(weights, assign=True)
        other._take(other._network)
        other.provenance = {"adapted_from": {"weights": self.weights_hash, **self.provenance}}
        if seen := self.origin().get("training_set"):  # by these weights too; the counts were of other classes
            other.provenance["training_set"] = {key: value for key, value in seen.items() if key != "class_counts"}
        return other

    @property
    def sample_batch(self) -> int:
        """Images in one pass through the network."""
        return self.sampler.batch_size

    def sample(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images with :attr:`sampler`; see :meth:`Generator.sample`. A batch may be of several classes."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes, refuses_rows=None)
        if self.sampler.classifier_scale and self.classifier is None:
            raise InputError(
                f"ADM: the sampler has classifier_scale {self.sampler.classifier_scale}, but there is no classifier; "
                "give one with with_classifier(...), or set it to 0"
            )
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        network, device, schedule = self._network.eval(), self.device, self.schedule
        for here, some, start, fresh in whole_batches(labels, seeds, self.sampler.batch_size, self.image_shape):
            denoiser = Denoiser(
                network,
                some.to(device),
                configuration=self.configuration,
                schedule=schedule,
                settings=self.sampler,
                classifier=self.classifier,
            )
            values = draw(denoiser, start.to(device), fresh)[: here.stop - here.start]
            images[here] = to_pixels(values, self.pixel_dtype).cpu()
        return images

    @classmethod
    def prepare_options(
        cls, options: Mapping[str, Any], *, training: Mapping[str, Any] | None = None, init: str | Path | None = None
    ) -> dict[str, Any]:
        """Read the flags' file, and give the network a row for "no class" where labels are to be dropped."""
        prepared = super().prepare_options(options, training=training, init=init)
        configuration = prepared.get("configuration")
        if configuration is not None and init is not None:
            raise InputError(f"{init}: --init brings its own network; leave --configuration out")
        if isinstance(configuration, str) and configuration.endswith(".json"):
            prepared["configuration"] = ADMConfiguration.from_file(configuration)
        if (training or {}).get("label_dropout"):
            prepared.setdefault("null_class", True)
        return prepared

    def made_for(self, patches: PatchDataset, *, source: str | Path = "the weights", **options: Any) -> "ADM":
        """:meth:`adapt` it to a dataset's classes, channels and size; see :meth:`Generator.made_for`.

        The weights bring their own ``configuration``.
        """
        asked = ADMNetworkSettings.of(options, name="ADM")
        if asked.configuration is not None:
            raise InputError(f"{source}: the weights bring their own network; leave configuration out")
        shape = shape_of(patches, painter="ADM")
        return self.adapt(
            classes=patches.classes,
            channels=shape["channels"],
            resolution=shape["resolution"],
            null_class=asked.null_class,
        )

    @classmethod
    def pretraining_options(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The network is the pool's; a row for "no class" is wanted where there are classes."""
        pools, others = (
            {name: value for name, value in options.items() if (name == "null_class") == later}
            for later in (False, True)
        )
        return pools, others

    def resolve(
        self, settings: ADMSettings, dataset: PatchDataset, *, warm_start: bool, processes: Processes
    ) -> ADMSettings:
        """Check the settings against the network, and fill in the share of dropped labels."""
        if settings.tune == "classes" and not self.configuration.class_cond:
            raise InputError(
                f"ADM.fit: tune 'classes' learns a row for each class, and this network is not told the class; "
                f"{dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes)}): give several, or tune 'all'"
            )
        null_class = self.configuration.null_class
        return resolve(settings, null_class=null_class, warm_start=warm_start, processes=processes.count)

    @classmethod
    def choose_settings(cls, given: Mapping[str, Any], *, warm_start: bool = False) -> ADMSettings:
        """See :meth:`Generator.choose_settings`. What learns class rows alone has a preset of its own."""
        if given.get("tune") == "classes" and "preset" not in given:
            given = {"preset": "classes", **given}
        return super().choose_settings(given, warm_start=warm_start)  # type: ignore[return-value]

    def make_trainee(
        self, settings: ADMSettings, dataset: PatchDataset, *, seed: int, warm_start: bool, processes: Processes
    ) -> ADMTraining:
        """Put a copy of the network in training: this generator stays whole if the training fails."""
        network: Any = copy.deepcopy(self._network)
        if not warm_start:
            initialise(network, seed=seed)
        prepare_for_tuning(network, settings.tune, classes=len(self.classes), lora_rank=settings.lora_rank, seed=seed)
        network.to(processes.device)
        if settings.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        loss = HybridLoss(self.schedule, device=processes.device, levels=2**self.bits)
        return ADMTraining(
            network,
            configuration=self.configuration,
            settings=settings,
            loss=loss,
            timesteps=make_timesteps(settings.timesteps, loss.count, device=processes.device, processes=processes),
        )

    def training_identity(self) -> dict[str, Any]:
        """The classes and the network's flags: how images are drawn may change between a run and its resume."""
        return {"classes": list(self.classes), "configuration": self.configuration.to_flags()}

    def origin(self) -> dict[str, Any]:
        """What is recorded of the weights; adapted ones have seen the training set of those they were adapted from."""
        origin = super().origin()
        before: Any = self.provenance
        # Earlier releases kept it with the weights that these were adapted from, and only there.
        while "training_set" not in origin and isinstance(before := before.get("adapted_from"), Mapping):
            if "training_set" in before:
                origin["training_set"] = before["training_set"]
        return origin

    def training_record(self) -> dict[str, Any]:
        """That of the network, and of the classifier that guides it: what either has seen is in the images."""
        record = super().training_record()
        classifier = self.classifier if self.sampler.classifier_scale else None
        if classifier is None or classifier.training_set is None:
            return record
        return join_training_sets(record, classifier.training_set)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as ``config.json``, and as diffusers keeps them, ``unet/``, ``scheduler/`` and ``classifier/``.

        See :meth:`Generator.save_pretrained`.
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
        file: str | Path | Checkpoint,
        *,
        configuration: ADMConfiguration | Mapping[str, Any] | str | Path | None = None,
        classes: Sequence[str] | None = None,
        sampler: SamplerSettings | Mapping[str, Any] | None = None,
    ) -> "ADM":
        """Take over a network that was trained with OpenAI's guided-diffusion.

        Args:
            file: ``.pt`` or ``.pth`` (read with ``weights_only=True``), ``.safetensors``, or a file's place on the hub,
                ``owner/name/file.pt``; or a checkpoint that is read already.
            configuration: the flags it was trained with, or a JSON file of them; None: one of the published networks,
                recognized from the weights' shapes.
            classes: a name for each of its classes, in its order; None: class-0000, class-0001, ..., or "image".
            sampler: how images are drawn; None: 25 steps of DDIM.

        Raises:
            InputError: a file that holds something else, an upsampler or classifier, several networks, or code (nothing
                in it is run); one that was cut short; weights that do not fit the flags; or another number of names.
        """
        checkpoint = file if isinstance(file, Checkpoint) else read_checkpoint(file, configuration=configuration)
        names = checkpoint.class_names(classes)
        with torch.device("meta"):
            generator = cls(classes=names, configuration=checkpoint.configuration, sampler=sampler)
        generator._take(checkpoint.network)
        generator.provenance = {"converted": "OpenAI guided-diffusion", "file": f"sha256:{checkpoint.sha256}"}
        return generator

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, **options: Any) -> "ADM":
        """Deprecated: :meth:`from_checkpoint` takes a checkpoint too."""
        warnings.warn("ADM.of_checkpoint: use ADM.from_checkpoint", DeprecationWarning, stacklevel=2)
        return cls.from_checkpoint(checkpoint, **options)

    def _take(self, network: Any) -> None:
        # Convolutions are faster with the channels last, on GPUs in bfloat16 by far.
        self._network = network.to(memory_format=torch.channels_last).eval()

    def _set_sampler(self, sampler: SamplerSettings) -> None:
        sampler.check_network(self.configuration, classes=self.classes)
        self.sampler = sampler
