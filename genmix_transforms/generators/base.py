"""What every generator is: drawn from by label and seed, saved as a folder, loaded from a folder or the hub."""

import copy
import json
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from genmix_transforms.data.patches import PatchDataset, describe_counts
from genmix_transforms.errors import InputError, MissingPathError, OverwriteError
from genmix_transforms.files.atomic import write_json, write_tensors
from genmix_transforms.files.checks import check_seed
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.folder import CONFIG, WEIGHTS
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.training import Trainee, train
from genmix_transforms.settings import Settings

FORMAT_VERSION = 1

FEW_IMAGES = 100
"""Below this many images of a class, generators are known to copy or collapse; peers refuse such sets."""


class Generator(ABC):
    """A source of synthetic patches: the image of a (weights, label, seed) is always the same.

    A subclass gives :attr:`kind`, :attr:`config`, :attr:`network`, :meth:`sample`, and for :meth:`fit` its settings and
    :meth:`make_trainee`. It is found by its kind: a module ``genmix_transforms.generators.<kind>`` with the hyphens as
    underscores, or an entry point of that name in the group ``genmix_transforms.generators``.

    Attributes:
        kind: the name it goes by in ``config.json`` and on the command line.
        network_settings: options of the constructor, beside ``classes``, ``resolution``, ``channels`` and ``bits``.
        training_settings: options of :meth:`fit`.
        fine_tuning_preset: the preset of a warm start, where it is not the first.
        trains_per_class: whether a network for each class is offered (:class:`PerClass`).
        command_help: what ``genmix train KIND --help`` begins with; None: the same as for every kind.
        shows_evolution: whether a training keeps a figure of how the images of fixed seeds change.
        classes: class names; a label is an index into them.
        image_shape: ``(C, H, W)`` of what it draws.
        pixel_dtype: uint8 or uint16.
        provenance: where the weights come from: training set (fingerprint and class counts), options, images seen.
    """

    kind: ClassVar[str]
    network_settings: ClassVar[type[Settings]] = Settings
    training_settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    fine_tuning_preset: ClassVar[str | None] = None
    trains_per_class: ClassVar[bool] = False
    shows_evolution: ClassVar[bool] = False
    command_help: ClassVar[str | None] = None
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_dtype: torch.dtype = torch.uint8
    provenance: dict[str, Any]
    _network: Any

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module that images are drawn from."""

    @abstractmethod
    def sample(self, labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images.

        Args:
            labels: ``(n,)``, indices into ``classes``.
            seeds: ``(n,)``, non-negative. An image depends on its own label and seed alone, not on the others'.

        Returns:
            ``(n, C, H, W)``, uint8 (uint16 for networks trained on 16 bits), on the CPU.
        """

    @classmethod
    def for_patches(cls, patches: PatchDataset, **options: Any) -> Self:
        """Make a generator for a dataset: of its classes, size, channels and bits.

        Args:
            patches: what it will be trained on.
            **options: of the constructor.

        Raises:
            InputError: patches that are not square, or options that make no network.

        Example:
            >>> from genmix_transforms.generators import DCGAN
            >>> patches = PatchDataset(
            ...     images=torch.zeros(2, 1, 16, 16, dtype=torch.uint8), labels=torch.tensor([0, 1]), classes=("a", "b")
            ... )
            >>> DCGAN.for_patches(patches, base_width=4).image_shape
            (1, 16, 16)
        """
        return cls(classes=patches.classes, **shape_of(patches, painter=cls.__name__), **options)  # type: ignore[call-arg]

    @classmethod
    def prepare_options(cls, options: Mapping[str, Any], *, init: str | Path | None = None) -> dict[str, Any]:
        """Check options of the constructor before the data is read, and look up what they name.

        Args:
            options: of the constructor; those that are left out keep their defaults.
            init: what :meth:`adapted_to` will start from; None: new weights.

        Returns:
            The options to give to :meth:`for_patches` or :meth:`adapted_to`.

        Raises:
            InputError: options that cannot be.
        """
        cls.network_settings.of(options, name=cls.__name__)
        return dict(options)

    @classmethod
    def adapted_to(cls, source: str | Path, patches: PatchDataset, **options: Any) -> Self:
        """Load a trained generator to fine-tune it on a dataset.

        Args:
            source: a folder, or the id of a model repository on the hub.
            patches: what it will be trained on.
            **options: of the constructor; those that the weights fix must have the values that they fix.

        Raises:
            InputError: weights that cannot be adapted to the patches, or that fix an option otherwise.
        """
        generator = cls.from_pretrained(source)
        refuse_fixed(source, options, generator.config)
        generator.check_trainable_on(patches)
        return generator

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
    ) -> Self:
        """Train on real patches. Run it again with the same arguments to go on where it stopped: on the CPU, exactly.

        The weights are drawn with ``seed``, unless ``warm_start`` says to go on from those it has. Afterward the
        generator is on the device that it was trained on.

        Args:
            dataset: the training set; its classes, size and channels are this generator's.
            out: the run's folder; ``load_generator`` takes it, during the training too.
            seed: of the weights, the data order and the noise.
            warm_start: start from the weights that it has: fine-tuning.
            restart: throw away an earlier run in ``out``.
            device: where to train; None: CUDA where there is one. Several processes each get their own.
            progress: show a bar.
            **settings: fields of :attr:`training_settings`; ``print(DCGAN.training_settings.table())`` lists a kind's.

        Returns:
            Itself.

        Raises:
            InputError: data or settings that do not fit, or a setting that does not exist; before any work.
            FloatingPointError: the training diverged.
        """
        name = f"{type(self).__name__}.fit"
        if warm_start and self.fine_tuning_preset is not None:
            settings = {"preset": self.fine_tuning_preset, **settings}
        chosen = self.training_settings.of(settings, name=name)
        seed = check_seed(seed)
        self.check_trainable_on(dataset)
        processes = Processes.join(device)
        chosen = self.resolve(chosen, dataset, warm_start=warm_start, processes=processes)
        started_from = self.origin() if warm_start else None
        trainee = self.make_trainee(chosen, dataset, seed=seed, warm_start=warm_start, processes=processes)
        self.provenance = train(
            trainee,
            dataset,
            out=out,
            snapshot=lambda: self.with_result(trainee),
            steps=chosen.steps,
            batch_size=chosen.batch_size,
            seed=seed,
            options={
                "kind": self.kind,
                **self.training_identity(),
                **chosen.identity(),
                **({"started_from": started_from["weights"]} if started_from else {}),
            },
            settings=chosen.to_json(),
            checkpoint_every=chosen.checkpoint_every,
            mixed_precision=chosen.mixed_precision,
            restart=restart,
            progress=progress,
            processes=processes,
            started_from=started_from,
            evolution=Evolution(self.classes, batch_size=chosen.batch_size) if self.shows_evolution else None,
            inputs=getattr(trainee, "inputs", None),
        )
        self.take_up(self.with_result(trainee))
        return self.to(processes.device)

    def resolve(self, settings: Any, dataset: PatchDataset, *, warm_start: bool, processes: Processes) -> Any:
        """Check the settings against data, network and processes, and fill in what follows from those.

        Args:
            settings: of this kind's :attr:`training_settings`.
            dataset: the training set.
            warm_start: whether the training starts from the weights that there are.
            processes: who trains together.

        Returns:
            The settings to train with.

        Raises:
            InputError: settings that do not fit.
        """
        return settings

    def make_trainee(
        self, settings: Any, dataset: PatchDataset, *, seed: int, warm_start: bool, processes: Processes
    ) -> Trainee:
        """Put together what the loop trains, on the device of ``processes``.

        Args:
            settings: as :meth:`resolve` returned them.
            dataset: the training set.
            seed: of the weights.
            warm_start: start from the weights that there are, instead of drawing new ones.
            processes: who trains together.

        Returns:
            What the loop trains. It has a method ``result()``, for :meth:`with_result`; with an attribute ``inputs`` it
            is shown what that makes of indices into the training set, in place of the pixels.
        """
        raise NotImplementedError(f"a {self.kind} generator cannot be trained")

    def with_result(self, trainee: Any) -> Self:
        """What a trainee has made so far, as a generator; it shares the weights."""
        return self.with_network(trainee.result())

    def take_up(self, trained: Self) -> None:
        """Draw from now on as ``trained`` does."""
        self._network = trained._network

    def with_network(self, network: nn.Module) -> Self:
        """The same generator with other weights: it shares ``network``, and has a provenance of its own."""
        other = copy.copy(self)
        other._network = network
        other.provenance = copy.deepcopy(self.provenance)
        return other

    def training_identity(self) -> dict[str, Any]:
        """What, besides the settings, a run must have in common with the run that it resumes."""
        return {"config": self.config}

    def origin(self) -> dict[str, Any]:
        """What is recorded of the weights that a training starts from."""
        return {"weights": self.weights_hash, **self.provenance}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Move the network, and return the generator."""
        self.network.to(device)
        return self

    @property
    def weights_hash(self) -> str:
        """sha256 of the weights: with label and seed, the identity of an image."""
        return weights_hash(self.network.state_dict())

    def describe(self) -> dict[str, Any]:
        """What a bank records of the generator that filled it."""
        return {
            "kind": self.kind,
            "config": self.config,
            "weights": f"sha256:{self.weights_hash}",
            "training": self.provenance,
        }

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as ``config.json`` and ``model.safetensors``.

        Args:
            folder: made if need be.
            overwrite: replace a generator that is there.

        Raises:
            OverwriteError: the folder holds a generator, and ``overwrite`` is False.
        """
        folder = Path(folder)
        check_free(folder, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        # The provenance travels inside the weights' file: one rename replaces both. One key only: safetensors writes
        # several in random order, and the same weights should make the same file.
        metadata = {"genmix_provenance": json.dumps(self.provenance)}
        write_tensors(folder / WEIGHTS, self.network.state_dict(), metadata=metadata)
        write_config(folder, self)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, device: str | torch.device = "cpu"
    ) -> Self:
        """Load what :meth:`save_pretrained` saved.

        Args:
            source: a folder, or the id of a model repository on the hub.
            revision: branch, tag or commit on the hub.
            device: where to put the network.

        Raises:
            InputError: no such folder or repository, another kind of generator, or weights that do not fit.
        """
        folder = resolve_source(source, revision=revision)
        config = read_config(folder)
        if config["kind"] != cls.kind:
            raise InputError(f"{source}: a {config['kind']} generator, not a {cls.kind}; load_generator takes any kind")
        return cls._from_folder(folder, config["config"]).to(device)

    @classmethod
    def _from_folder(cls, folder: Path, config: dict[str, Any]) -> Self:
        generator = cls(**config)
        weights = folder / WEIGHTS
        if not weights.exists():
            raise MissingPathError(f"{weights}: no such file; {folder} has a {CONFIG} but no weights")
        try:
            with safetensors.safe_open(weights, framework="pt") as file:
                generator.provenance = json.loads((file.metadata() or {}).get("genmix_provenance", "{}"))
            generator.network.load_state_dict(safetensors.torch.load_file(weights))
        except (safetensors.SafetensorError, RuntimeError) as error:
            raise InputError(f"{weights}: not the weights that {CONFIG} describes ({error})") from error
        return generator

    def check_trainable_on(self, dataset: PatchDataset) -> None:
        """Raise an :class:`InputError` if the data cannot train this generator; warn where a class is very small."""
        if not isinstance(dataset, PatchDataset):
            raise InputError(f"{type(self).__name__}: expected a PatchDataset, got a {type(dataset).__name__}")
        if dataset.classes != self.classes:
            raise InputError(
                f"{type(self).__name__}: made for the classes {', '.join(self.classes)}, "
                f"the data has {', '.join(dataset.classes)}"
            )
        if tuple(dataset.images.shape[1:]) != self.image_shape or dataset.images.dtype != self.pixel_dtype:
            raise InputError(
                f"{type(self).__name__}: made for {_shape_text(self.image_shape)} {self.pixel_dtype} images, "
                f"the data has {_shape_text(tuple(dataset.images.shape[1:]))} {dataset.images.dtype}; "
                f"open it with size={self.image_shape[1]}, channels={self.image_shape[0]}"
            )
        empty = [name for name, count in dataset.class_counts.items() if not count]
        if empty:
            raise InputError(f"{dataset.name}: no image of class {', '.join(empty)} to train on; leave the class out")
        few = {name: count for name, count in dataset.class_counts.items() if count < FEW_IMAGES}
        if few:
            warnings.warn(
                f"very few images to train a generator on: {describe_counts(few)} (fewer than {FEW_IMAGES}): expect "
                "copies of the training images and little variety; look at the sheets, and keep any augmentation on",
                stacklevel=3,
            )


