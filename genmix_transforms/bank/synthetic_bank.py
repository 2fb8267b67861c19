"""The bank in memory: what GenMix draws its partners from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from genmix_transforms.bank import loading
from genmix_transforms.bank.buffers import KeepsDtypes
from genmix_transforms.bank.checks import check_classes, check_sources, check_tensors, check_window
from genmix_transforms.bank.dataset import BankDataset
from genmix_transforms.bank.mapped import MappedRows
from genmix_transforms.bank.reading import images_from_folder, images_from_npz
from genmix_transforms.bank.shards import Rows, images_per_shard
from genmix_transforms.bank.verifying import verify_bank
from genmix_transforms.bank.writer import BankWriter
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL, Fit


class SyntheticBank(KeepsDtypes):
    """Synthetic images with their labels and class names, on one device.

    The images are kept as integers, a quarter of a float batch's memory, sorted by class, so that a draw within a class
    is ``start[c] + floor(u * count[c])``. A large bank that was loaded stays on disk, memory-mapped, and only images
    that are drawn are read. Images, labels and offsets are non-persistent buffers: the bank moves with ``.to(device)``,
    keeps its dtypes when the model it helps to train is converted, and is in none of that model's checkpoints.

    Args:
        images: ``(N, C, *spatial)``, uint8 or uint16.
        labels: ``(N,)``, whole numbers, indices into ``classes``; or ``(N, K)`` of class probabilities, any real dtype,
            in which case an image counts for its most probable class when partners are drawn by class.
        classes: the class names, in the order of their indices.
        seeds: ``(N,)``, int64: the seed each image came from; None or -1: from none.
        source: ``(N,)``, int32: which of several provenances an image has; None: the first.
        distance: ``(N,)``, float32: to the nearest real image, in whatever measure; None or NaN: not measured.
        flags: ``(N,)``, uint8: what is marked of an image, see :class:`~genmix_transforms.bank.flags.Flag`; None: 0.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value.
        provenance: where the images come from, as JSON can hold it; or a list of such, for ``source`` to choose from.

    Raises:
        InputError: shapes, dtypes, labels or names that do not fit together.

    Attributes:
        labels: as above, sorted by class: int64, or float32 if probabilities.
        class_start, class_count: int64 ``(K,)``: where each class begins, and how many images it has.

    Example:
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> bank.class_counts
        {'cyst': 2, 'metastasis': 4}
    """

    labels: Tensor
    class_start: Tensor
    class_count: Tensor

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        classes: Sequence[str],
        seeds: Tensor | None = None,
        source: Tensor | None = None,
        distance: Tensor | None = None,
        flags: Tensor | None = None,
        window: tuple[float, float] | None = None,
        provenance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.classes = check_classes(classes)
        labels = check_tensors(images, labels, self.classes)
        self.window = check_window(window)
        self.sources = check_sources(provenance)
        known = Rows.complete(images, labels, seeds=seeds, source=source, distance=distance, flags=flags).checked()
        if len(images) and not 0 <= int(known.source.min()) <= int(known.source.max()) < len(self.sources):
            raise InputError(f"SyntheticBank: source must be from 0 to {len(self.sources) - 1}, the provenances given")
        known = known._replace(images=images, labels=labels)
        index = known.index_labels
        if len(index) > 1 and bool((index[1:] < index[:-1]).any()):
            order = torch.argsort(index, stable=True)
            elsewhere = order.cpu()
            known = Rows(*(column[order if column.device == order.device else elsewhere] for column in known))
        self._hold(known, torch.bincount(index, minlength=len(self.classes)))

    def _hold(self, rows: "Rows | MappedRows", count: Tensor) -> None:
        """Take the place of what is held: rows in memory, sorted by class, or mapped ones."""
        self._mapped = rows if isinstance(rows, MappedRows) else None
        in_memory = rows if isinstance(rows, Rows) else None
        self._columns = (
            {} if in_memory is None else {name: getattr(in_memory, name) for name in Rows._fields if name in _COLUMNS}
        )
        self._count = int(count.sum())
        for name, tensor in (
            ("pixels", None if in_memory is None else in_memory.images),
            ("labels", rows.labels() if isinstance(rows, MappedRows) else rows.labels),
            ("class_start", count.cumsum(0) - count),
            ("class_count", count),
        ):
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return self._count

    @property
    def images(self) -> Tensor:
        """``(N, C, *spatial)``, sorted by class. Of a bank on disk: all of it, brought into memory, where it stays.

        :meth:`rows` reads only the images that are asked for.
        """
        if self._mapped is not None:
            self._buffers["pixels"] = self._mapped.images().to(self.labels.device)
            self._columns = {name: getattr(self, name) for name in _COLUMNS}
            self._mapped = None
        return self._buffers["pixels"]  # type: ignore[return-value]

    @property
    def resident(self) -> bool:
        """Whether all images are in memory, on the bank's device; else they are on disk, and read when drawn."""
        return self._mapped is None

    @property
    def device(self) -> torch.device:
        """Where the images are, or where they are brought."""
        return self.labels.device

    @property
    def pixel_dtype(self) -> torch.dtype:
        """uint8 or uint16."""
        return self._buffers["pixels"].dtype if self._mapped is None else self._mapped.manifest.pixel_dtype  # type: ignore[union-attr]

    @property
    def seeds(self) -> Tensor:
        """int64 ``(N,)``, on the CPU: the seed each image came from; -1: from none."""
        return self._column("seeds")

    @property
    def source(self) -> Tensor:
        """int32 ``(N,)``, on the CPU: which of ``sources`` each image came from."""
        return self._column("source")

    @property
    def distance(self) -> Tensor:
        """float32 ``(N,)``, on the CPU: to the nearest real image; NaN where nobody has measured."""
        return self._column("distance")

    @property
    def flags(self) -> Tensor:
        """uint8 ``(N,)``, on the CPU: what is marked of each image, see :class:`~genmix_transforms.bank.flags.Flag`."""
        return self._column("flags")

    def _column(self, name: str) -> Tensor:
        if self._mapped is not None and name not in self._columns:
            self._columns[name] = self._mapped.column(name)
        column: Tensor = self._columns[name]
        return column

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the images come from; of several sources, what they have in common."""
        first, *others = self.sources
        return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> Self:
        before = self.device
        super()._apply(fn, *arguments, **options)
        asked = None if self._opened is None else self._opened.resident
        if (
            self._mapped is not None
            and self.device != before
            and loading.should_bring(self._mapped, asked, self.device)
        ):
            _ = self.images
        return self

    @torch.compiler.disable
    def rows(self, index: Tensor) -> Tensor:
        """Images by their numbers; of a bank on disk nothing else is read.

        Args:
            index: int64 ``(n,)``, each from 0 to ``len(bank) - 1``.

        Returns:
            ``(n, C, *spatial)``, uint8 or uint16, on the bank's device.

        Raises:
            InputError: a number that the bank does not have.
        """
        if self._mapped is None:
            return self.images.index_select(0, index)
        numbers = index.detach().cpu().numpy()
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise InputError(f"rows: numbers must be from 0 to {len(self) - 1}, got {numbers.min()} to {numbers.max()}")
        pinned = self.device.type == "cuda"
        out = torch.empty(len(numbers), *self.image_shape, dtype=self.pixel_dtype, pin_memory=pinned)
        self._mapped.take(numbers, out.numpy())
        return out.to(self.device, non_blocking=pinned)

    def extra_repr(self) -> str:
        """What ``print(bank)`` shows."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        shape = " x ".join(map(str, self.image_shape))
        where = f"{self.device}" if self.resident else f"on disk, for {self.device}"
        return f"{len(self)} images, {shape}, {self.pixel_dtype}, {where}; {counts}"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of an image."""
        return tuple(self._buffers["pixels"].shape[1:]) if self._mapped is None else self._mapped.manifest.shape  # type: ignore[union-attr]

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
        return (1 / (HIGHEST_PIXEL[self.pixel_dtype] * values[1])).float(), (0.0 - values[0] / values[1]).float()

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
        place = [self.classes.index(name) if name in self.classes else -1 for name in classes]
        if self._mapped is not None:
            mapped = self._mapped.with_classes(place)
            return self._like(mapped, torch.from_numpy(mapped.class_count).clone(), classes=classes).to(self.device)
        column = torch.tensor([classes.index(name) for name in self.classes], device=self.labels.device)
        if self.labels.ndim == 1:
            labels = column[self.labels]
        else:
            labels = self.labels.new_zeros(len(self), len(classes)).index_copy(1, column, self.labels)
        mapped_bank = SyntheticBank(
            self.images,
            labels,
            classes=classes,
            window=self.window,
            provenance=self.sources,
            **{name: getattr(self, name) for name in _COLUMNS},
        )
        mapped_bank._opened, mapped_bank._generation = self._opened, self._generation
        mapped_bank.shards_to_come = self.shards_to_come
        return mapped_bank

    def _like(self, rows: Rows | MappedRows, count: Tensor, *, classes: tuple[str, ...]) -> "SyntheticBank":
        """A bank with this one's facts, of other rows."""
        other = SyntheticBank.__new__(SyntheticBank)
        KeepsDtypes.__init__(other)
        other.classes, other.window, other.sources = classes, self.window, self.sources
        other._opened, other._generation, other.shards_to_come = self._opened, self._generation, self.shards_to_come
        other._hold(rows, count)
        return other

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
        return cls(**images_from_folder(Path(folder), size=size, fit=fit, channels=channels))

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
        return cls(**images_from_npz(Path(path), size=size, fit=fit))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as shards and a manifest: whole, or not at all.

        Args:
            folder: must hold no bank, unless ``overwrite``.
            overwrite: replace the bank that is there, in the moment when this one is whole.

        Raises:
            OverwriteError: the folder holds a bank, and ``overwrite`` is False; or it holds something else; or it is a
                file; or another process writes there.
        """
        folder = Path(folder).absolute()
        with BankWriter(
            folder,
            classes=self.classes,
            image_shape=self.image_shape,
            pixel_dtype=self.pixel_dtype,
            labels="index" if self.labels.ndim == 1 else "probabilities",
            window=self.window,
            provenance=self.sources,
            overwrite=overwrite,
            publish="close",
        ) as writer:
            some = images_per_shard(self.image_shape, self.pixel_dtype)
            for number in torch.arange(len(self)).split(some):
                here = number.to(self.device)
                columns = {name: getattr(self, name)[number] for name in _COLUMNS}
                writer.add(self.rows(here).cpu(), self.labels[here].cpu(), **columns)
        self._opened = loading.Opened(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        classes: Sequence[str] | None = None,
        limit: int | None = None,
        shard: tuple[int, int] | None = None,
        verify: bool | None = None,
        resident: bool | None = None,
    ) -> "SyntheticBank":
        """Open a saved bank.

        Args:
            folder: that :meth:`save`, :class:`~genmix_transforms.bank.writer.BankWriter` or ``fill_bank`` wrote.
            device: where to put the images.
            classes: the data set's class names: labels are re-mapped to them by name, see :meth:`with_classes`.
            limit: at most so many images: the first of each class, which keeps its share.
            shard: ``(rank, world)``: this process's part: every ``world``-th image of each class.
            verify: hold every shard to its checksum first (about 0.2 s a gigabyte); None: if the bank is no larger
                than 256 MiB.
            resident: True: all images are brought to the device; False: they stay on disk, and a batch's are brought
                when it is mixed; None: a bank up to 256 MiB is brought to the device, a larger one stays on disk for
                the CPU, and for another device if it would take more than three quarters of its free memory.

        Raises:
            InputError: no such bank, or classes that are not the data's.
            CorruptFileError: a shard or the manifest is not what was written; the message names it.
        """
        opened = loading.Opened(
            Path(folder).absolute(),
            classes=None if classes is None else check_classes(classes),
            limit=limit,
            shard=shard,
            verify=verify,
            resident=resident,
        )
        manifest, mapped = loading.open_rows(opened, None)
        bank = cls.__new__(cls)
        KeepsDtypes.__init__(bank)
        bank._opened = opened
        bank._adopt(manifest, mapped, torch.device(device))
        return bank

    def _adopt(self, manifest: Any, mapped: MappedRows, device: torch.device) -> None:
        """Take over what was opened."""
        assert self._opened is not None
        self.classes, self.window, self.sources = manifest.classes, manifest.window, manifest.sources
        self._generation, self.shards_to_come = manifest.generation, manifest.shards_to_come
        count = torch.from_numpy(mapped.class_count).clone()
        self._hold(mapped, count)
        if self._opened.classes is not None and self._opened.classes != self.classes:
            re_mapped = self.with_classes(self._opened.classes)
            self.classes = re_mapped.classes
            assert re_mapped._mapped is not None
            mapped, count = re_mapped._mapped, re_mapped.class_count
        bring = loading.should_bring(mapped, self._opened.resident, device)
        self._hold(mapped.rows() if bring else mapped, count)
        self.to(device)

    shards_to_come: int = 0
    """How many shards the fill of these files still owes."""

    _opened: loading.Opened | None = None
    _generation: int = 0

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool | None = None,
        **options: Any,
    ) -> "SyntheticBank":
        """Open a bank that somebody has published as a dataset repository on the Hugging Face hub.

        Args:
            repo_id: ``owner/name``; a local folder is opened as it is.
            revision: branch, tag or commit; pin a commit for results that others should get too.
            cache_dir: where downloads are kept.
            token: of the user.
            local_files_only: never ask the network; None: as ``HF_HUB_OFFLINE`` says.
            options: as for :meth:`load`.

        Raises:
            InputError: no such repository or revision, no bank in it, or no network and nothing downloaded before.
            CorruptFileError: as :meth:`load`.
        """
        from genmix_transforms.bank.hub import download_bank

        folder = download_bank(
            repo_id, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        return cls.load(folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the bank with a card and a contact sheet: :func:`genmix_transforms.bank.hub.push_to_hub`.

        Returns:
            The commit's address.
        """
        from genmix_transforms.bank.hub import push_to_hub

        return push_to_hub(self, repo_id, **options)

    def as_dataset(self, transform: Callable[[Tensor], Any] | None = None) -> BankDataset:
        """The images as a torch Dataset of ``(image, label)``, for training on real and synthetic images together.

        Args:
            transform: of an image, uint8 or uint16 ``(C, *spatial)``; None: none.

        See :class:`~genmix_transforms.bank.shares.ExactShares` for so many of each in every batch.
        """
        return BankDataset(self, transform)

    def refresh(self) -> int:
        """Look for images that another process has added to the files since, and take them in.

        Between epochs: GenMix draws from all of them from then on. A CUDA graph that was captured knows the old ones.

        Returns:
            How many images more there are.

        Raises:
            InputError: the bank was neither saved nor loaded.
            CorruptFileError: as :meth:`load`.
        """
        if self._opened is None:
            raise InputError("refresh: this bank was neither saved nor loaded: there are no files to look at")
        before = len(self)
        if loading.generation(self._opened.folder) != self._generation:
            known = None if self._mapped is None else {shard.entry.file: shard for shard in self._mapped.shards}
            manifest, mapped = loading.open_rows(self._opened, known)
            self._adopt(manifest, mapped, self.device)
        return len(self) - before

    def verify(self) -> None:
        """Check the files this bank was saved to or loaded from against their checksums.

        Raises:
            CorruptFileError: names every shard that is missing or changed.
            InputError: the bank was neither saved nor loaded.
        """
        if self._opened is None:
            raise InputError("verify: this bank was neither saved nor loaded: there are no files to check")
        verify_bank(self._opened.folder)


_COLUMNS = ("seeds", "source", "distance", "flags")
