"""What a bank holds: rows in memory, or rows on disk of which only those that are asked for are read."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from genmix_transforms.bank.buffers import KeepsDtypes
from genmix_transforms.bank.loading import should_bring
from genmix_transforms.bank.mapped import MappedRows
from genmix_transforms.bank.shards import KEPT_ON_CPU, Rows
from genmix_transforms.errors import InputError


class HeldRows(KeepsDtypes):
    """Images and all that is known of each, sorted by class, as a torch module.

    What GenMix draws with (images, labels, offsets) are non-persistent buffers, on the module's device. What no
    training step reads (seeds, source, distance, flags) stays on the CPU, and on disk until somebody asks for it.

    Attributes:
        labels: int64 ``(N,)``, or float32 ``(N, K)`` of class probabilities.
        class_start, class_count: int64 ``(K,)``: where each class begins, and how many images it has.
    """

    labels: Tensor
    class_start: Tensor
    class_count: Tensor

    _asked_resident: bool | None = None
    """Whether the user wants the images in memory; None: as their size suggests."""

    version: int = 0
    """Grows with every change of the content."""

    def _hold(self, rows: Rows | MappedRows, count: Tensor) -> None:
        """Take the place of what is held: rows in memory, sorted by class, or mapped ones."""
        self.version += 1
        self._mapped = rows if isinstance(rows, MappedRows) else None
        in_memory = rows if isinstance(rows, Rows) else None
        self._kept = {} if in_memory is None else {name: getattr(in_memory, name) for name in KEPT_ON_CPU}
        self._count = int(count.sum())
        for name, tensor in (
            ("pixels", None if in_memory is None else in_memory.images),
            ("labels", (rows.labels() if isinstance(rows, MappedRows) else rows.labels).contiguous()),
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
            self._kept = {name: self._column(name) for name in KEPT_ON_CPU}
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
        return self.images.dtype if self._mapped is None else self._mapped.manifest.pixel_dtype

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of an image."""
        return tuple(self.images.shape[1:]) if self._mapped is None else self._mapped.manifest.shape

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
        if name not in self._kept:
            assert self._mapped is not None  # in memory, all of them are held
            self._kept[name] = self._mapped.column(name)
        column: Tensor = self._kept[name]
        return column

    @torch.compiler.disable
    def rows(self, index: Tensor) -> Tensor:
        """Images by their numbers; of a bank on disk nothing else is read.

        Args:
            index: int64 ``(n,)``, each from 0 to ``len(bank) - 1``.

        Returns:
            ``(n, C, *spatial)``, uint8 or uint16, on the bank's device.

        Raises:
            InputError: a number that the bank does not have (on an accelerator, of a bank in its memory: torch's own).
        """
        if self._mapped is None:
            if index.device.type == "cpu":
                self._check_numbers(index)
            return self.images.index_select(0, index)
        index = index.detach().cpu()
        self._check_numbers(index)
        if self.device.type != "cuda":
            return torch.from_numpy(self._mapped.take(index.numpy())).to(self.device)
        pinned = torch.empty(len(index), *self.image_shape, dtype=self.pixel_dtype, pin_memory=True)
        self._mapped.take(index.numpy(), out=pinned.numpy())
        return pinned.to(self.device, non_blocking=True)

    def _check_numbers(self, index: Tensor) -> None:
        """Bounds of numbers that are on the CPU: to look at those on an accelerator would wait for it."""
        if index.ndim != 1 or index.dtype != torch.int64:
            raise InputError(f"rows: numbers must be int64 of shape (n,), got {index.dtype} of {tuple(index.shape)}")
        if len(index):
            low, high = (int(value) for value in index.aminmax())
            if not 0 <= low <= high < len(self):
                raise InputError(f"rows: numbers must be from 0 to {len(self) - 1}, got {low} to {high}")

    def _taken(self, index: Tensor) -> tuple[Rows | MappedRows, Tensor]:
        """Some of the rows, in the bank's order, and how many of each class they are."""
        index = torch.sort(index.detach().cpu())[0]
        self._check_numbers(index)
        bounds = torch.cat([self.class_start.cpu(), torch.tensor([len(self)])])
        count = torch.searchsorted(index, bounds).diff()
        if self._mapped is not None:
            return self._mapped.select(index.numpy()), count
        here = index.to(self.device)
        kept = {name: getattr(self, name)[index] for name in KEPT_ON_CPU}
        return Rows(self.images[here], self.labels[here], **kept), count.to(self.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> Self:
        before = self.device
        super()._apply(fn, *arguments, **options)
        if (
            self._mapped is not None
            and self.device != before
            and should_bring(self._mapped, self._asked_resident, self.device)
        ):
            _ = self.images
        return self