def check_class_names(classes: Sequence[str], *, name: str) -> tuple[str, ...]:
    """Class names as a tuple.

    Raises:
        InputError: a text, something other than names, none at all, or one name twice.
    """
    if isinstance(classes, str):
        raise InputError(f"{name}: classes must be different names, in a list; got the text {classes!r}")
    classes = tuple(classes)
    if not all(isinstance(word, str) for word in classes):
        raise InputError(f"{name}: classes must be names, got {classes!r}")
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"{name}: classes must be different names, at least one, got {classes!r}")
    return classes


def check_bits(bits: int, *, name: str) -> torch.dtype:
    """The pixel type of 8 or 16 bits.

    Raises:
        InputError: another number.
    """
    if bits not in (8, 16):
        raise InputError(f"{name}: bits must be 8 or 16, got {bits}")
    return torch.uint8 if bits == 8 else torch.uint16


def shape_of(patches: PatchDataset, *, painter: str) -> dict[str, int]:
    """The resolution, channels and bits of a dataset, as constructors take them.

    Raises:
        InputError: patches that are not square.
    """
    _, channels, height, width = patches.images.shape
    if height != width:
        raise InputError(
            f"the patches are {height}x{width}, and a {painter} draws squares: give --size (with --fit crop or pad)"
        )
    return {"resolution": height, "channels": channels, "bits": 8 * patches.images.dtype.itemsize}


