"""The bank in memory: what GenMix draws its partners from."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genmix_transforms.bank import store
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError
from genmix_transforms.files.arrays import read_npz
from genmix_transforms.files.images import Fit, class_folders, fit_images, read_images

HIGHEST_PIXEL = {torch.uint8: 255, torch.uint16: 65535}


class SyntheticBank(nn.Module):
    """Synthetic images with their labels and class names, on one device.

    The images are kept as integers, a quarter of a float batch's memory, sorted by class, so that a draw within a class
    is ``start[c] + floor(u * count[c])``. All tensors are non-persistent buffers: the bank moves with ``.to(device)``
    and is in no checkpoint of the model it helps to train.

    Args:
        images: ``(N, C, *spatial)``, uint8 or uint16.
        labels: ``(N,)``, whole numbers, indices into ``classes``; or ``(N, K)`` of class probabilities, any real dtype,
            in which case an image counts for its most probable class when partners are drawn by class.
        classes: the class names, in the order of their indices.
        seeds: ``(N,)``, int64: the seed each image came from; None or -1: from none.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value.
        provenance: where the images come from, as JSON can hold it.

    Raises:
        InputError: shapes, dtypes, labels or names that do not fit together.

    Attributes:
        images, labels, seeds: as above, sorted by class (``labels`` int64, or float32 if probabilities).
        class_start, class_count: int64 ``(K,)``: where each class begins, and how many images it has.

    Example:
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> bank.class_counts
        {'cyst': 2, 'metastasis': 4}
    """

    images: Tensor
    labels: Tensor
    seeds: Tensor
    class_start: Tensor
    class_count: Tensor

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        classes: Sequence[str],
        seeds: Tensor | None = None,
        window: tuple[float, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.classes = _check_classes(classes)
        labels = _check_tensors(images, labels, self.classes)
        if seeds is None:
            seeds = torch.full((len(images),), -1, dtype=torch.int64, device=images.device)
        if seeds.shape != (len(images),) or seeds.dtype != torch.int64:
            raise InputError(
                f"SyntheticBank: seeds must be int64 of shape ({len(images)},), "
                f"got {seeds.dtype} of shape {tuple(seeds.shape)}"
            )
        self.window = window
        self.provenance: dict[str, Any] = dict(provenance or {})
        index = labels if labels.ndim == 1 else labels.argmax(dim=1)
        if len(index) > 1 and bool((index[1:] < index[:-1]).any()):
            order = torch.argsort(index, stable=True)
            images, labels, seeds, index = images[order], labels[order], seeds[order], index[order]
        count = torch.bincount(index, minlength=len(self.classes))
        start = count.cumsum(0) - count
        for name, tensor in (
            ("images", images),
            ("labels", labels),
            ("seeds", seeds),
            ("class_start", start),
            ("class_count", count),
        ):
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return self.images.shape[0]

    def extra_repr(self) -> str:
        """What ``print(bank)`` shows."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        shape = " x ".join(map(str, self.image_shape))
        return f"{len(self)} images, {shape}, {self.images.dtype}, {self.images.device}; {counts}"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of an image."""
        return tuple(self.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """How many classes the bank knows, those without an image included."""
        return len(self.classes)

    @property
    def class_counts(self) -> dict[str, int]:
        """How many images each class has, ``{name: n}``, in the order of ``classes``."""
        return dict(zip(self.classes, self.class_count.tolist(), strict=True))

    def unit(self, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """How a pixel becomes a value of the user's normalised batches: ``value = pixel * scale + shift``.

        Args:
            mean: of the user's ``v2.Normalize``, one for each channel or one for all; None: 0.
            std: likewise; None: 1. With neither, values are in [0, 1].

        Returns:
            ``scale`` and ``shift``, float32 ``(C, 1, ...)``, on the CPU.
        """
        channels, dimensions = self.image_shape[0], len(self.image_shape)
        values = []
        for name, given, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            tensor = torch.as_tensor(default if given is None else given, dtype=torch.float64).flatten().cpu()
            if len(tensor) not in (1, channels):
                raise InputError(
                    f"{name} must have 1 or {channels} values, one a channel of the bank, got {len(tensor)}"
                )
            values.append(tensor.expand(channels).reshape(channels, *[1] * (dimensions - 1)))
        if not bool((values[1] > 0).all()):
            raise InputError(f"std must be positive, got {std}")
        return (1 / (HIGHEST_PIXEL[self.images.dtype] * values[1])).float(), (-values[0] / values[1]).float()

    def with_classes(self, classes: Sequence[str]) -> "SyntheticBank":
        """The same bank with its labels re-mapped, by name, to another list of classes.

        Args:
            classes: the data set's names in its order. Names that the bank has no image of get a count of 0.

        Raises:
            InputError: the bank has a class that ``classes`` does not name, or the bank's labels are probabilities of
                other classes.
        """
        classes = _check_classes(classes)
        if classes == self.classes:
            return self
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise InputError(
                f"the bank's classes are {', '.join(self.classes)}, the data's {', '.join(classes)}: "
                f"{', '.join(unknown)} is no class of the data; rename the bank's classes or take another bank"
            )
        column = torch.tensor([classes.index(name) for name in self.classes], device=self.labels.device)
        if self.labels.ndim == 1:
            labels = column[self.labels]
        else:
            labels = self.labels.new_zeros(len(self), len(classes)).index_copy(1, column, self.labels)
        return SyntheticBank(
            self.images, labels, classes=classes, seeds=self.seeds, window=self.window, provenance=self.provenance
        )

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, size: int | None = None, fit: Fit = "resize", channels: int | None = None
    ) -> "SyntheticBank":
        """A bank from a folder of class folders with images that any tool made.

        Args:
            folder: holds one folder a class; its name is the class's.
            size: side of the square patches in pixels; None keeps the files' size, which must be one and the same.
            fit: "resize", "pad" or "crop", see :func:`genmix_transforms.files.images.fit_images`.
            channels: 1 for grey, 3 for colour; None: as the files are.

        Raises:
            InputError: no such folder, no images, a corrupt image (named), or different sizes and no ``size``.
        """
        files = class_folders(Path(folder))
        paths = [path for several in files.values() for path in several]
        labels = torch.tensor([number for number, several in enumerate(files.values()) for _ in several])
        images = read_images(paths, size=size, fit=fit, channels=channels)
        return cls(images, labels, classes=list(files), provenance={"source": "folder of images"})

    @classmethod
    def from_npz(cls, path: str | Path, *, size: int | None = None, fit: Fit = "resize") -> "SyntheticBank":
        """A bank from an ``.npz`` with ``images`` ``(N, H, W)`` or ``(N, H, W, C)``, ``labels`` and ``label_names``.

        Args:
            path: of the file.
            size: side of the square patches in pixels; None keeps theirs.
            fit: "resize", "pad" or "crop".

        Raises:
            InputError: no such file, arrays missing, Python objects in it, or arrays that make no bank.
        """
        arrays = read_npz(Path(path))
        missing = {"images", "labels"} - arrays.keys()
        if missing:
            raise InputError(f"{path}: expected the arrays images and labels, {', '.join(sorted(missing))} missing")
        pixels = arrays["images"]
        if pixels.ndim not in (3, 4) or pixels.dtype.name not in store.PIXEL_DTYPES:
            raise InputError(
                f"{path}: images must be uint8 or uint16 of shape (N, H, W) or (N, H, W, C), "
                f"got {pixels.dtype} of shape {pixels.shape}"
            )
        images = torch.from_numpy(pixels)
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        labels = arrays["labels"].reshape(len(arrays["labels"]), -1)
        labels = labels[:, 0] if labels.shape[1] == 1 else labels
        if labels.dtype.kind not in "uif" or (labels.dtype.kind == "f" and labels.ndim == 1):
            raise InputError(f"{path}: labels must be whole numbers, or probabilities (N, K), got {labels.dtype}")
        label_tensor = torch.from_numpy(labels.astype("int64" if labels.ndim == 1 else "float32"))
        count = int(label_tensor.max()) + 1 if labels.ndim == 1 else labels.shape[1]
        names = (
            [str(name) for name in arrays["label_names"]] if "label_names" in arrays else list(map(str, range(count)))
        )
        if size is not None:
            images = fit_images(images, size, fit=fit)
        return cls(images, label_tensor, classes=names, provenance={"source": "npz"})

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as shards and a manifest. The folder appears whole, or not at all.

        Args:
            folder: must not exist, unless ``overwrite``.
            overwrite: replace the bank that is there.

        Raises:
            OverwriteError: the folder exists, and ``overwrite`` is False or what it holds is no bank.
        """
        folder = Path(folder).absolute()
        if folder.exists() and any(folder.iterdir()) and not (overwrite and (folder / store.INDEX).exists()):
            raise OverwriteError(
                f"{folder.name}: "
                + (
                    "not a bank: it is not overwritten"
                    if overwrite
                    else "exists already; give another, or overwrite=True"
                )
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(making, ignore_errors=True)
        try:
            making.mkdir()
            self._write(making)
            if folder.exists():
                retired = folder.with_name(f".{folder.name}.{os.getpid()}.old")
                folder.rename(retired)
                making.rename(folder)
                shutil.rmtree(retired)
            else:
                making.rename(folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def _write(self, folder: Path) -> None:
        per_shard = store.images_per_shard(self.image_shape, self.images.dtype)
        parts = range(0, max(1, len(self)), per_shard)
        shards = []
        for number, start in enumerate(parts):
            some = slice(start, start + per_shard)
            path = folder / store.shard_name(number, len(parts))
            store.write_shard(
                path, images=self.images[some], labels=self.labels[some], seeds=self.seeds[some], metadata={}
            )
            shards.append(store.Shard(file=path.name, count=len(self.images[some]), sha256=store.file_hash(path)))
        store.write_manifest(
            folder,
            store.Manifest(
                classes=self.classes,
                dtype=str(self.images.dtype).removeprefix("torch."),
                shape=self.image_shape,
                class_counts=tuple(self.class_count.tolist()),
                shards=tuple(shards),
                window=self.window,
                provenance=self.provenance,
            ),
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        classes: Sequence[str] | None = None,
        verify: bool = False,
    ) -> "SyntheticBank":
        """Open a saved bank.

        Args:
            folder: that :meth:`save` or ``fill_bank`` wrote.
            device: where to put it.
            classes: the data set's class names: labels are re-mapped to them by name, see :meth:`with_classes`.
            verify: check every shard's checksum first (about a second a gigabyte).

        Raises:
            InputError: no such bank, or classes that are not the data's.
            CorruptFileError: a shard or the manifest is not what was written; the message names it.
        """
        folder = Path(folder)
        manifest = store.read_manifest(folder)
        if verify:
            _verify(folder, manifest)
        tensors = store.read_shards(folder, manifest)
        try:
            bank = cls(
                tensors["images"],
                tensors["labels"],
                classes=manifest.classes,
                seeds=tensors["seeds"],
                window=manifest.window,
                provenance=manifest.provenance,
            )
        except InputError as error:
            raise CorruptFileError(f"{folder}: {error}") from error
        if tuple(bank.class_count.tolist()) != manifest.class_counts:
            raise CorruptFileError(
                f"{folder}: the manifest counts {dict(zip(manifest.classes, manifest.class_counts, strict=True))}, "
                f"the shards hold {bank.class_counts}"
            )
        bank._folder = folder
        if classes is not None:
            bank = bank.with_classes(classes)
            bank._folder = folder
        return bank.to(device)

    _folder: Path | None = None

    def verify(self) -> None:
        """Check the files this bank was loaded from against their checksums.

        Raises:
            CorruptFileError: names every shard that is missing or changed.
            InputError: the bank was not loaded from a folder.
        """
        if self._folder is None:
            raise InputError("verify: this bank was not loaded from a folder; there are no files to check")
        _verify(self._folder, store.read_manifest(self._folder))


def _verify(folder: Path, manifest: store.Manifest) -> None:
    corrupt = list(store.corrupt_shards(folder, manifest))
    if corrupt:
        raise CorruptFileError(
            f"{folder}: {', '.join(corrupt)}: missing or not the bytes that were written; fill the bank again"
        )


def _check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"SyntheticBank: classes must be a list of names, got {classes!r}")
    classes = tuple(classes)
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"SyntheticBank: classes must be different names, at least one, got {classes!r}")
    return classes


