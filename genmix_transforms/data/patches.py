"""Labeled patches in memory, with seeded, stratified splits and folds by group."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.data.identity import pixel_hashes, record_images
from genmix_transforms.data.labelling import UNLABELLED
from genmix_transforms.data.split_file import check_split_path, fold_path, read_split, write_split
from genmix_transforms.data.splitting import (
    DEFAULT_FRACTIONS,
    DEFAULT_VALIDATION,
    Numbers,
    SplitBy,
    assign_by_date,
    assign_groups,
    check_split,
    check_split_by,
    fold_by_group,
    groups_of_copies,
    refuse_empty_parts,
)
from genmix_transforms.data.splitting import SPLITS as SPLITS
from genmix_transforms.data.windowing import HU_OF_ZERO, Window, check_level_width, stored_to_gray, window_ends
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.files.arrays import MOST_CHANNELS, write_npz
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.images import HIGHEST_PIXEL, Fit, describe_fit, fit_images, fit_masks, to_channels
from genmix_transforms.files.mask_files import mask_class_names
from genmix_transforms.files.memory import check_image_memory


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchDataset:
    """Labeled patches, all in memory.

    Args:
        images: ``(N, C, H, W)``, or volumes ``(N, C, D, H, W)``, uint8 (uint16 for 16-bit sources).
        labels: ``(N,)``, int64, indices into ``classes``.
        classes: the class names, in the order of their indices.
        groups: ``(N,)``, int64; a split never divides patches of one group (a patient, a set of near-duplicates). None:
            every patch and its exact copies are a group.
        official: ``(N,)``, int64, indices into ``("train", "val", "test")`` if the source is split, else None.
        name: the name of the data in messages: the name of the file or folder without its path.
        notes: what the user should know about the reading (resized, group key found), one sentence each.
        source_hashes: ``(N,)``, int64, not negative: the identity of each patch in its source, if ``images`` differ
            from the source. None: ``images`` are the source. Read it through :attr:`origins`.
        paths: the paths of the image files, relative to the source, if it has files. Only :meth:`save_split` writes
            them to a file.
        dates: ``(N,)``, int64, 0 or more: when each was acquired, in any unit that orders them, for a split by date.
        series: ``(N,)``, int64: the scan of each patch, if scans have several patches.
        window: for CT, the Hounsfield units of the lowest and the highest possible pixel value (0 and 255, or 0 and
            65535); None if pixels have no unit. It is passed on to the generator, and to the bank that it fills.
        masks: ``(N, H, W)``, or ``(N, D, H, W)`` of volumes, uint8: the segmentation of each patch, class numbers from
            0 on; None: no masks. Only ``GenMix(bank, masks="soft")`` uses them, in your own training loop.
        mask_classes: the names of the values of masks, from 0 on; None: their numbers.

    Raises:
        InputError: shapes, dtypes or labels that do not match.

    Example:
        >>> images = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> patches = PatchDataset(images=images, labels=labels, classes=("cyst", "metastasis"))
        >>> patches.class_counts
        {'cyst': 3, 'metastasis': 3}
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    groups: Tensor | None = None
    official: Tensor | None = None
    name: str = "patches"
    notes: tuple[str, ...] = field(default=())
    source_hashes: Tensor | None = None
    paths: tuple[str, ...] | None = None
    dates: Tensor | None = None
    series: Tensor | None = None
    window: Window | None = None
    masks: Tensor | None = None
    mask_classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.images.ndim not in (4, 5) or self.images.dtype not in (torch.uint8, torch.uint16):
            raise InputError(
                f"{self.name}: images must be uint8 or uint16 of shape (N, C, H, W), or (N, C, D, H, W) for volumes, "
                f"got {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        count = self.images.shape[0]
        for key, tensor in self._columns().items():
            if tensor.shape != (count,) or tensor.dtype != torch.int64:
                raise InputError(
                    f"{self.name}: {key} must be int64 of shape ({count},), one for each image, "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
                )
        if self.paths is not None and len(self.paths) != count:
            raise InputError(f"{self.name}: paths must be {count}, one for each image, got {len(self.paths)}")
        if self.official is not None and not set(self.official.unique().tolist()) <= set(range(len(SPLITS))):
            raise InputError(f"{self.name}: official must hold 0 (train), 1 (val) or 2 (test), nothing else")
        if self.source_hashes is not None and count and int(self.source_hashes.min()) < 0:
            raise InputError(f"{self.name}: source_hashes must be 0 or more, got {int(self.source_hashes.min())}")
        if len(set(self.classes)) != len(self.classes):
            raise InputError(f"{self.name}: class names must differ, got {', '.join(self.classes)}")
        self._check_labels()
        object.__setattr__(self, "mask_classes", self._checked_mask_classes())

    def _checked_mask_classes(self) -> tuple[str, ...] | None:
        if self.masks is None:
            if self.mask_classes is not None:
                raise InputError(f"{self.name}: mask_classes name the pixel values of masks; give masks as well")
            return None
        expected = (len(self), *self.images.shape[2:])
        if tuple(self.masks.shape) != expected or self.masks.dtype != torch.uint8:
            raise InputError(
                f"{self.name}: masks must be uint8 of shape {expected}, one for each image, "
                f"got {self.masks.dtype} of shape {tuple(self.masks.shape)}"
            )
        return mask_class_names(self.name, self.masks, self.mask_classes)

    def _check_labels(self) -> None:
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"but there are {len(self.classes)} classes ({', '.join(self.classes)})"
            )

    def _columns(self) -> dict[str, Tensor]:
        """What is known of every patch, by the name of the field: int64 ``(N,)`` each."""
        found = {
            key: getattr(self, key) for key in ("labels", "groups", "official", "source_hashes", "dates", "series")
        }
        return {key: tensor for key, tensor in found.items() if tensor is not None}

    def _rows(self) -> dict[str, Tensor]:
        """Likewise, with what has a row a patch."""
        return self._columns() | ({} if self.masks is None else {"masks": self.masks})

    def __len__(self) -> int:
        return self.images.shape[0]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        depth = "" if self.images.dtype == torch.uint8 else ", 16 bit"
        shape = " x ".join(map(str, self.images.shape[1:]))
        masks = "" if self.mask_classes is None else f"; masks ({', '.join(self.mask_classes)})"
        return f"{self.name}: {len(self)} patches, {shape}{depth} ({counts}){masks}"

    @property
    def dimensions(self) -> int:
        """Of a patch without its channels: 2, or 3 for volumes."""
        return self.images.ndim - 2

    # What follows from the labels, and is otherwise where a patch has several (multi_label.py)

    @property
    def label_rows(self) -> Tensor:
        """The labels as a classifier's loss takes them: int64 ``(N,)``; with several per image, float32 ``(N, K)``."""
        return self.labels

    @property
    def label_keys(self) -> Tensor:
        """int64 ``(N,)``: equal for patches with the same labels."""
        return self.labels

    def _strata(self) -> Numbers:
        """What a split shares out in proportion: class numbers ``(N,)``, or rows of 0 and 1."""
        return self.labels.numpy()

    def _label_texts(self) -> list[str]:
        """Of each patch the name of its class; of several, with a bar between them."""
        return [self.classes[label] for label in self.labels.tolist()]

    def _label_arrays(self) -> dict[str, NDArray[Any]]:
        """What :meth:`save_npz` keeps of them."""
        return {"labels": self.labels.numpy(), "label_names": np.array(self.classes)}

    @property
    def class_counts(self) -> dict[str, int]:
        """How many patches each class has, ``{name: n}``, in the order of ``classes``."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    @property
    def fingerprint(self) -> str:
        """A hash of the pixels, labels and class names. It distinguishes training sets without identifying anyone."""
        digest = hashlib.sha256()
        digest.update(f"{self.classes}{tuple(self.images.shape)}{self.images.dtype}".encode())
        digest.update(self._label_arrays()["labels"].tobytes())
        digest.update(self.images.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def origins(self) -> Tensor:
        """The identity of each patch, int64 ``(N,)``: 63 bits of the sha256 of its pixels in the source.

        It does not change with subsets, splits, other sizes and channels, or saving. It is computed on first use. Equal
        images have equal origins, even if they come from different files.
        """
        return self._pixels if self.source_hashes is None else self.source_hashes

    def training_set(self) -> dict[str, Any]:
        """What generators and banks record about their training set.

        Returns:
            ``fingerprint`` and ``class_counts``; and ``images``, from which
            :func:`genmix_transforms.data.identity.find_recorded` tells whether a patch was among them (left out for
            more than 100,000 patches). Only someone who has exactly the same image can tell.
            For CT also ``window``.
        """
        record: dict[str, Any] = {"fingerprint": self.fingerprint, "class_counts": self.class_counts}
        if self.window is not None:
            record["window"] = list(self.window)
        if (images := record_images(self.origins)) is not None:
            record["images"] = images
        return record

    def subset(self, index: Tensor | NDArray[np.int64], *, name: str | None = None) -> "PatchDataset":
        """The patches at ``index`` ``(n,)``, in that order; the list of classes does not change."""
        index = torch.as_tensor(index)
        if index.dtype == torch.bool:
            raise InputError(f"{self.name}: subset takes positions, got a mask; give torch.nonzero(mask).flatten()")
        index = index.to(torch.int64)
        columns: dict[str, Any] = {key: tensor[index] for key, tensor in self._rows().items()}
        return replace(
            self,
            images=self.images[index],
            **columns,
            paths=None if self.paths is None else tuple(self.paths[number] for number in index.tolist()),
            name=name or self.name,
        )

    def of_class(self, name: str) -> "PatchDataset":
        """The patches of one class, which is then the only class."""
        if name not in self.classes:
            raise InputError(f"{self.name}: no class {name!r}; the classes are {', '.join(self.classes)}")
        index = torch.nonzero(self.labels == self.classes.index(name)).flatten()
        part = self.subset(index, name=f"{self.name}: {name}")
        return replace(part, labels=torch.zeros_like(part.labels), classes=(name,))

    def without_labels(self) -> "PatchDataset":
        """The same patches as a pool to pre-train on: of one class, "unlabelled"."""
        return replace(self, labels=torch.zeros_like(self.labels), classes=(UNLABELLED,))

    def found_in(self, *others: "PatchDataset") -> Tensor:
        """Which patches are also in others, bool ``(N,)``: with the same origin, or the same pixels at this size."""
        found = torch.zeros(len(self), dtype=torch.bool)
        for other in others:
            found |= torch.isin(self.origins, other.origins) | torch.isin(self._pixels, other._pixels)
        return found

    def without(self, *others: "PatchDataset") -> "PatchDataset":
        """The patches that are not in other sets, such as a pool without the test images (see :meth:`found_in`)."""
        return self.subset(torch.nonzero(~self.found_in(*others)).flatten())

    @cached_property
    def _pixels(self) -> Tensor:
        return pixel_hashes(self.images)

    def resized(self, size: int, *, fit: Fit = "resize") -> "PatchDataset":
        """The same patches at ``size`` x ``size`` pixels (see :func:`genmix_transforms.files.images.fit_images`).

        Volumes become cubes of that side. Masks go along (:func:`~genmix_transforms.files.images.fit_masks`).

        Raises:
            InputError: an unknown ``fit``, or a size at which the patches do not fit into memory.
        """
        count, channels, *sides = self.images.shape
        check_image_memory((count, channels, *[size] * len(sides)), itemsize=self.images.dtype.itemsize, name=self.name)
        images = fit_images(self.images, size, fit=fit)
        note = describe_fit([tuple(sides)], size, fit=fit)
        if not note:
            return self
        masks = None if self.masks is None else fit_masks(self.masks, size, fit=fit)
        return replace(self, images=images, masks=masks, source_hashes=self.origins, notes=(*self.notes, note))

    def with_channels(self, channels: int) -> "PatchDataset":
        """The same patches, gray (1) or in color (3), see :func:`genmix_transforms.files.images.to_channels`."""
        images = to_channels(self.images, channels)
        return self if images is self.images else replace(self, images=images, source_hashes=self.origins)

    def with_window(self, level: float, width: float, *, hu_of_zero: float | None = None) -> "PatchDataset":
        """The same patches of CT through a window, in 8 bits; :attr:`window` records the window.

        Args:
            level: middle of the window, HU.
            width: of the window, HU: ``level - width / 2`` and below become 0, ``level + width / 2`` and above 255.
            hu_of_zero: Hounsfield units of the stored value 0, with steps of 1 HU; None: as in the patches' own
                :attr:`window`, else -1024, as 12-bit scanners store them.

        Raises:
            InputError: patches of 8 bits, which cannot be converted to Hounsfield units, a window without width, or a
                ``hu_of_zero`` in addition to the patches' own window.

        Example:
            >>> stored = torch.tensor([0, 864, 1064, 1264], dtype=torch.uint16).view(4, 1, 1, 1)
            >>> patches = PatchDataset(images=stored, labels=torch.tensor([0, 0, 1, 1]), classes=("cyst", "metastasis"))
            >>> patches = patches.with_window(40, 400)
            >>> patches.images.flatten().tolist(), patches.window
            ([0, 0, 128, 255], (-160.0, 240.0))
        """
        ends = window_ends(*check_level_width((level, width)))
        if self.images.dtype != torch.uint16:
            raise InputError(
                f"{self.name}: a window is for 16-bit images of CT, and these have 8 bits: what they show was decided "
                "when they were made; leave the window out"
            )
        if self.window is not None and hu_of_zero is not None:
            raise InputError(f"{self.name}: these images say what their values mean; leave hu_of_zero out")
        zero = HU_OF_ZERO if hu_of_zero is None else hu_of_zero
        stored = (zero, zero + float(HIGHEST_PIXEL[torch.uint16])) if self.window is None else self.window
        how = f"a stored 0 is {zero:g} HU (hu_of_zero)" if self.window is None else "by the range that they came with"
        note = f"window of level {level:g} and width {width:g} HU: {ends[0]:g} HU is 0, {ends[1]:g} HU is 255; {how}"
        images = stored_to_gray(self.images, stored, ends)
        return replace(self, images=images, source_hashes=self.origins, window=ends, notes=(*self.notes, note))

    def save_npz(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Save as an ``.npz`` that :func:`genmix_transforms.data.open_dataset` reads, with groups and official split.

        Its arrays are ``images`` ``(N, H, W)`` or ``(N, H, W, C)``, of volumes ``(N, D, H, W)`` or
        ``(N, D, H, W, C)``, ``labels``, ``label_names``, and where there are any ``group``, ``split`` (names),
        ``date_rank``, ``series``, ``window``, ``masks`` and ``mask_classes``, and ``origin`` where the images are no
        longer those of the source. Patches :meth:`without_labels` have no labels in the file. The file is written
        completely or not at all; the same patches give the same bytes.

        Args:
            path: the file; its folder is created if needed.
            overwrite: replace an existing file.

        Raises:
            OverwriteError: the file is there already.
            InputError: a suffix other than ``.npz``, or patches that could not be read back: none at all, only one
                class, more than seven channels, or volumes that are no larger than that along an axis.

        Example:
            >>> images = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
            >>> patches = PatchDataset(images=images, labels=torch.tensor([0, 0, 1, 1]), classes=("cyst", "metastasis"))
            >>> patches.save_npz("saved.npz")
            >>> from genmix_transforms.data import open_dataset
            >>> open_dataset("saved.npz").class_counts
            {'cyst': 2, 'metastasis': 2}
        """
        path = Path(path)
        if path.suffix.lower() != ".npz":
            raise InputError(f"{path}: patches are saved as .npz; give such a name")
        unlabelled = self.classes == (UNLABELLED,)
        if sum(count > 0 for count in self.class_counts.values()) < 2 and not (unlabelled and len(self)):
            raise InputError(f"{self.name}: a data set needs patches of at least two classes; it has {self!r}")
        if self.images.shape[1] > MOST_CHANNELS:
            raise InputError(
                f"{self.name}: images of {self.images.shape[1]} channels would not be read; at most {MOST_CHANNELS} are"
            )
        if self.dimensions == 3 and min(self.images.shape[2:]) <= MOST_CHANNELS:
            raise InputError(
                f"{self.name}: volumes of {'x'.join(map(str, self.images.shape[2:]))} would not be read, an axis that "
                f"short is one of channels: they need more than {MOST_CHANNELS} along each"
            )
        check_output_folder(path.parent)
        if path.is_dir() or (path.exists() and not overwrite):
            raise OverwriteError(f"{path} is there already; give another name, or overwrite=True for a file")
        images = self.images.numpy()
        arrays = {
            "images": images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1),
        }
        if not unlabelled:
            arrays |= self._label_arrays()
        if self.groups is not None:
            arrays["group"] = self.groups.numpy()
        if self.official is not None:
            arrays["split"] = np.array(SPLITS)[self.official.numpy()]
        if self.dates is not None:
            arrays["date_rank"] = self.dates.numpy()
        if self.series is not None:
            arrays["series"] = self.series.numpy()
        if self.window is not None:
            arrays["window"] = np.array(self.window)
        if self.masks is not None:
            arrays |= {"masks": self.masks.numpy(), "mask_classes": np.array(self.mask_classes)}
        if self.source_hashes is not None and not torch.equal(self.source_hashes, self._pixels):
            arrays["origin"] = self.source_hashes.numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, arrays)

    def split(
        self,
        *,
        seed: int = 0,
        fractions: Sequence[float] = DEFAULT_FRACTIONS,
        official: bool = True,
        by: SplitBy = "group",
    ) -> tuple["PatchDataset", "PatchDataset", "PatchDataset"]:
        """Split into train, validation and test.

        Groups never part, and each part has the class proportions of the whole, as nearly as whole groups allow. Where
        nobody has said what belongs together (``groups`` is None), patches of the same pixels do.

        Args:
            seed: determines the split.
            fractions: shares of train, validation and test; they sum to 1.
            official: keep the source's own split, if it has one (``seed`` and ``fractions`` then have no effect).
            by: "group", or "date": the earliest patches are in the training part and the latest in the test part, as in
                the paper. The first date of a group counts. The split is then not stratified, and ``seed`` and the
                source's own split have no effect.

        Raises:
            InputError: invalid fractions, a part that would be empty, or patches without dates.

        Warns:
            UserWarning: a part without a patch of a class.
        """
        return self._in_parts(self._parts_of_split(seed=seed, fractions=fractions, official=official, by=by))

    def assigned(
        self,
        *,
        seed: int = 0,
        fractions: Sequence[float] = DEFAULT_FRACTIONS,
        official: bool = True,
        by: SplitBy = "group",
    ) -> "PatchDataset":
        """The same patches, with the split of :meth:`split` stored as :attr:`official`."""
        parts = self._parts_of_split(seed=seed, fractions=fractions, official=official, by=by)
        return replace(self, official=torch.from_numpy(np.array(parts)))

    def folds(
        self, count: int, *, seed: int = 0, validation: float = DEFAULT_VALIDATION
    ) -> tuple[tuple["PatchDataset", "PatchDataset", "PatchDataset"], ...]:
        """Train, validation and test of each fold of a cross-validation: every patch is in one test part.

        Groups never part, and each part has the class proportions of the whole, as nearly as whole groups allow. Where
        nobody has said what belongs together (``groups`` is None), patches of the same pixels do. A split of the source
        is ignored.

        Args:
            count: the number of folds, at least 2.
            seed: determines the folds.
            validation: share of a fold's patches outside the test part that are used for validation.

        Raises:
            InputError: a count below 2, an invalid share, or a part that would be empty because of too few groups.

        Example:
            >>> images = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
            >>> patches = PatchDataset(images=images, labels=torch.arange(12) % 2, classes=("cyst", "metastasis"))
            >>> [[len(part) for part in fold] for fold in patches.folds(3)]
            [[6, 2, 4], [6, 2, 4], [6, 2, 4]]
        """
        whole = replace(self, official=None)
        folds = self._parts_of_folds(count, seed=seed, validation=validation)
        return tuple(whole._in_parts(parts, prefix=f"fold {number}, ") for number, parts in enumerate(folds))

    def save_split(
        self,
        path: str | Path,
        *,
        seed: int = 0,
        fractions: Sequence[float] = DEFAULT_FRACTIONS,
        official: bool = True,
        by: SplitBy = "group",
        folds: int | None = None,
        validation: float = DEFAULT_VALIDATION,
        overwrite: bool = False,
    ) -> None:
        """Save the split that :meth:`split` makes, or the folds of :meth:`folds`, as CSV files for :meth:`with_split`.

        A file has a line for each patch: its ``number`` from 0 up, its ``path`` where the source has one, ``class``,
        ``group`` where there are any, ``split`` (train, val or test), and ``origin``, a hash of the image. It holds the
        names of your files: keep it with the data, and do not publish it.

        Args:
            path: the file, a .csv; its folder is made if need be. With ``folds`` a name with ``{fold}`` in it, which
                stands for the fold's number: each fold is a file of its own.
            seed: as for :meth:`split` and :meth:`folds`.
            fractions: as for :meth:`split`.
            official: as for :meth:`split`.
            by: as for :meth:`split`; folds are by group.
            folds: how many folds; None: one split.
            validation: as for :meth:`folds`.
            overwrite: replace files that are there.

        Raises:
            OverwriteError: a file is there already.
            InputError: another suffix than ``.csv``, folds without ``{fold}`` in the name, or a split that cannot be.

        Example:
            >>> images = torch.arange(8, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
            >>> patches = PatchDataset(images=images, labels=torch.arange(8) % 2, classes=("cyst", "metastasis"))
            >>> patches.save_split("split.csv")
            >>> [len(part) for part in patches.with_split("split.csv").split()]
            [4, 2, 2]
        """
        path = Path(path)
        if folds is None:
            files = {path: self._parts_of_split(seed=seed, fractions=fractions, official=official, by=by)}
        else:
            found = self._parts_of_folds(folds, seed=seed, validation=validation)
            files = {fold_path(path, number): parts for number, parts in enumerate(found)}
        check_split_path(path, folds=folds, overwrite=overwrite)
        for file, parts in files.items():
            write_split(
                file,
                parts,
                paths=self.paths,
                classes=self._label_texts(),
                groups=None if self.groups is None else self.groups.numpy(),
                origins=self.origins.numpy(),
            )

    def with_split(self, path: str | Path) -> "PatchDataset":
        """The same patches with the split of a file, which :meth:`split` then returns.

        Args:
            path: a CSV written by :meth:`save_split` or ``genmix split``, or any other CSV with the columns ``path``
                (as in the source) or ``number``, and ``split``, in any order and with any other columns.

        Raises:
            MissingPathError: no such file.
            InputError: invalid parts, patches without a line or with two, lines without a patch, or images other than
                those that the split was made for; the message says which.
        """
        parts = read_split(
            Path(path),
            name=self.name,
            paths=self.paths,
            groups=None if self.groups is None else self.groups.numpy(),
            origins=self.origins.numpy(),
        )
        return replace(self, official=torch.from_numpy(parts))

    def _parts_of_split(self, *, seed: int, fractions: Sequence[float], official: bool, by: SplitBy) -> Numbers:
        """For each patch the index of its part, ``(N,)``."""
        check_split(seed=seed, fractions=fractions)
        check_split_by(by)
        kept = self.official if official and by == "group" else None
        if by == "date":
            parts = assign_by_date(self._kept_together(), self._known_dates(), fractions=fractions)
        elif kept is not None:
            parts = kept.numpy()
        else:
            parts = assign_groups(self._strata(), self._kept_together(), fractions=fractions, seed=seed)
        way_out = (
            "give fractions that leave it some patches, or train on all (--all-data)"
            if kept is None
            else "give official=False to make a new split, or a split file with patches in each part"
        )
        refuse_empty_parts(parts, name=self.name, fault=f"part is empty; {way_out}")
        return parts

    def _parts_of_folds(self, count: int, *, seed: int, validation: float) -> list[Numbers]:
        """For each fold and patch the index of its part, ``(N,)``."""
        groups = self._kept_together()
        folds = fold_by_group(self._strata(), groups, count=count, validation=validation, seed=seed)
        groups_found = f"{len(np.unique(groups))} groups are too few for {count} folds"
        for fold, parts in enumerate(folds):
            refuse_empty_parts(parts, name=self.name, fault=f"part of fold {fold} is empty: {groups_found}")
        return folds

    def _known_dates(self) -> Numbers:
        if self.dates is None:
            raise InputError(
                f"{self.name}: no dates to split by; expected an array or column date (2024-03-01), or date_rank as "
                "genmix patches writes it"
            )
        if missing := int((self.dates < 0).sum()):
            raise InputError(f"{self.name}: {missing} of {len(self)} patches have no date; split by group, or add them")
        return self.dates.numpy()

    def _kept_together(self) -> Numbers:
        """For each patch the number of its group, ``(N,)``: where nobody has named any, copies of one image are one."""
        return groups_of_copies(self.origins.numpy()) if self.groups is None else self.groups.numpy()

    def _in_parts(self, parts: Numbers, *, prefix: str = "") -> tuple["PatchDataset", "PatchDataset", "PatchDataset"]:
        train, val, test = (
            self.subset(np.flatnonzero(parts == number), name=f"{self.name} ({prefix}{split})")
            for number, split in enumerate(SPLITS)
        )
        for part, purpose in ((train, "train on"), (val, "validate with"), (test, "test with")):
            counts = part.class_counts.items()
            if missing := [name for name, count in counts if not count and self.class_counts[name]]:
                warnings.warn(
                    f"{part.name}: no patch of {', '.join(missing)} to {purpose}: no score there says anything of it; "
                    "more patches, other fractions or another seed give it some",
                    stacklevel=3,
                )
        return train, val, test


def describe_counts(counts: Mapping[str, int]) -> str:
    """``normal 133, benign 437, malignant 210``: class counts for messages."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())
