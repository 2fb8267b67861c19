"""What a bank holds: rows in memory, or rows on disk of which only those that are asked for are read."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from genmix_transforms.bank.opening import should_bring
from genmix_transforms.bank.reading import MappedRows, check_numbers
from genmix_transforms.bank.rows import DESCRIPTIONS, LabelKind, Rows, places_by_name, take_rows
from genmix_transforms.buffers import KeepsDtypes


class Content(KeepsDtypes):
    """Images and all that is known of each, sorted by class, as a torch module.

    What GenMix draws with (pixels, labels, offsets) are non-persistent buffers, on the module's device. What no
    training step reads (seeds, source, distance, flags) stays on the CPU, and on disk until somebody asks for it.

    Args:
        rows: in memory, sorted by class; or mapped ones.
        num_classes: K.
        resident: whether the user wants the images in memory; None: as their size suggests.

    Attributes:
        labels: int64 ``(N,)``, or float32 ``(N, K)`` of class probabilities.
        class_start, class_count: int64 ``(K,)``: where each class begins, and how many images it has.
        mapped: the files that the images and masks are read from; None: they are in memory.
    """

    labels: Tensor
    class_start: Tensor
    class_count: Tensor

    def __init__(self, rows: Rows | MappedRows, *, num_classes: int, resident: bool | None) -> None:
        super().__init__()
        self.asked_resident = resident
        self.mapped: MappedRows | None = None
        self._descriptions: dict[str, Tensor] = {}
        pixels: Tensor | None = None
        masks: Tensor | None = None
        if isinstance(rows, MappedRows):
            self.mapped, labels, count = rows, rows.labels(), rows.class_count
        else:
            self._descriptions = {name: getattr(rows, name) for name in DESCRIPTIONS}
            pixels, labels, masks = rows.images, rows.labels, rows.masks
            count = torch.bincount(rows.index_labels, minlength=num_classes)
        self._count = int(count.sum())
        buffers = {"pixels": pixels, "mask_pixels": masks, "labels": labels.contiguous(), "class_count": count}
        for name, tensor in {**buffers, "class_start": count.cumsum(0) - count}.items():
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return self._count

    @property
    def images(self) -> Tensor:
        """``(N, C, *spatial)``. Of a bank on disk all are read, each time."""
        if self.mapped is not None:
            return self.mapped.images().to(self.device)
        return self._buffers["pixels"]  # type: ignore[return-value]

    @property
    def masks(self) -> Tensor | None:
        """uint8 ``(N, *spatial)``, of a bank on disk read each time; None: the bank has none."""
        if self.mapped is not None:
            masks = self.mapped.masks()
            return None if masks is None else masks.to(self.device)
        return self._buffers["mask_pixels"]

    @property
    def resident(self) -> bool:
        """Whether all images are in memory, on the module's device."""
        return self.mapped is None

    @property
    def device(self) -> torch.device:
        """Where the images are, or where they are brought."""
        return self._buffers["labels"].device  # type: ignore[union-attr]

    @property
    def pixel_dtype(self) -> torch.dtype:
        """uint8 or uint16."""
        return self.images.dtype if self.mapped is None else self.mapped.pixel_dtype

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of an image."""
        return tuple(self.images.shape[1:]) if self.mapped is None else self.mapped.image_shape

    @property
    def label_kind(self) -> LabelKind:
        """Whether labels are class indices or rows of probabilities."""
        return "index" if self.labels.ndim == 1 else "probabilities"

    def column(self, name: str) -> Tensor:
        """``seeds``, ``source``, ``distance`` or ``flags`` of every image, on the CPU."""
        if name not in self._descriptions and self.mapped is not None:
            self._descriptions[name] = self.mapped.column(name)
        return self._descriptions[name]

    def rows(self, index: Tensor) -> Tensor:
        """See :meth:`~genmix_transforms.bank.SyntheticBank.rows`."""
        if self.mapped is not None:
            return self.mapped.rows(index, device=self.device)
        return self._taken(self.images, index)

    def mask_rows(self, index: Tensor) -> Tensor:
        """See :meth:`~genmix_transforms.bank.SyntheticBank.mask_rows`."""
        if self.mapped is not None:
            return self.mapped.mask_rows(index, device=self.device)
        masks = self._buffers["mask_pixels"]
        assert masks is not None  # asked for where there are some
        return self._taken(masks, index)

    def _taken(self, values: Tensor, index: Tensor) -> Tensor:
        if index.device.type == "cpu":  # to look at numbers on an accelerator would wait for it
            check_numbers(index, len(self))
        return take_rows(values, index)

    def in_memory(self) -> Rows:
        """All rows; of a bank on disk they are read, and it stays there."""
        columns = {name: self.column(name) for name in DESCRIPTIONS}
        return Rows(self.images, self.labels, **columns, masks=self.masks)

    def take(self, index: Tensor) -> Rows | MappedRows:
        """Some of the rows, in their order here; of a bank on disk nothing is read yet."""
        index = torch.sort(index.detach().cpu())[0]
        check_numbers(index, len(self))
        return self.in_memory().take(index) if self.mapped is None else self.mapped.select(index.numpy())

    def with_classes(self, before: tuple[str, ...], after: tuple[str, ...]) -> Rows | MappedRows:
        """The rows with their labels re-mapped, by name, from one list of classes to another.

        Raises:
            InputError: there are images of a class that ``after`` does not name.
        """
        if self.mapped is not None:
            return self.mapped.with_classes(after)
        places_by_name(before, after, counts=self.class_count.tolist() if self.label_kind == "index" else None)
        return self.in_memory().relabelled(before, after).sorted_by_class()

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> Self:
        before, mapped = self.device, self.mapped
        super()._apply(fn, *arguments, **options)
        if mapped is not None and self.device != before and should_bring(mapped, self.asked_resident, self.device):
            self._buffers["pixels"], self._buffers["mask_pixels"] = self.images, self.masks
            self._descriptions = {name: self.column(name) for name in DESCRIPTIONS}
            self.mapped = None
        return self


# Read at every training step: past nn.Module's attribute access, which shows on a small batch.


def of_content(name: str) -> Any:
    """An attribute of a bank that its content has."""
    return property(lambda bank: getattr(bank._modules["content"], name), doc=f"``content.{name}``, see `Content`.")


def buffer_of_content(name: str) -> Any:
    """An attribute of a bank that is a buffer of its content."""
    return property(lambda bank: bank._modules["content"]._buffers[name], doc=f"``content.{name}``, see `Content`.")


def described(name: str) -> Any:
    """An attribute of a bank that is a column of its content."""
    return property(lambda bank: bank.content.column(name), doc=f"The column ``{name}``, see `Content`.")