def refuse_fixed(source: str | Path, asked: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Refuse options that given weights fix otherwise.

    Args:
        source: where the weights are, for the message.
        asked: options by name; None is one that was left out.
        fixed: the values that the weights have.

    Raises:
        InputError: another value.
    """
    for name, value in asked.items():
        if value is not None and name in fixed and value != fixed[name]:
            raise InputError(
                f"{source}: its weights have {name} {fixed[name]!r}, and {value!r} was asked for; leave {name} out, or "
                "train from scratch"
            )


def check_labels_and_seeds(
    labels: Tensor | Sequence[int], seeds: Tensor | Sequence[int], *, classes: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Labels and seeds as int64 tensors on the CPU, or an :class:`InputError` that says what is wrong with them."""
    try:
        labels = torch.as_tensor(labels, device="cpu")
        seeds = torch.as_tensor(seeds, device="cpu")
        labels, seeds = (
            values.long() if values.dtype in (torch.uint16, torch.uint32, torch.uint64) else values
            for values in (labels, seeds)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"sample: labels and seeds must be whole numbers below 2**63 ({error})") from error
    for name, values in (("labels", labels), ("seeds", seeds)):
        if values.ndim != 1 or (values.numel() and (values.is_floating_point() or values.dtype == torch.bool)):
            raise InputError(
                f"sample: {name} must be whole numbers of shape (n,), got {values.dtype} of shape {tuple(values.shape)}"
            )
    if labels.shape != seeds.shape:
        raise InputError(f"sample: one seed for each label, got {len(labels)} labels and {len(seeds)} seeds")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise InputError(
            f"sample: labels run from {int(labels.min())} to {int(labels.max())}, "
            f"but the classes are {', '.join(f'{number} {name}' for number, name in enumerate(classes))}"
        )
    if seeds.numel() and int(seeds.min()) < 0:
        raise InputError(f"sample: seeds must not be negative, got {int(seeds.min())}")
    return labels.long(), seeds.long()


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a generator, unless told to overwrite it."""
    if (folder / CONFIG).exists() and not overwrite:
        raise OverwriteError(f"{folder}: holds a generator already; give another folder, or overwrite=True")


def write_config(folder: Path, generator: Generator) -> None:
    """Write ``config.json``: kind, format version and the constructor's arguments."""
    write_json(folder / CONFIG, {"kind": generator.kind, "format_version": FORMAT_VERSION, "config": generator.config})


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``."""
    file = folder / CONFIG
    if not file.exists():
        raise MissingPathError(
            f"{folder}: no {CONFIG}: not a generator, or one whose training has not reached its first checkpoint"
        )
    try:
        config = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable JSON ({error})") from error
    if not isinstance(config, Mapping) or not isinstance(config.get("kind"), str) or "config" not in config:
        raise InputError(f"{file}: expected the keys 'kind' and 'config', as save_pretrained writes them")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{file}: format version {config.get('format_version')!r}; this release reads {FORMAT_VERSION}: upgrade it"
        )
    return dict(config)


def resolve_source(source: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a generator: the path itself, or the hub's snapshot of a repository."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith((".", os.sep)):
        raise MissingPathError(f"{source}: no such folder, and not a hub id (owner/name)")
    if folder.parent != Path() and folder.parent.is_dir():  # "runs/mien" is a slip, not somebody's repository
        raise MissingPathError(f"{source}: no such folder (in {folder.parent} there is no {folder.name})")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingPathError(
            f"{source}: no such folder, and not to be had from the hub ({type(error).__name__})"
        ) from error


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
