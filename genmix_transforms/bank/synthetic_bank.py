"""The bank in memory: what GenMix draws its partners from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn

from genmix_transforms.bank import curation, hub, merge_rules
from genmix_transforms.bank.blending import as_dataset
from genmix_transforms.bank.content import Content, buffer_of_content, described, of_content
from genmix_transforms.bank.manifest import Manifest, read_manifest
from genmix_transforms.bank.opening import Exclude, Opened, open_rows, should_bring, verify_bank
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.bank.rows import (
    DESCRIPTIONS,
    LabelKind,
    Rows,
    check_classes,
    check_masks,
    check_sources,
    check_tensors,
    check_window,
    normalised_unit,
)
from genmix_transforms.bank.shard import images_per_shard
from genmix_transforms.bank.writing import BankWriter
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import Fit
from genmix_transforms.files.labelled_images import images_from_folder, images_from_npz

Method = TypeVar("Method", bound=Callable[..., Any])


def _outside_graphs(method: Method) -> Method:
    """``torch.compiler.disable``, which leaves type checkers the method's own type."""
    return cast(Method, torch.compiler.disable(method))


class SyntheticBank(nn.Module):
    """Synthetic images with their labels and class names, on one device.

    The images are kept as integers, a quarter of a float batch's memory, sorted by class, so that a draw within a class
    is ``start[c] + floor(u * count[c])``. A large bank that was loaded stays on disk, memory-mapped, and only images
    that are drawn are read. Images, labels and offsets are non-persistent buffers: the bank moves with ``.to(device)``,
    keeps its dtypes when the model it helps to train is converted, and is in none of that model's checkpoints.

    What it shows (``images``, ``labels``, ``seeds``, ...) and takes (:meth:`rows`, :meth:`take`) is numbered in that
    order, not in the one of the tensors it was made of: :attr:`order` says which is which.

    Args:
        images: ``(N, C, *spatial)``, uint8 or uint16.
        labels: ``(N,)``, whole numbers, indices into ``classes``; or ``(N, K)`` of class probabilities, any real dtype,
            in which case an image counts for its most probable class when partners are drawn by class.
        classes: the class names, in the order of their indices.
        seeds: ``(N,)``, int64: the seed each image came from; None or -1: from none.
        source: ``(N,)``, int32: which of several provenances an image has; None: the first.
        distance: ``(N,)``, float32: to the nearest real image, in whatever measure; None or NaN: not measured.
        flags: ``(N,)``, uint8: what is marked of an image, see :class:`~genmix_transforms.bank.Flag`; None: 0.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value.
        provenance: where the images come from, as JSON can hold it; or a list of such, for ``source`` to choose from.
        masks: uint8 ``(N, *spatial)``, the segmentation of each image: the number of the mask class of each pixel.
            ``GenMix(bank, masks="soft")`` mixes them. None: the bank has none.
        mask_classes: their names, from number 0 on, such as ``["background", "lesion"]``: at least two; None: numbers,
            as many as the masks' highest pixel asks for.

    Raises:
        InputError: shapes, dtypes, labels or names that do not fit together.

    Example:
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> bank.class_counts
        {'cyst': 2, 'metastasis': 4}
        >>> bank.order.tolist()  # the images lie class by class
        [1, 3, 0, 2, 4, 5]
    """

    version: int = 0
    """Grows with every change of the content: whoever keeps something computed from it looks here."""

    order: Tensor | None = None
    """int64 ``(N,)``, on the CPU: which of the given images each of the bank's is: ``bank.images`` is
    ``images[bank.order]``. The bank sorts by class; within a class the order stays. None for a bank that was opened, or
    made of another one: its images are in the order that it shows, and nobody has another."""

    shards_to_come: int = 0
    """How many shards the fill of these files still owes."""

    _opened: Opened | None = None
    """The files whose content this is, and how it was chosen from them; None: no files have this content."""

    _manifest: Manifest | None = None
    """What these files held then."""

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
        masks: Tensor | None = None,
        mask_classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.classes = check_classes(classes)
        labels = check_tensors(images, labels, self.classes)
        self.mask_classes = check_masks(images, masks, mask_classes)
        self.window = check_window(window)
        self.sources = check_sources(provenance)
        rows = Rows.complete(images, labels, seeds=seeds, source=source, distance=distance, flags=flags, masks=masks)
        self._hold(rows.checked(sources=len(self.sources)).sorted_by_class())
        self.order = rows.class_order().cpu()

    def _hold(self, rows: Rows | MappedRows, *, resident: bool | None = None) -> None:
        """Take the place of what is held."""
        self.order = None
        self.content = Content(rows, num_classes=len(self.classes), resident=resident)
        self.version += 1

    def _with(self, rows: Rows | MappedRows, *, classes: tuple[str, ...], same_images: bool) -> "SyntheticBank":
        """A bank with this one's facts, of other rows or other classes."""
        other = SyntheticBank.__new__(SyntheticBank)
        nn.Module.__init__(other)
        other.classes, other.window, other.sources = classes, self.window, self.sources
        other.mask_classes = self.mask_classes
        if same_images and self._opened is not None:
            other._opened, other._manifest = replace(self._opened, classes=classes), self._manifest
            other.shards_to_come = self.shards_to_come
        other._hold(rows, resident=self.content.asked_resident)
        return other.to(self.device)

    def __len__(self) -> int:
        return len(self._modules["content"])  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"SyntheticBank({self.extra_repr()})"

    def extra_repr(self) -> str:
        """What ``print(bank)`` shows."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        shape = " x ".join(map(str, self.image_shape))
        soft = ", soft labels" if self.label_kind == "probabilities" else ""
        masks = "" if self.mask_classes is None else f", masks ({', '.join(self.mask_classes)})"
        where = f"{self.device}" if self.resident else f"on disk, for {self.device}"
        return f"{len(self)} images, {shape}, {self.pixel_dtype}{soft}{masks}, {where}; {counts}"

    # What it holds

    content: Content
    classes: tuple[str, ...]
    sources: tuple[Mapping[str, Any], ...]
    window: tuple[float, float] | None
    mask_classes: tuple[str, ...] | None

    images: Tensor = of_content("images")
    """``(N, C, *spatial)``, sorted by class. Of a bank on disk all are read, each time: see :meth:`rows`."""
    masks: Tensor | None = of_content("masks")
    """uint8 ``(N, *spatial)``, the masks in the order of the images, read likewise; None: the bank has none."""
    labels: Tensor = buffer_of_content("labels")
    """int64 ``(N,)``; or float32 ``(N, K)`` of class probabilities."""
    class_start: Tensor = buffer_of_content("class_start")
    """int64 ``(K,)``: where each class begins."""
    class_count: Tensor = buffer_of_content("class_count")
    """int64 ``(K,)``: how many images each class has."""
    seeds: Tensor = described("seeds")
    """int64 ``(N,)``, on the CPU: the seed each image came from; -1: from none."""
    source: Tensor = described("source")
    """int32 ``(N,)``, on the CPU: which of ``sources`` each image came from."""
    distance: Tensor = described("distance")
    """float32 ``(N,)``, on the CPU: to the nearest real image; NaN where nobody has measured."""
    flags: Tensor = described("flags")
    """uint8 ``(N,)``, on the CPU: what is marked of each image, see :class:`~genmix_transforms.bank.Flag`."""

    resident: bool = of_content("resident")
    """Whether all images are in memory, on the bank's device; else they are on disk, and read when drawn."""
    device: torch.device = of_content("device")
    """Where the images are, or where they are brought."""
    pixel_dtype: torch.dtype = of_content("pixel_dtype")
    """uint8 or uint16."""
    image_shape: tuple[int, ...] = of_content("image_shape")
    """``(C, *spatial)`` of an image."""
    label_kind: LabelKind = of_content("label_kind")
    """Whether labels are class indices ("index") or rows of probabilities ("probabilities")."""

    @property
    def soft_labels(self) -> Tensor | None:
        """The labels where they are rows of class probabilities, float32 ``(N, K)``; None: they are class indices."""
        return self.labels if self.label_kind == "probabilities" else None

    @property
    def num_classes(self) -> int:
        """How many classes the bank knows, those without an image included."""
        return len(self.classes)

    @property
    def class_counts(self) -> dict[str, int]:
        """How many images each class has, ``{name: n}``, in the order of ``classes``."""
        return dict(zip(self.classes, self.class_count.tolist(), strict=True))

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the images come from; of several sources, what they have in common."""
        first, *others = self.sources
        return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}

    def column(self, name: str) -> Tensor:
        """``seeds``, ``source``, ``distance`` or ``flags`` of every image, on the CPU."""
        return self.content.column(name)

    @_outside_graphs
    def rows(self, index: Tensor) -> Tensor:
        """Images by their numbers; of a bank on disk nothing else is read.

        Args:
            index: int64 ``(n,)``, each from 0 to ``len(bank) - 1``.

        Returns:
            ``(n, C, *spatial)``, uint8 or uint16, on the bank's device.

        Raises:
            InputError: a number that the bank does not have (on an accelerator, of a bank in its memory: torch's own).
        """
        return self.content.rows(index)

    @torch.compiler.disable
    def mask_rows(self, index: Tensor) -> Tensor:
        """Masks by the numbers of their images, as :meth:`rows`.

        Args:
            index: int64 ``(n,)``, each from 0 to ``len(bank) - 1``.

        Returns:
            uint8 ``(n, *spatial)``, numbers of ``mask_classes``, on the bank's device.

        Raises:
            InputError: the bank has no masks; or as :meth:`rows`.
        """
        if self.mask_classes is None:
            raise InputError("mask_rows: the bank has no masks; make one with SyntheticBank(images, labels, masks=...)")
        return self.content.mask_rows(index)

    unit: Final = normalised_unit

    # What is made of it

    as_dataset: Final = as_dataset
    select: Final = curation.select
    drop: Final = curation.drop
    subsample: Final = curation.subsample
    balance: Final = curation.balance
    merge: Final = merge_rules.merge

    def take(self, index: Tensor) -> "SyntheticBank":
        """Some of the images as a bank, with all that is known of each. Of a bank on disk nothing is read yet.

        Args:
            index: int64 ``(n,)``, numbers of images, in any order; the new bank has them in this one's. A number that
                is given twice is an image that is in it twice.

        Raises:
            InputError: a number that the bank does not have.
        """
        return self._with(self.content.take(index), classes=self.classes, same_images=False)

    def replace(self, **changes: Any) -> "SyntheticBank":
        """A bank in memory with other images or other facts, and everything else as it is here.

        Args:
            **changes: arguments of :class:`SyntheticBank`. Tensors have a row for each image, in this bank's order.

        Raises:
            InputError: shapes, dtypes, labels or names that do not fit together.

        Example:
            >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
            >>> bank = SyntheticBank(images, torch.tensor([0, 1]), classes=["cyst", "metastasis"])
            >>> bank.replace(flags=torch.tensor([0, 1], dtype=torch.uint8)).flags.tolist()
            [0, 1]
        """
        columns = ("images", "labels", "classes", *DESCRIPTIONS, "window", "masks", "mask_classes")
        if "masks" in changes and changes["masks"] is None:
            columns = columns[:-1]  # masks that are taken away take their names along
        kept: dict[str, Any] = {name: getattr(self, name) for name in columns if name not in changes}
        return SyntheticBank(**{"provenance": self.sources, **kept, **changes})

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
        return self._with(self.content.with_classes(self.classes, classes), classes=classes, same_images=True)

    def in_memory(self) -> Rows:
        """All rows; of a bank on disk they are read, and it stays there."""
        return self.content.in_memory()

    # From files, and to files

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        size: int | None = None,
        fit: Fit = "resize",
        channels: int | None = None,
        masks: bool = False,
    ) -> "SyntheticBank":
        """A bank from a folder of class folders with images that any tool made.

        The arguments are those of :func:`~genmix_transforms.files.labelled_images.images_from_folder`.
        """
        return cls(**images_from_folder(Path(folder), size=size, fit=fit, channels=channels, masks=masks))

    @classmethod
    def from_npz(
        cls, path: str | Path, *, size: int | None = None, fit: Fit = "resize", masks: bool = False
    ) -> "SyntheticBank":
        """A bank from an ``.npz`` with ``images``, ``labels`` and, if there are some, ``label_names``.

        The arguments are those of :func:`~genmix_transforms.files.labelled_images.images_from_npz`.
        """
        return cls(**images_from_npz(Path(path), size=size, fit=fit, masks=masks))

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

        The arguments are those of :func:`~genmix_transforms.bank.hub.download_bank`; ``options`` those of :meth:`load`.
        """
        folder = hub.download_bank(
            repo_id, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        return cls.load(folder, **options)

    push_to_hub: Final = hub.push_to_hub

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
        exclude: Exclude | None = None,
    ) -> "SyntheticBank":
        """Open a saved bank.

        Args:
            folder: that :meth:`save`, :class:`~genmix_transforms.bank.BankWriter` or ``fill_bank`` wrote.
            device: where to put the images.
            classes: the data set's class names: labels are re-mapped to them by name, see :meth:`with_classes`.
            limit: at most so many images: the first of each class, which keeps its share.
            shard: ``(rank, world)``: this process's part: every ``world``-th image of each class.
            verify: hold every shard to its checksum first (about 0.2 s a gigabyte); None: if the bank is no larger
                than 256 MiB.
            resident: True: all images are brought to the device; False: they stay on disk, and a batch's are brought
                when it is mixed; None: a bank up to 256 MiB is brought to the device, a larger one stays on disk for
                the CPU, and for another device if it would take more than three quarters of its free memory.
            exclude: "copies": leave out what is flagged as a near copy of a training image, see
                :func:`~genmix_transforms.evaluation.audit.find_copies`; None: nothing.

        Raises:
            InputError: no such bank, or classes that are not the data's; copies are to be left out of a bank in which
                nobody has looked for them, or of which nothing would be left.
            CorruptFileError: a shard or the manifest is not what was written; the message names it.
        """
        asked = None if classes is None else check_classes(classes)
        opened = Opened(
            Path(folder).absolute(),
            classes=asked,
            limit=limit,
            shard=shard,
            verify=verify,
            resident=resident,
            exclude=exclude,
        )
        bank = cls.__new__(cls)
        nn.Module.__init__(bank)
        bank._opened = opened
        bank._adopt(open_rows(opened), torch.device(device))
        return bank

    def _adopt(self, mapped: MappedRows, device: torch.device) -> None:
        """Take over what was opened."""
        self.classes, self.window, self.sources = mapped.classes, mapped.window, check_sources(mapped.sources)
        self.mask_classes = mapped.mask_classes
        self._manifest, self.shards_to_come = mapped.manifest, mapped.manifest.shards_to_come
        resident = None if self._opened is None else self._opened.resident
        self._hold(mapped.in_memory() if should_bring(mapped, resident, device) else mapped, resident=resident)
        self.to(device)

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
            labels=self.label_kind,
            window=self.window,
            mask_classes=self.mask_classes,
            provenance=self.sources,
            overwrite=overwrite,
            publish="close",
        ) as writer:
            for number in torch.arange(len(self)).split(images_per_shard(self.image_shape, self.pixel_dtype)):
                here = number.to(self.device)
                columns = {name: self.column(name)[number] for name in DESCRIPTIONS}
                if self.mask_classes is not None:
                    columns["masks"] = self.mask_rows(here).cpu()
                writer.add(self.rows(here).cpu(), self.labels[here].cpu(), **columns)
        if self.content.mapped is not None and self.content.mapped.folder == folder:
            # The files that it was mapped from are gone: nobody to whom it may be sent could map them.
            self.content.mapped = MappedRows(folder, writer.manifest)
        self._opened, self._manifest = Opened(folder, resident=self.content.asked_resident), writer.manifest

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
        opened = self._saved("refresh", "look at")
        before = len(self)
        if read_manifest(opened.folder) != self._manifest:
            mapped = self.content.mapped
            known = None if mapped is None else {shard.entry.file: shard for shard in mapped.shards}
            mapped = open_rows(opened, known)
            # Whoever uses this bank (GenMix among them) has made arrangements for what it holds.
            kinds = ((b.image_shape, b.pixel_dtype, b.label_kind, b.classes, b.mask_classes) for b in (self, mapped))
            mine, found = kinds
            if found != mine:
                raise InputError(
                    f"refresh: {opened.folder} holds another bank now: images, labels, classes and masks {found}, "
                    f"these are {mine}; open it with SyntheticBank.load"
                )
            self._adopt(mapped, self.device)
        return len(self) - before

    def _saved(self, name: str, purpose: str) -> Opened:
        if self._opened is None:
            raise InputError(f"{name}: this bank was neither saved nor loaded: there are no files to {purpose}")
        return self._opened

    def verify(self) -> None:
        """Check the files this bank was saved to or loaded from against their checksums.

        Raises:
            CorruptFileError: names every shard that is missing or changed.
            InputError: the bank was neither saved nor loaded.
        """
        verify_bank(self._saved("verify", "check").folder)
