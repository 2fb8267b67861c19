"""What every generator is: drawn from by label and seed, saved as a folder, loaded from a folder or the hub."""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from genmix_transforms.data.patches import PatchDataset, describe_counts
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.generators.arguments import Labels, refuse_fixed, refuse_volumes, shape_of
from genmix_transforms.generators.estimate import Estimate
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.folder import (
    CONFIG,
    WEIGHTS,
    check_free,
    read_config,
    read_weights,
    resolve_source,
    write_config,
    write_weights,
)
from genmix_transforms.generators.job import Job, Trainee
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.settings import TrainingSettings
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.training import rehearse, train
from genmix_transforms.settings import Settings

FEW_IMAGES = 100
"""Below this many images of a class, generators are known to copy or collapse; peers refuse such sets."""


class Generator(ABC):
    """A source of synthetic patches: the image of a (weights, label, seed) is always the same.

    A subclass gives :attr:`kind`, :attr:`settings` or :attr:`config`, :attr:`network`, :meth:`sample`, and for
    :meth:`fit` its settings and :meth:`make_trainee`. It is found by its kind: a module
    ``genmix_transforms.generators.<kind>`` with the hyphens as underscores, or an entry point of that name in the group
    ``genmix_transforms.generators``.

    Attributes:
        kind: the name it goes by in ``config.json`` and on the command line.
        network_settings: options of the constructor, beside ``classes``, ``resolution``, ``channels`` and ``bits``.
        training_settings: options of :meth:`fit`.
        fine_tuning_preset: the preset of a warm start, where it is not the first.
        trains_per_class: whether a network for each class is offered (:class:`PerClass`).
        command_help: what ``genmix train KIND --help`` says of the kind: sizes, and how it trains, without a full stop.
        shows_evolution: whether a training keeps a figure of how the images of fixed seeds change.
        refuses_pretraining: why a pool of other images teaches this kind nothing; None: it does.
        mixes_classes: whether a batch may hold images of several classes; False: each class has its own network.
        refuses_soft_labels: why :meth:`sample` takes indices of classes alone; None: it takes rows of weights too.
        classes: class names; a label is an index into them.
        draws_volumes: whether it can be made for volumes ``(C, D, H, W)``.
        image_shape: ``(C, H, W)`` of what it draws, or ``(C, D, H, W)``.
        pixel_dtype: uint8 or uint16.
        settings: the network's settings, for a kind whose :attr:`config` is them, the classes, the size and the bits.
        provenance: where the weights come from: training set (fingerprint and class counts), options, images seen.
    """

    kind: ClassVar[str]
    network_settings: ClassVar[type[Settings]] = Settings
    training_settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    fine_tuning_preset: ClassVar[str | None] = None
    trains_per_class: ClassVar[bool] = False
    shows_evolution: ClassVar[bool] = False
    command_help: ClassVar[str | None] = None
    refuses_pretraining: ClassVar[str | None] = None
    mixes_classes: ClassVar[bool] = True
    refuses_soft_labels: ClassVar[str | None] = "this kind takes indices of classes alone"
    classes: tuple[str, ...]
    draws_volumes: bool = False
    image_shape: tuple[int, ...]
    pixel_dtype: torch.dtype = torch.uint8
    settings: Settings
    provenance: dict[str, Any]
    _network: Any

    @property
    def bits(self) -> int:
        """Of a pixel: 8 or 16."""
        return 8 * self.pixel_dtype.itemsize

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        channels, resolution, *_ = self.image_shape
        return {
            "classes": list(self.classes),
            "resolution": resolution,
            "channels": channels,
            "bits": self.bits,
            **self.settings.to_json(),
        }

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module that images are drawn from."""

    @abstractmethod
    def sample(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images.

        Args:
            labels: ``(n,)``, indices into ``classes``; or floats ``(n, K)``, soft labels: each row the weights of the
                classes, not negative, with a sum of 1. A class-conditional network is then told the mixture of what it
                is told of the classes; a row with all weight on one class gives that class's image.
            seeds: ``(n,)``, non-negative. An image depends on its own label and seed alone, not on the others'.

        Returns:
            ``(n, C, H, W)`` or ``(n, C, D, H, W)``, uint8 (uint16 for networks trained on 16 bits), on the CPU.

        Raises:
            InputError: labels or seeds that cannot be, or soft labels where :attr:`refuses_soft_labels` says why not.

        Source: Carlesso et al., "GeMix" (arXiv 2507.15577), for generators that are given soft labels.
        """

    @property
    def sample_batch(self) -> int:
        """How many images :meth:`sample` computes together; asked for a multiple, it computes none to throw away."""
        return 64

    @classmethod
    def for_patches(cls, patches: PatchDataset, **options: Any) -> Self:
        """Make a generator for a dataset: of its classes, size, channels and bits.

        Args:
            patches: what it will be trained on.
            **options: of the constructor.

        Raises:
            InputError: patches that are not square, volumes where the kind draws none, or options that make no network.

        Example:
            >>> from genmix_transforms.generators import DCGAN
            >>> patches = PatchDataset(
            ...     images=torch.zeros(2, 1, 16, 16, dtype=torch.uint8), labels=torch.tensor([0, 1]), classes=("a", "b")
            ... )
            >>> DCGAN.for_patches(patches, base_width=4).image_shape
            (1, 16, 16)
        """
        shape = shape_of(patches, painter=cls.__name__, volumes=cls.draws_volumes)
        return cls(classes=patches.classes, **shape, **options)  # type: ignore[call-arg]

    @classmethod
    def prepare_options(
        cls, options: Mapping[str, Any], *, training: Mapping[str, Any] | None = None, init: str | Path | None = None
    ) -> dict[str, Any]:
        """Check options of the constructor before the data is read, and look up what they name.

        Args:
            options: of the constructor; those that are left out keep their defaults.
            training: settings of the training that will follow, for what the network must have for them.
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
        return cls.from_pretrained(source).made_for(patches, source=source, **options)

    def made_for(self, patches: PatchDataset, *, source: str | Path = "the weights", **options: Any) -> Self:
        """What fine-tuning starts from: these weights, for a dataset's classes and kind of image.

        Classes that the weights do not know draw at first what weights without classes drew, or as the kind says.

        Args:
            patches: what it will be trained on.
            source: what to call the weights in messages.
            **options: as for :meth:`adapted_to`.

        Returns:
            A generator; itself, where nothing has to change.

        Raises:
            InputError: see :meth:`adapted_to`.
        """
        refuse_fixed(source, options, self.config)
        self.check_trainable_on(patches)
        return self

    @classmethod
    def pretraining_options(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Share the constructor's options between a generator that is pre-trained, and :meth:`made_for` after it."""
        return dict(options), dict(options)

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
        job = self._job(dataset, out=out, seed=seed, warm_start=warm_start, device=device, settings=settings)
        self.provenance = train(job, restart=restart, progress=progress)
        self.take_up(self.with_result(job.trainee))
        return self.to(job.processes.device)

    def estimate(
        self,
        dataset: PatchDataset,
        *,
        out: str | Path,
        seed: int = 0,
        warm_start: bool = False,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> Estimate:
        """Say how long a training would take here, and how much memory and disk: a few real steps are timed.

        All that :meth:`fit` checks is checked, and nothing is written. The steps change the weights: make another
        generator to train.

        Args:
            dataset: as for :meth:`fit`, as are the other arguments.
            out: the run's folder.
            seed: of the weights.
            warm_start: whether to start from the weights that it has.
            device: where to train.
            **settings: fields of :attr:`training_settings`.

        Raises:
            InputError: what :meth:`fit` would raise.
        """
        return rehearse(self._job(dataset, out=out, seed=seed, warm_start=warm_start, device=device, settings=settings))

    def _job(
        self,
        dataset: PatchDataset,
        *,
        out: str | Path,
        seed: int,
        warm_start: bool,
        device: str | torch.device | None,
        settings: Mapping[str, Any],
    ) -> Job:
        """Check and put together a training."""
        chosen = self.choose_settings(settings, warm_start=warm_start)
        seed = check_seed(seed)
        self.check_trainable_on(dataset)
        processes = Processes.join(device)
        chosen = self.resolve(chosen, dataset, warm_start=warm_start, processes=processes)
        started_from = self.origin() if warm_start else None
        trainee = self.make_trainee(chosen, dataset, seed=seed, warm_start=warm_start, processes=processes)
        options = {"kind": self.kind, **self.training_identity(), **chosen.identity()}
        if started_from is not None:
            options["started_from"] = started_from["weights"]
            if "discriminator" in started_from:
                options["discriminator"] = started_from["discriminator"]
        return Job(
            trainee=trainee,
            dataset=dataset,
            out=Path(out),
            snapshot=lambda: self.with_result(trainee),
            settings=chosen,
            seed=seed,
            options=options,
            processes=processes,
            started_from=started_from,
            evolution=Evolution(self.classes, batch_size=chosen.batch_size) if self.shows_evolution else None,
            inputs=getattr(trainee, "inputs", None),
        )

    @classmethod
    def choose_settings(cls, given: Mapping[str, Any], *, warm_start: bool = False) -> TrainingSettings:
        """The settings of a training, from those that were given and the preset.

        Raises:
            InputError: a setting that does not exist, or a value that cannot be.
        """
        preset = {"preset": cls.fine_tuning_preset} if warm_start and cls.fine_tuning_preset else {}
        return cls.training_settings.of({**preset, **given}, name=f"{cls.__name__}.fit")

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

    def training_record(self) -> dict[str, Any]:
        """What is recorded of the images that its weights, all of them, were trained on; empty: nothing is."""
        return dict(self.provenance.get("training_set", {}))

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
        write_weights(folder / WEIGHTS, self.network.state_dict(), provenance=self.provenance)
        write_config(folder, kind=self.kind, config=self.config)

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
        weights, generator.provenance = read_weights(folder / WEIGHTS)
        try:
            generator.network.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"{folder / WEIGHTS}: not the weights that {CONFIG} describes ({error})") from error
        return generator

    def check_trainable_on(self, dataset: PatchDataset) -> None:
        """Raise an :class:`InputError` if the data cannot train this generator; warn where a class is very small."""
        if not isinstance(dataset, PatchDataset):
            raise InputError(f"{type(self).__name__}: expected a PatchDataset, got a {type(dataset).__name__}")
        dataset.labels  # noqa: B018  (patches with several labels each refuse to say which)
        if dataset.classes != self.classes:
            raise InputError(
                f"{type(self).__name__}: made for the classes {', '.join(self.classes)}, "
                f"the data has {', '.join(dataset.classes)}"
            )
        if not self.draws_volumes:
            refuse_volumes(dataset, painter=type(self).__name__)
        if dataset.dimensions != len(self.image_shape) - 1:
            here, there = ("images", "volumes") if dataset.dimensions == 3 else ("volumes", "images")
            raise InputError(
                f"{type(self).__name__}: the network draws {here} of {_shape_text(self.image_shape)}, the data has "
                f"{there} of {_shape_text(tuple(dataset.images.shape[1:]))}, and weights of one do not fit the other; "
                "train a network for the data from scratch"
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


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
