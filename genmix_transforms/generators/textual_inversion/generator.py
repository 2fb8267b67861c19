"""Textual Inversion as a generator: a frozen latent diffusion model, and some vectors for each class."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.arguments import check_labels_and_seeds
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.folder import check_free, read_config, resolve_source, write_config
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.textual_inversion.base_model import (
    PAPER_MODEL,
    BaseSource,
    find_base_model,
    open_base_model,
)
from genmix_transforms.generators.textual_inversion.checkpoint import from_embeddings
from genmix_transforms.generators.textual_inversion.class_rows import check_embeddings
from genmix_transforms.generators.textual_inversion.drawing import draw_pixels
from genmix_transforms.generators.textual_inversion.fitting import fit_textual_inversion
from genmix_transforms.generators.textual_inversion.folder import (
    check_reserved,
    read_provenance,
    save_learned,
    save_place,
)
from genmix_transforms.generators.textual_inversion.grey import ChannelSpread
from genmix_transforms.generators.textual_inversion.initial_rows import check_initial_words, initial_rows
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from genmix_transforms.generators.textual_inversion.loading import load_folder
from genmix_transforms.generators.textual_inversion.lora import adapter_state
from genmix_transforms.generators.textual_inversion.prompts import check_template, choose_templates
from genmix_transforms.generators.textual_inversion.recorded_base import record_of
from genmix_transforms.generators.textual_inversion.sampler_settings import SamplerSettings
from genmix_transforms.generators.textual_inversion.sampling import make_scheduler
from genmix_transforms.generators.textual_inversion.settings import TrainingSettings
from genmix_transforms.generators.textual_inversion.start_images import StartImages
from genmix_transforms.generators.textual_inversion.tokens import (
    PlaceholderTokens,
    check_classes,
    check_vectors,
    placeholder,
)


class TextualInversion(Generator):
    """Some word vectors for each class, learned for a latent diffusion model that stays as it came.

    The base model is not part of the generator's folder: its name, revision and a hash of its weights are.

    Args:
        classes: the class names. Each becomes a placeholder token, ``<cyst>``, of several vectors.
        base: a folder as diffusers' pipelines save it, a hub id, what :func:`find_base_model` found, or another
            generator's :attr:`model`, to share it.
        revision: branch, tag or commit on the hub.
        resolution: side of the images in pixels; the base model's own is scaled to it.
        channels: 1 or 3.
        vectors: learned for each class: a number, or ``{class: number}``. One is what Gal et al. learn; what is far
            from the base model's own images needs more.
        initial_words: of classes, to begin with, ``{class: "dark round cyst"}``; left out, the class's name.
        templates: prompts to learn with, each with one ``{}``; None: a list of plain ones.
        modality: a word for that list: "ultrasound", "CT", "X-ray".
        prompt: the template that images are drawn with; None: the first of the templates.
        sampler: how images are drawn: a preset ("paper", "fast"), :class:`SamplerSettings` or a mapping of them.
        bits: 8 or 16 a pixel.

    Attributes:
        model: the base model, with adapters in its U-Net if any were trained.
        base: where that came from.
        start_images: the real ones that images are drawn from, if not from noise.
        channel_spread: of the grey images drawn so far, how far their three channels differed.

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

    def __init__(
        self,
        *,
        classes: Sequence[str],
        base: str | Path | BaseSource | LatentDiffusion = PAPER_MODEL,
        revision: str | None = None,
        resolution: int = 64,
        channels: int = 1,
        vectors: int | Mapping[str, int] = 8,
        initial_words: Mapping[str, str] | None = None,
        templates: str | Sequence[str] | None = None,
        modality: str | None = None,
        prompt: str | None = None,
        sampler: SamplerSettings | Mapping[str, Any] | str | None = None,
        bits: int = 8,
    ) -> None:
        self.classes = check_classes(classes)
        check_reserved(self.classes)
        resolution = whole_number(resolution, name="resolution", least=1)
        if channels not in (1, 3):
            raise InputError(f"TextualInversion: channels must be 1 (grey) or 3 (colour), got {channels}")
        if bits not in (8, 16):
            raise InputError(f"TextualInversion: bits must be 8 or 16, got {bits}")
        self.image_shape = (int(channels), resolution, resolution)
        self.pixel_dtype = torch.uint8 if bits == 8 else torch.uint16
        self.templates = choose_templates(templates, modality=modality)
        self.prompt = self.templates[0] if prompt is None else check_template(prompt)
        self.sampler = SamplerSettings.of(sampler)
        self.vectors = check_vectors(vectors, self.classes)
        self.provenance: dict[str, Any] = {}
        self.start_images: StartImages | None = None
        self.channel_spread = ChannelSpread()
        if isinstance(base, LatentDiffusion):
            if base.source is None or revision is not None:
                raise InputError(
                    "TextualInversion: base must be a folder, a hub id, or a model that open_base_model has opened, "
                    "which has no other revision"
                )
            self.model, self.base = base, base.source
        else:
            self.base = base if isinstance(base, BaseSource) else find_base_model(base, revision=revision)
            self.model = open_base_model(self.base)
        self.initial_words = check_initial_words(initial_words, self.classes, self.model.tokenizer)
        self._set_embeddings(self.initial_embeddings(0))
        self.tokens.check_own(self.templates)
        self._check_sampler()

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
        other.vectors = {name: len(embeddings[name]) for name in self.classes}
        other._set_embeddings(embeddings)
        return other

    def with_sampler(self, preset: str | None = None, /, **settings: Any) -> "TextualInversion":
        """The same, its images drawn otherwise.

        Args:
            preset: "paper" or "fast": those settings, in place of this one's.
            **settings: fields of :class:`SamplerSettings`; those left out stay as they are.

        Returns:
            Another generator; it shares the base model.

        Raises:
            InputError: settings that cannot work.
        """
        start = self.sampler if preset is None else SamplerSettings.of(preset)
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

    @torch.no_grad()
    def contexts(self) -> Tensor:
        """What the U-Net is told of each class when images are drawn: ``(K, 77, W)``, on the base model's device."""
        return self._encode([self.tokens.fill(self.prompt, name) for name in self.classes])

    @torch.no_grad()
    def negative_context(self) -> Tensor:
        """What the U-Net is led away from: ``(77, W)``, on the base model's device."""
        return self._encode([self.sampler.negative_prompt])[0]

    @torch.no_grad()
    def sample(self, labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images with :attr:`sampler`; see :meth:`Generator.sample`. A batch may be of several classes."""
        labels, seeds = check_labels_and_seeds(labels, seeds, classes=self.classes)
        return draw_pixels(self, labels, seeds)

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
    ) -> "TextualInversion":
        """Learn from real patches. Run again with the same arguments, it goes on where it stopped: on the CPU, exactly.

        The vectors begin as their initial words, unless ``warm_start`` says to go on from those it has.

        Args:
            dataset: the training set, of this generator's classes, size and channels.
            out: the run's folder; ``load_generator`` takes it, during the training too.
            seed: of the noise in the initial vectors, the data order and the steps' noise.
            warm_start: start from the vectors (and adapters) that it has.
            restart: throw away an earlier run in ``out``.
            device: where to train; None: CUDA where there is one. Several processes each get their own. The base model
                is moved there, and back at the end.
            progress: show a bar.
            **settings: fields of :class:`TrainingSettings`; an unknown one is an error that names it.

        Raises:
            InputError: data or options that do not fit; before any work.
            FloatingPointError: the training diverged.
        """
        trained = fit_textual_inversion(
            self, dataset, out=out, settings=TrainingSettings.of(settings), seed=seed, warm_start=warm_start,
            restart=restart, device=device, progress=progress,
        )  # fmt: skip
        self.model = trained.model
        self._set_embeddings(trained.embeddings)
        self.provenance = read_provenance(Path(out))
        return self

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
        return load_folder(cls, folder, config["config"], base=base).to(device)

    @classmethod
    def from_embeddings(
        cls,
        files: Mapping[str, str | Path],
        *,
        base: str | Path | LatentDiffusion = PAPER_MODEL,
        revision: str | None = None,
        **options: Any,
    ) -> "TextualInversion":
        """See :func:`from_embeddings`."""
        return from_embeddings(files, base=base, revision=revision, **options)

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
        self.tokens = PlaceholderTokens(self.model.tokenizer, self.vectors)
        self.tokens.check_room([*self.templates, self.prompt])

    def _check_sampler(self) -> None:
        self.tokens.ids([self.sampler.negative_prompt])
        make_scheduler(self.model.scheduler_config, self.sampler)

    def _encode(self, prompts: Sequence[str]) -> Tensor:
        device = self.model.device
        rows = torch.cat(list(self._embeddings.values())).to(device)
        return self.model.encode_text(self.tokens.ids(prompts).to(device), rows=rows)
