"""Textual Inversion as a generator: a frozen latent diffusion model, and some vectors for each class."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.arguments import Labels, check_bits, check_labels_and_seeds
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.folder import CONFIG, check_free, read_config, resolve_source, write_config
from genmix_transforms.generators.lora import adapter_state, load_adapter_state
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.randomness import DataOrder
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.embeddings_file import read_class_embeddings
from genmix_transforms.generators.textual_inversion.folder import (
    check_reserved,
    load_learned,
    open_recorded,
    record_of,
    save_learned,
    save_place,
)
from genmix_transforms.generators.textual_inversion.images import ChannelSpread, to_grey, to_size
from genmix_transforms.generators.textual_inversion.network import BaseSource, LatentDiffusion
from genmix_transforms.generators.textual_inversion.prompts import choose_templates
from genmix_transforms.generators.textual_inversion.rows import check_embeddings, check_initial_words, initial_rows
from genmix_transforms.generators.textual_inversion.sampling import draw_images, make_scheduler
from genmix_transforms.generators.textual_inversion.settings import (
    PAPER_MODEL,
    SamplerSettings,
    TextualInversionNetworkSettings,
    TextualInversionSettings,
)
from genmix_transforms.generators.textual_inversion.start_images import StartImages
from genmix_transforms.generators.textual_inversion.tokens import (
    PlaceholderTokens,
    check_classes,
    check_vectors,
    placeholder,
)
from genmix_transforms.generators.textual_inversion.training import (
    TextualInversionTraining,
    model_to_train,
    resolve_settings,
)
from genmix_transforms.settings import Settings

LARGEST_SIDE = 16_384
"""Of an image in pixels; more is a slip."""


class TextualInversion(Generator):
    """Some word vectors for each class, learned for a latent diffusion model that stays as it came.

    The base model is not part of the generator's folder: its name, revision and a hash of its weights are.

    Args:
        classes: the class names. Each becomes a placeholder token, ``<cyst>``, of several vectors.
        resolution: side of the images in pixels; the base model's own is scaled to it.
        channels: 1 or 3.
        bits: 8 or 16 a pixel.
        **options: fields of :class:`TextualInversionNetworkSettings`. In Python, ``base`` may also be what
            :func:`find_base_model` found, or another generator's :attr:`model`, to share it; ``sampler`` may be
            :class:`SamplerSettings` or a mapping of them.

    Attributes:
        model: the base model, with adapters in its U-Net if any were trained.
        base: where that came from.
        start_images: the real ones that images are drawn from, if not from noise.
        channel_spread: of the gray images drawn so far, how far their three channels differed.

    Raises:
        MissingPathError: no such base model, here or on the hub; the message says how to bring it here.
        InputError: a base model of another kind, class names that make no tokens of their own, words that the tokenizer
            does not know, more vectors than a prompt has room for, or other values that cannot work.

    Source: Gal et al., "An Image is Worth One Word" (arXiv 2208.01618); Lee et al. (arXiv 2405.20650), section 3.1.

    Example:
        >>> generator = TextualInversion(classes=["cyst", "metastasis"], modality="CT")  # doctest: +SKIP
        >>> generator.fit(train, out="runs/ti")  # doctest: +SKIP
        >>> generator.sample(labels=[0, 1], seeds=[7, 8]).shape  # doctest: +SKIP
        torch.Size([2, 1, 64, 64])
    """

    kind = "textual-inversion"
    network_settings: ClassVar[type[Settings]] = TextualInversionNetworkSettings
    training_settings: ClassVar[type[TrainingSettings]] = TextualInversionSettings
    shows_evolution = True
    refuses_soft_labels: ClassVar[str | None] = None
    refuses_pretraining: ClassVar[str | None] = (
        "what it knows of images is its base model's, which stays as it came: words of a pool would be thrown away; "
        "give a base model that knows such images (base, --base)"
    )
    command_help: ClassVar[str | None] = (
        "words for the classes, in a latent diffusion model that stays as it came; each class gets a folder that "
        "diffusers' load_textual_inversion opens"
    )

    base: BaseSource
    model: LatentDiffusion

    def __init__(
        self, *, classes: Sequence[str], resolution: int = 64, channels: int = 1, bits: int = 8, **options: Any
    ) -> None:
        self.classes: tuple[str, ...] = check_classes(classes)
        check_reserved(self.classes)
        resolution = whole_number(resolution, name="TextualInversion: resolution", least=1, most=LARGEST_SIDE)
        if channels not in (1, 3):
            raise InputError(f"TextualInversion: channels must be 1 (gray) or 3 (color), got {channels}")
        self.image_shape: tuple[int, int, int] = (int(channels), resolution, resolution)
        self.pixel_dtype: torch.dtype = check_bits(bits, name="TextualInversion")
        if isinstance(options.get("templates"), str):
            options["templates"] = (options["templates"],)
        settings = TextualInversionNetworkSettings.of(options, name="TextualInversion")
        self.templates: tuple[str, ...] = choose_templates(settings.templates, modality=settings.modality)
        self.prompt: str = settings.prompt or self.templates[0]
        self.sampler: SamplerSettings = SamplerSettings.of(settings.sampler)
        self.vectors: dict[str, int] = check_vectors(settings.vectors, self.classes)
        self.provenance: dict[str, Any] = {}
        self.start_images: StartImages | None = None
        self.channel_spread: ChannelSpread = ChannelSpread()
        if isinstance(settings.base, LatentDiffusion):
            if settings.base.source is None or settings.revision is not None:
                raise InputError(
                    "TextualInversion: base must be a folder, a hub id, or a model that open_base_model has opened, "
                    "which has no other revision"
                )
            self.model, self.base = settings.base, settings.base.source
        else:
            found = isinstance(settings.base, BaseSource)
            self.base = settings.base if found else find_base_model(settings.base, revision=settings.revision)
            self.model = open_base_model(self.base)
        self.initial_words: dict[str, str] = check_initial_words(
            settings.initial_words, self.classes, self.model.tokenizer
        )
        self._set_embeddings(self.initial_embeddings(0))
        self.tokens.check_own(self.templates)
        self._check_sampler()

    @classmethod
    def prepare_options(
        cls, options: Mapping[str, Any], *, training: Mapping[str, Any] | None = None, init: str | Path | None = None
    ) -> dict[str, Any]:
        """Look for the base model before the data is read; with ``init``, refuse what that brings along."""
        options = super().prepare_options(options, training=training, init=init)
        if init is None:
            base = find_base_model(options.get("base", PAPER_MODEL), revision=options.pop("revision", None))
            return {**options, "base": base}
        if own := ", ".join(name for name in options if name not in ("base", "sampler")):
            raise InputError(f"TextualInversion: {init} brings its own {own}; leave {own} out")
        return options

    @classmethod
    def adapted_to(
        cls, source: str | Path, patches: PatchDataset, *, base: Any = None, sampler: Any = None, **options: Any
    ) -> "TextualInversion":
        """Load trained embeddings to go on from; see :meth:`Generator.adapted_to`.

        Args:
            source: a folder, or the id of a model repository on the hub.
            patches: what it will be trained on.
            base: where the base model is; None: where it was.
            sampler: how images are drawn; None: as they were.
            **options: none: it brings its own.
        """
        cls.prepare_options(options, init=source)
        generator = cls.from_pretrained(source, base=base)
        generator.check_trainable_on(patches)
        return generator if sampler is None else generator.with_sampler(sampler)

    @property
    def config(self) -> dict[str, Any]:
        """What an image depends on besides label, seed and weights; the base model by name, revision and hash."""
        numbers = set(self.vectors.values())
        return {
            "classes": list(self.classes),
            "tokens": {name: placeholder(name) for name in self.classes},
            "base": record_of(self.model, self.base),
            "resolution": self.image_shape[1],
            "channels": self.image_shape[0],
            "vectors": numbers.pop() if len(numbers) == 1 else dict(self.vectors),
            "initial_words": dict(self.initial_words),
            "templates": list(self.templates),
            "prompt": self.prompt,
            "sampler": self.sampler.to_json(),
            "bits": 8 if self.pixel_dtype == torch.uint8 else 16,
            **({"start_images": self.start_images.patches.fingerprint} if self.start_images else {}),
        }

    @property
    def network(self) -> Any:
        """The U-Net, a diffusers ``UNet2DConditionModel``, with adapters if any were trained."""
        return self.model.unet

    @property
    def embeddings(self) -> dict[str, Tensor]:
        """The vectors of each class, float32 ``(V, D)`` on the CPU; copies."""
        return {name: rows.clone() for name, rows in self._embeddings.items()}

    @property
    def weights_hash(self) -> str:
        """sha256 of the base model's weights, the classes' vectors and the adapters."""
        learned = {f"embedding.{name}": rows for name, rows in self._embeddings.items()}
        learned |= adapter_state(self.model.unet)
        return hashlib.sha256(f"{self.model.weights_hash} {weights_hash(learned)}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a bank records of the generator that filled it."""
        if self.start_images is None:
            return super().describe()
        return {**super().describe(), "start_images": self.start_images.describe(self.sampler)}

    def to(self, device: str | torch.device) -> "TextualInversion":
        """Move the base model, which other generators may share, and return the generator."""
        self.model.to(device)
        return self

    def with_embeddings(
        self, embeddings: Mapping[str, Tensor], *, model: LatentDiffusion | None = None
    ) -> "TextualInversion":
        """The same with other vectors; a provenance of its own, the base model shared.

        Args:
            embeddings: for every class ``(V, D)``, any V.
            model: the base model, with other adapters; None: this one's.

        Raises:
            InputError: other classes, vectors of another width than the base model's, that are no numbers, or too many.
        """
        check_embeddings(embeddings, self.classes, width=self.model.width, base=self.base.name)
        other = copy.copy(self)
        other.provenance = copy.deepcopy(self.provenance)
        other.channel_spread = ChannelSpread()
        other.model = self.model if model is None else model
        other._set_embeddings(embeddings)
        return other

    def with_sampler(
        self, sampler: SamplerSettings | Mapping[str, Any] | str | None = None, /, **settings: Any
    ) -> "TextualInversion":
        """The same, its images drawn otherwise.

        Args:
            sampler: "paper", "fast" or settings, in place of this one's.
            **settings: fields of :class:`SamplerSettings`; those left out stay as they are.

        Returns:
            Another generator; it shares the base model.

        Raises:
            InputError: settings that cannot work.
        """
        start = self.sampler if sampler is None else SamplerSettings.of(sampler)
        other = self.with_embeddings(self._embeddings)
        other.sampler = SamplerSettings.of({**start.to_json(), **settings})
        other._check_sampler()
        return other

    def with_start_images(self, patches: PatchDataset | None, *, strength: float = 0.6) -> "TextualInversion":
        """The same, its images drawn from real ones of their class instead of from noise (SDEdit).

        Which real image one starts from follows from its seed. Images so drawn resemble real ones, more so the lower
        the strength: take those of the training set, and think of who may see the bank.

        Args:
            patches: real images of every class; None: from noise again.
            strength: share of the sampler's steps that are taken; 1: all.

        Raises:
            InputError: a class without images, or a strength that is no share.
        """
        other = self.with_sampler(strength=1.0 if patches is None else strength)
        other.start_images = None if patches is None else StartImages(patches, classes=self.classes)
        return other

    def prompt_ids(self) -> Tensor:
        """The ids of every class's prompts, one for each template: int64 ``(K, templates, 77)``."""
        filled = [self.tokens.fill(template, name) for name in self.classes for template in self.templates]
        return self.tokens.ids(filled).view(len(self.classes), len(self.templates), -1)

    def contexts(self) -> Tensor:
        """What the U-Net is told of each class when images are drawn: ``(K, 77, W)``, on the base model's device."""
        return self._encode([self.tokens.fill(self.prompt, name) for name in self.classes])

    def negative_context(self) -> Tensor:
        """What the U-Net is led away from: ``(77, W)``, on the base model's device."""
        return self._encode([self.sampler.negative_prompt])[0]

    @property
    def sample_batch(self) -> int:
        """Images in one pass through the network."""
        return self.sampler.batch_size

    @torch.no_grad()
    def sample(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images with :attr:`sampler`; see :meth:`Generator.sample`. A batch may be of several classes.

        Of a soft label the encoded prompts of the classes are mixed, as an interpolation between prompts does; a start
        image is one of the class with the largest weight.
        """
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes, refuses_rows=None)
        likeliest = labels if labels.ndim == 1 else labels.argmax(dim=1)
        real = self.start_images
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        batches = draw_images(
            self.model,
            contexts=self.contexts(),
            which=labels,
            negative=self.negative_context(),
            seeds=seeds,
            settings=self.sampler,
            start=None if real is None else lambda places: real.latents(self.model, likeliest[places], seeds[places]),
        )
        for here, values in batches:
            values = values.float().clamp(-1, 1)
            if self.image_shape[0] == 1:
                values, spread = to_grey(values)
                self.channel_spread.add(spread.cpu())
            images[here] = to_pixels(to_size(values, self.image_shape[1]), self.pixel_dtype).cpu()
        return images

    def resolve(
        self, settings: TextualInversionSettings, dataset: PatchDataset, *, warm_start: bool, processes: Processes
    ) -> TextualInversionSettings:
        """Check the settings against the base model, and fill in its family's learning rate."""
        return resolve_settings(settings, self.model, warm_start=warm_start, processes=processes)

    def make_trainee(
        self,
        settings: TextualInversionSettings,
        dataset: PatchDataset,
        *,
        seed: int,
        warm_start: bool,
        processes: Processes,
    ) -> TextualInversionTraining:
        """Put the rows, the base model and the latents together.

        The base model is moved to the device, for whoever shares it. With adapters its U-Net stays where it is: a copy
        is trained.
        """
        start = self if warm_start else self.with_embeddings(self.initial_embeddings(seed))
        return TextualInversionTraining(
            model_to_train(self.model, settings, seed=seed).to(processes.device),
            embeddings=start.embeddings,
            prompts=start.prompt_ids(),
            dataset=dataset,
            order=DataOrder(len(dataset), seed=seed),
            settings=settings,
            processes=processes,
        )

    def with_result(self, trainee: TextualInversionTraining) -> "TextualInversion":
        """The generator with the rows as they stand now; it shares the base model, adapters included."""
        return self.with_embeddings(trainee.result(), model=trainee.whole_model())

    def take_up(self, trained: "TextualInversion") -> None:
        """Draw from now on as ``trained`` does."""
        self.model = trained.model
        self._set_embeddings(trained._embeddings)

    def training_identity(self) -> dict[str, Any]:
        """All of the configuration but the sampler: a run may be drawn from otherwise."""
        return {name: value for name, value in self.config.items() if name not in ("sampler", "bits")}

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as ``config.json`` and ``model.safetensors``, and for diffusers once more: ``<class>/``, ``unet_lora/``.

        ``base_model.json`` says where the base model lies on this machine; it alone holds a path, and it is not needed
        elsewhere.

        Args:
            folder: made if need be.
            overwrite: replace a generator that is there.

        Raises:
            OverwriteError: the folder holds a generator, and ``overwrite`` is False.
        """
        folder = Path(folder)
        check_free(folder, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        save_place(folder, self.base)
        save_learned(folder, self._embeddings, adapter_state(self.model.unet), provenance=self.provenance)
        write_config(folder, kind=self.kind, config=self.config)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        base: str | Path | LatentDiffusion | None = None,
    ) -> "TextualInversion":
        """Load what :meth:`save_pretrained` saved, and the base model that it was learned for.

        Args:
            source: a folder, or the id of a model repository on the hub.
            revision: branch, tag or commit on the hub, of the embeddings.
            device: where to put the base model.
            base: the base model; None: where it was when the folder was written, or the hub's, at the revision noted.

        Raises:
            MissingPathError: no such folder or repository, or no base model where it was.
            InputError: another kind of generator, files that do not fit, or another base model.
        """
        folder = resolve_source(source, revision=revision)
        config = read_config(folder)
        if config["kind"] != cls.kind:
            raise InputError(f"{source}: a {config['kind']} generator, not a {cls.kind}; load_generator takes any kind")
        options = dict(config["config"])
        tokens, record = options.pop("tokens", None), options.pop("base", {})
        options.pop("start_images", None)  # they do not travel with it
        embeddings, adapters, provenance = load_learned(folder)
        model, place = open_recorded(folder, record, given=base)
        generator = cls(**options, base=model)
        if tokens != generator.config["tokens"]:
            raise InputError(f"{folder / CONFIG}: the tokens are {tokens}, and the classes {list(generator.classes)}")
        if adapters:
            # A base model that was lent keeps its U-Net as it is.
            unet = copy.deepcopy(model.unet) if isinstance(base, LatentDiffusion) else model.unet
            generator.model = model.with_unet(unet)
            load_adapter_state(unet, adapters, name=str(folder))
        generator.base = place  # by the recorded name, whatever the folder is called here
        generator = generator.with_embeddings(embeddings)
        generator.provenance = provenance
        return generator.to(device)

    @classmethod
    def from_embeddings(
        cls,
        files: Mapping[str, str | Path],
        *,
        base: str | Path | LatentDiffusion = PAPER_MODEL,
        revision: str | None = None,
        **options: Any,
    ) -> "TextualInversion":
        """A generator of embeddings that others learned; their files are those that :func:`read_embeddings` reads.

        A class's token is ours, ``<cyst>``, whatever the file calls it; what the file called it is kept in the
        provenance.

        Args:
            files: for each class a file, or a folder with one, of one token.
            base: the base model that they were learned for: a folder, a hub id, or an opened one.
            revision: branch, tag or commit on the hub.
            **options: others of :class:`TextualInversion`: resolution, channels, templates, modality, prompt, sampler,
                bits.

        Raises:
            InputError: no files, files of something else or of several tokens, or embeddings of another width than the
                base model's. The files are checked before the base model is opened.

        Example:
            >>> generator = TextualInversion.from_embeddings(
            ...     {"cyst": "embeddings_gs-6099.pt"}, base="CompVis/ldm-text2im-large-256", prompt="a photo of {}"
            ... )  # doctest: +SKIP
        """
        embeddings, provenance = read_class_embeddings(files)
        vectors = {name: len(rows) for name, rows in embeddings.items()}
        generator = cls(classes=tuple(files), base=base, revision=revision, vectors=vectors, **options)
        generator = generator.with_embeddings(embeddings)
        generator.provenance = provenance
        return generator

    def initial_embeddings(self, seed: int) -> dict[str, Tensor]:
        """The vectors that a training with this seed begins with: see :func:`initial_rows`."""
        table: Any = self.model.learned.table
        return {
            name: initial_rows(
                table.weight, self.model.tokenizer, name,
                words=self.initial_words.get(name), vectors=self.vectors[name], seed=seed, label=label,
            ).cpu()
            for label, name in enumerate(self.classes)
        }  # fmt: skip

    def _set_embeddings(self, embeddings: Mapping[str, Tensor]) -> None:
        self._embeddings = {name: embeddings[name].detach().float().cpu().clone() for name in self.classes}
        self.vectors = {name: len(rows) for name, rows in self._embeddings.items()}
        self.tokens: PlaceholderTokens = PlaceholderTokens(self.model.tokenizer, self.vectors)
        self.tokens.check_room([*self.templates, self.prompt])

    def _check_sampler(self) -> None:
        self.tokens.ids([self.sampler.negative_prompt])
        make_scheduler(self.model.scheduler_config, self.sampler)

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Tensor:
        device = self.model.device
        self.model.to(device)  # parts that it shares with another U-Net may have gone elsewhere with that
        rows = torch.cat(list(self._embeddings.values())).to(device)
        return self.model.encode_text(self.tokens.ids(prompts).to(device), rows=rows)
