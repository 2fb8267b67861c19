"""Memory for outputs that is used again as soon as nobody holds the last output any more."""

import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALLEST = 4 << 20
"""Bytes. Below, the allocator itself has memory at hand."""
_KEPT = 2
_ALIGNMENT = 64


class _Lease(weakref.ref["NDArray[np.uint8]"]):
    """A weak reference to the array that one output lives in, with the block that it is a part of."""

    __slots__ = ("block",)
    block: NDArray[np.uint8]


class RecycledMemory:
    """Outputs in memory that has been written before.

    The system hands out a fresh batch-sized block page by page, each cleared at its first touch, and takes it back
    when the batch is dropped: on a CPU that costs more than the mix itself. Here a block returns when the last tensor
    in it (and every view, NumPy array and autograd graph that holds one) is gone, and the next output is written there.
    What is still held is never written over. A batch sent to another process is copied to shared memory, which frees
    it here. Lent memory is no allocator's: an output can shrink by ``resize_``, and not grow; its ``clone()`` can.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lent: dict[int, _Lease] = {}

    def empty_like(self, images: Tensor) -> Tensor:
        """Make a tensor on the CPU of the shape, dtype and (if dense) strides of ``images``; its values are not set."""
        size = images.numel() * images.element_size()
        if size < SMALLEST or torch.compiler.is_compiling():
            return torch.empty_like(images)
        block = self._take(size)
        # An array object of this output's own: torch holds it as long as any tensor is in it, then it dies, and tells.
        lease = block[:size]
        reference = _Lease(lease, self._give_back)
        reference.block = block
        self._lent[id(reference)] = reference  # a weak reference must itself be kept to tell
        storage = torch.from_numpy(lease).untyped_storage()
        # A tensor of its own, not a view of one.
        return torch.empty(0, dtype=images.dtype, device="cpu").set_(storage, 0, images.shape, _strides(images))

    def _take(self, size: int) -> NDArray[np.uint8]:
        others: list[NDArray[np.uint8]] = []
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if size <= len(block) <= 2 * size:
                self._free.extend(others)
                return block
            others.append(block)
        # What does not fit is let go: batches have another size now.
        # NumPy asks the system for large pages, a hundredth of the page faults.
        memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        skipped = -memory.ctypes.data % _ALIGNMENT
        return memory[skipped : skipped + size]

    def _give_back(self, reference: "_Lease") -> None:
        block = self._lent.pop(id(reference)).block
        if len(self._free) < _KEPT:
            self._free.append(block)

    def __reduce__(self) -> tuple[type[Any], tuple[()]]:
        return (RecycledMemory, ())


def _strides(images: Tensor) -> tuple[int, ...]:
    """Return the strides of ``torch.empty_like``: the images' own if they are dense."""
    return images.stride() if images.is_contiguous() else torch.empty_like(images, device="meta").stride()
