"""What every generator is: drawn from by label and seed, saved as a folder, loaded from a folder or the hub."""

import json
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from genmix_transforms.data.patches import PatchDataset, describe_counts
from genmix_transforms.errors import InputError, MissingPathError, OverwriteError
from genmix_transforms.files.atomic import write_json, write_tensors
from genmix_transforms.generators.folder import CONFIG, WEIGHTS
from genmix_transforms.generators.state import weights_hash

FORMAT_VERSION = 1

FEW_IMAGES = 100
"""Below this many images of a class, generators are known to copy or collapse; peers refuse such sets."""

Self = TypeVar("Self", bound="Generator")


class Generator(ABC):
    """A source of synthetic patches: the image of a (weights, label, seed) is always the same.

    A subclass gives :attr:`kind`, :attr:`config`, :attr:`network`, :meth:`fit` and :meth:`sample`. It is found by its
    kind: a module ``genmix_transforms.generators.<kind>`` with the hyphens as underscores, or an entry point of that
    name in the group ``genmix_transforms.generators``.

    Attributes:
        kind: the name it goes by in ``config.json`` and on the command line.
        mixes_classes: whether a batch may hold images of several classes; False: each class has its own network.
        classes: class names; a label is an index into them.
        image_shape: ``(C, H, W)`` of what it draws.
        pixel_dtype: uint8 or uint16.
        provenance: where the weights come from: training set (fingerprint and class counts), options, images seen.
    """

    kind: ClassVar[str]
    mixes_classes: ClassVar[bool] = True
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_dtype: torch.dtype = torch.uint8
    provenance: dict[str, Any]

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

    @property
    def sample_batch(self) -> int:
        """How many images :meth:`sample` computes together; asked for a multiple, it computes none to throw away."""
        return 64

    @abstractmethod
    def fit(self, dataset: PatchDataset, *, out: str | Path, **options: Any) -> "Generator":
        """Train on real patches; run again, it goes on where it stopped. Returns itself."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self: Self, device: str | torch.device) -> Self:
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
        cls: type[Self], source: str | Path, *, revision: str | None = None, device: str | torch.device = "cpu"
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
    def _from_folder(cls: type[Self], folder: Path, config: dict[str, Any]) -> Self:
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
