"""The bank in memory: what GenMix draws its partners from."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank import store
from genmix_transforms.bank.buffers import KeepsDtypes
from genmix_transforms.bank.checks import check_classes, check_provenance, check_seeds, check_tensors, check_window
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError
from genmix_transforms.files.arrays import read_npz
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.images import HIGHEST_PIXEL, Fit, class_folders, fit_images, read_images


class SyntheticBank(KeepsDtypes):
    """Synthetic images with their labels and class names, on one device.

    The images are kept as integers, a quarter of a float batch's memory, sorted by class, so that a draw within a class
    is ``start[c] + floor(u * count[c])``. All tensors are non-persistent buffers: the bank moves with ``.to(device)``,
    keeps its dtypes when the model it helps to train is converted, and is in none of that model's checkpoints.

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
        self.classes = check_classes(classes)
        labels = check_tensors(images, labels, self.classes)
        seeds = check_seeds(seeds, images)
        self.window = check_window(window)
        self.provenance = check_provenance(provenance)
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
            try:
                tensor = torch.as_tensor(
                    default if given is None else given, dtype=torch.float64, device="cpu"
                ).flatten()
            except (TypeError, ValueError, RuntimeError) as error:
                raise InputError(f"{name} must be numbers, one a channel, got {given!r}") from error
            if not bool(tensor.isfinite().all()):
                raise InputError(f"{name} must be finite, got {given!r}")
            if len(tensor) not in (1, channels):
                raise InputError(
                    f"{name} must have one value, or one for each of the bank's {channels} channels, got {len(tensor)}"
                )
            values.append(tensor.expand(channels).reshape(channels, *[1] * (dimensions - 1)))
        if not bool((values[1] > 0).all()):
            raise InputError(f"std must be positive, got {std}")
        return (1 / (HIGHEST_PIXEL[self.images.dtype] * values[1])).float(), (0.0 - values[0] / values[1]).float()

    def with_classes(self, classes: Sequence[str]) -> "SyntheticBank":
        """The same bank with its labels re-mapped, by name, to another list of classes.

        Args:
            classes: the data set's names in its order. Names that the bank has no image of get a count of 0.

        Raises:
            InputError: the bank has a class that ``classes`` does not name.
        """
        classes = check_classes(classes)
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
        mapped = SyntheticBank(
            self.images, labels, classes=classes, seeds=self.seeds, window=self.window, provenance=self.provenance
        )
        mapped._folder = self._folder
        return mapped

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

        Without ``label_names`` the classes are named by the numbers that occur, or by the columns of probabilities.

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
        images = torch.from_numpy(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        labels, classes = _npz_labels(Path(path), arrays["labels"], arrays.get("label_names"))
        if size is not None:
            images = fit_images(images, size, fit=fit)
        return cls(images, labels, classes=classes, provenance={"source": "npz"})

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as shards and a manifest. The folder appears whole, or not at all.

        Args:
            folder: must not exist, unless ``overwrite``.
            overwrite: replace the bank that is there.

        Raises:
            OverwriteError: the folder exists, and ``overwrite`` is False or what it holds is no bank; or it is a file.
        """
        folder = Path(folder).absolute()
        if folder.exists() and not folder.is_dir():
            raise OverwriteError(f"{folder.name}: a file stands there; give another folder")
        if folder.exists() and any(folder.iterdir()) and not (overwrite and (folder / store.INDEX).exists()):
            raise OverwriteError(
                f"{folder.name}: "
                + (
                    "not a bank: it is not overwritten"
                    if overwrite
                    else "exists already; give another, or overwrite=True"
                )
            )
        foreign = (
            [file.name for file in folder.iterdir() if not store.is_bank_file(file.name)] if folder.exists() else []
        )
        if foreign:
            raise OverwriteError(
                f"{folder.name}: holds files that are not the bank's ({', '.join(sorted(foreign)[:3])}): "
                "move them away, or give another folder"
            )
        check_output_folder(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(making, ignore_errors=True)
        try:
            making.mkdir()
            self._write(making)
            if folder.exists():
                retired = folder.with_name(f".{folder.name}.{os.getpid()}.old")
                try:
                    folder.rename(retired)
                    making.rename(folder)
                except BaseException:
                    if retired.exists() and not folder.exists():
                        retired.rename(folder)
                    raise
                shutil.rmtree(retired)
            else:
                making.rename(folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        self._folder = folder

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
        bank._folder = folder.absolute()
        if classes is not None:
            bank = bank.with_classes(classes)
        return bank.to(device)

    _folder: Path | None = None

    def verify(self) -> None:
        """Check the files this bank was saved to or loaded from against their checksums.

        Raises:
            CorruptFileError: names every shard that is missing or changed.
            InputError: the bank was neither saved nor loaded.
        """
        if self._folder is None:
            raise InputError("verify: this bank was neither saved nor loaded: there are no files to check")
        _verify(self._folder, store.read_manifest(self._folder))


def _verify(folder: Path, manifest: store.Manifest) -> None:
    corrupt = list(store.corrupt_shards(folder, manifest))
    if corrupt:
        raise CorruptFileError(
            f"{folder}: {', '.join(corrupt)}: missing or not the bytes that were written; fill the bank again"
        )


def _npz_labels(
    path: Path, raw: NDArray[np.generic], label_names: NDArray[np.generic] | None
) -> tuple[Tensor, list[str]]:
    """Labels of an ``.npz`` as a tensor, and the class names."""
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim not in (1, 2) or raw.dtype.kind not in ("uif" if raw.ndim == 2 else "ui"):
        raise InputError(
            f"{path}: labels must be whole numbers (N,), or probabilities (N, K), got {raw.dtype} of shape {raw.shape}"
        )
    labels = torch.from_numpy(raw.astype(np.int64 if raw.ndim == 1 else np.float32))
    if label_names is not None:
        texts = label_names.reshape(-1).tolist()
        return labels, [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts]
    if labels.ndim == 2:
        return labels, [str(column) for column in range(labels.shape[1])]
    # As the data sets are read: numbers with gaps, or from 1 on, name no classes that are not there.
    present, labels = labels.unique(return_inverse=True)
    if len(present) and present[0] < 0:
        raise InputError(f"{path}: labels go down to {int(present[0])}; class numbers are 0 or more")
    return labels, [str(number) for number in present.tolist()]
