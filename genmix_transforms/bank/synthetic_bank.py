"""The bank in memory: what GenMix draws its partners from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.bank import loading
from genmix_transforms.bank.buffers import KeepsDtypes
from genmix_transforms.bank.checks import check_classes, check_sources, check_tensors, check_window, places_by_name
from genmix_transforms.bank.curation import Curation
from genmix_transforms.bank.dataset import BankDataset
from genmix_transforms.bank.manifest import Manifest
from genmix_transforms.bank.mapped import MappedRows
from genmix_transforms.bank.reading import images_from_folder, images_from_npz
from genmix_transforms.bank.shards import KEPT_ON_CPU, Rows, images_per_shard
from genmix_transforms.bank.verifying import verify_bank
from genmix_transforms.bank.writer import BankWriter
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL, Fit


class SyntheticBank(Curation):
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

    shards_to_come: int = 0
    """How many shards the fill of these files still owes."""

    _opened: loading.Opened | None = None
    """The files whose content this is, and how it was chosen from them; None: no files have this content."""

    _generation: int = 0

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

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the images come from; of several sources, what they have in common."""
        first, *others = self.sources
        return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}

    def extra_repr(self) -> str:
        """What ``print(bank)`` shows."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        shape = " x ".join(map(str, self.image_shape))
        where = f"{self.device}" if self.resident else f"on disk, for {self.device}"
        return f"{len(self)} images, {shape}, {self.pixel_dtype}, {where}; {counts}"

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
            InputError: the bank has images of a class that ``classes`` does not name.
        """
        classes = check_classes(classes)
        if classes == self.classes:
            return self
        place = places_by_name(
            self.classes, classes, counts=self.class_count.tolist() if self.labels.ndim == 1 else None
        )
        if self._mapped is not None:
            mapped = self._mapped.with_classes(place)
            count = torch.from_numpy(mapped.class_count).clone()
            return self._with(mapped, count, classes=classes, opened=self._opened).to(self.device)
        column = torch.tensor(
            [classes.index(name) if name in classes else 0 for name in self.classes], device=self.labels.device
        )
        if self.labels.ndim == 1:
            labels = column[self.labels]
        else:
            labels = self.labels.new_zeros(len(self), len(classes)).index_copy(1, column, self.labels)
        rows = Rows(self.images, labels, **{name: getattr(self, name) for name in KEPT_ON_CPU}).sorted_by_class()
        count = torch.zeros(len(classes), dtype=torch.int64, device=self.device)
        count.index_add_(0, column, self.class_count)
        return self._with(rows, count, classes=classes, opened=self._opened)

    def take(self, index: Tensor) -> "SyntheticBank":
        """Some of the images as a bank, with all that is known of each. Of a bank on disk nothing is read yet.

        Args:
            index: int64 ``(n,)``, numbers of images, in any order; the new bank has them in this one's. A number that
                is given twice is an image that is in it twice.

        Raises:
            InputError: a number that the bank does not have.
        """
        rows, count = self._taken(index)
        return self._with(rows, count, classes=self.classes, opened=None).to(self.device)

    def _with(
        self, rows: Rows | MappedRows, count: Tensor, *, classes: tuple[str, ...], opened: loading.Opened | None
    ) -> "SyntheticBank":
        """A bank with this one's facts, of other rows.

        Args:
            rows: sorted by class.
            count: int64 ``(K,)``: of each class.
            classes: their names.
            opened: the files that the rows are all of, if there are such.
        """
        other = SyntheticBank.__new__(SyntheticBank)
        KeepsDtypes.__init__(other)
        other.classes, other.window, other.sources = classes, self.window, self.sources
        other._asked_resident = self._asked_resident
        if opened is not None:
            other._opened, other._generation = replace(opened, classes=classes), self._generation
            other.shards_to_come = self.shards_to_come
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
                columns = {name: getattr(self, name)[number] for name in KEPT_ON_CPU}
                writer.add(self.rows(here).cpu(), self.labels[here].cpu(), **columns)
        self._opened, self._generation = loading.Opened(folder), writer.manifest.generation

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
        bank = cls.__new__(cls)
        KeepsDtypes.__init__(bank)
        bank._opened, bank._asked_resident = opened, resident
        bank._adopt(*loading.open_rows(opened, None), torch.device(device))
        return bank

    def _adopt(self, manifest: Manifest, mapped: MappedRows, device: torch.device) -> None:
        """Take over what was opened."""
        self.classes, self.window, self.sources = manifest.classes, manifest.window, check_sources(manifest.sources)
        self._generation, self.shards_to_come = manifest.generation, manifest.shards_to_come
        asked = None if self._opened is None else self._opened.classes
        if asked is not None and asked != self.classes:
            counts = mapped.class_count.tolist() if manifest.labels == "index" else None
            mapped = mapped.with_classes(places_by_name(self.classes, asked, counts=counts))
            self.classes = asked
        bring = loading.should_bring(mapped, self._asked_resident, device)
        self._hold(mapped.rows() if bring else mapped, torch.from_numpy(mapped.class_count).clone())
        self.to(device)

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
            InputError: the bank was neither saved nor loaded, or another one has taken its place in the files: of other
                classes, or of images or labels of another kind.
            CorruptFileError: as :meth:`load`.
        """
        if self._opened is None:
            raise InputError("refresh: this bank was neither saved nor loaded: there are no files to look at")
        before = len(self)
        if loading.generation(self._opened.folder) != self._generation:
            known = None if self._mapped is None else {shard.entry.file: shard for shard in self._mapped.shards}
            manifest, mapped = loading.open_rows(self._opened, known)
            self._check_same_kind(manifest)
            self._adopt(manifest, mapped, self.device)
        return len(self) - before

    def _check_same_kind(self, manifest: Manifest) -> None:
        """Whoever uses this bank (GenMix among them) has made arrangements for what it holds."""
        assert self._opened is not None
        labels = "index" if self.labels.ndim == 1 else "probabilities"
        mine = (self.image_shape, self.pixel_dtype, labels, self.classes)
        # Classes that were asked for by name stay as they are: images are brought to them, or refused, by name.
        classes = manifest.classes if self._opened.classes is None else self.classes
        found = (manifest.shape, manifest.pixel_dtype, manifest.labels, classes)
        if found != mine:
            raise InputError(
                f"refresh: {self._opened.folder} holds another bank now: images, labels and classes {found}, "
                f"these are {mine}; open it with SyntheticBank.load"
            )

    def verify(self) -> None:
        """Check the files this bank was saved to or loaded from against their checksums.

        Raises:
            CorruptFileError: names every shard that is missing or changed.
            InputError: the bank was neither saved nor loaded.
        """
        if self._opened is None:
            raise InputError("verify: this bank was neither saved nor loaded: there are no files to check")
        verify_bank(self._opened.folder)
