"""Checkpoints that are written while the training goes on: one at a time, the index last."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from genmix_transforms.generators.state import Stateful, pack, write_checkpoint


class Checkpoints:
    """Writes the checkpoints of a run in a thread, and keeps the last one whole until the next one is.

    The training waits only for the copy of its state to the memory of the CPU. Hashing and writing go on beside it; a
    second checkpoint waits for the first. An error there is raised by the next :meth:`save` or :meth:`finish`. At the
    end of the ``with`` block nothing is on its way any more.

    Args:
        folder: where the checkpoints are kept; made if need be.
        record: what else the run must know of itself: options, seed, training set.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder = folder
        self.record: dict[str, Any] = dict(record)
        self._copies: dict[str, Tensor] = {}  # used again each time: new memory costs as much as the copy
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error of the training is what counts, and says itself; one of the writing must not take its place.
        if kind is None:
            self.finish()
        elif self._thread is not None:
            self._thread.join()

    def save(self, objects: Mapping[str, Stateful], *, images_seen: int) -> None:
        """Copy the state as it stands now, and begin to write it.

        Args:
            objects: the named state objects.
            images_seen: where the training stands.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.finish()
        outline, tensors = pack({name: item.state_dict() for name, item in objects.items()})
        copies = {name: self._copy(name, tensor.detach()) for name, tensor in tensors.items()}
        self._copies = copies
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()  # the copies to pinned memory
        self._thread = threading.Thread(
            target=self._write, args=(outline, copies, images_seen), name="genmix checkpoint", daemon=False
        )
        self._thread.start()

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            OSError: it could not be written. The one before is whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        copy = self._copies.get(name)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return copy.copy_(tensor, non_blocking=True)

    def _write(self, outline: Any, tensors: Mapping[str, Tensor], images_seen: int) -> None:
        try:
            write_checkpoint(self.folder, outline, tensors, images_seen=images_seen, record=self.record)
        except Exception as error:
            self._error = error