def _check_tensors(images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Check images and labels against each other, and return the labels as int64 ``(N,)`` or float32 ``(N, K)``."""
    if not isinstance(images, Tensor) or images.dtype not in HIGHEST_PIXEL or images.ndim < 3:
        raise InputError(
            "SyntheticBank: images must be a uint8 or uint16 tensor of shape (N, C, *spatial), got "
            + (
                f"{images.dtype} of shape {tuple(images.shape)}"
                if isinstance(images, Tensor)
                else type(images).__name__
            )
            + "; bring floats in [0, 1] there with (images * 255).round().to(torch.uint8)"
        )
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise InputError(
            f"SyntheticBank: labels must be a tensor of shape ({len(images)},) or ({len(images)}, {len(classes)}), got "
            + (f"{tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__)
        )
    if labels.device != images.device:
        raise InputError(
            f"SyntheticBank: images are on {images.device}, labels on {labels.device}: bring them together"
        )
    if labels.ndim == 1:
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise InputError(f"SyntheticBank: labels of shape (N,) must be whole numbers, got {labels.dtype}")
        labels = labels.long()
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise InputError(
                f"SyntheticBank: labels run from {int(labels.min())} to {int(labels.max())}, "
                f"but there are {len(classes)} classes ({', '.join(classes)})"
            )
        return labels
    if labels.shape[1] != len(classes):
        raise InputError(
            f"SyntheticBank: labels of shape (N, K) need a column a class, got {labels.shape[1]} columns "
            f"for {len(classes)} classes ({', '.join(classes)})"
        )
    labels = labels.float()
    if not bool(torch.isfinite(labels).all()) or bool((labels < 0).any()):
        raise InputError("SyntheticBank: label probabilities must be finite and not negative")
    return labels
