"""Prefetching: while you train on one batch, the partners of the next are read and copied to the device."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms.masks import Masks


class Mixer(Protocol):
    """What is asked of a GenMix here: to draw for a sample, and to mix it by that draw later."""

    training: bool
    masks: Masks | None

    @property
    def bank(self) -> SyntheticBank:
        """The partners."""

    def draw(self, *inputs: Any) -> dict[str, Tensor]:
        """Draw for a sample."""

    def __call__(self, *inputs: Any, params: dict[str, Tensor] | None = None) -> Any:
        """Mix a sample."""


@dataclass
class _Ahead:
    """A batch whose partners are on their way."""

    sample: Any
    params: dict[str, Tensor]
    partners: "Future[tuple[dict[str, Tensor], torch.cuda.Event | None]]"


class Prefetched:
    """The batches of a loader, mixed by a GenMix, each prepared while you train on the previous one.

    Use it for a bank that is not in the device's memory. A thread gathers the partners of the next batch, on CUDA into
    pinned memory, and a separate stream copies batch, draw and partners to the device. Prefetching does not change what
    a batch draws, but draws it one batch earlier. A GenMix that shares torch's global generator with, for example, a
    dropout layer therefore draws different (equally random) numbers. To draw the same ones, give it its own generator.
    A loader that records its position is one batch ahead of the training.

    With a bank in memory, there is nothing to read, and batches are mixed when they are requested.

    Args:
        genmix: the GenMix that mixes. In ``eval()``, images pass through unchanged, as usual.
        loader: yields samples in a form that GenMix takes. With ``pin_memory=True``, they are copied to the device
            without waiting.

    Raises:
        InputError: ``loader`` is not iterable.

    Example:
        >>> from genmix_transforms import GenMix, SyntheticBank
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> genmix = GenMix(SyntheticBank(images, torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis"]))
        >>> loader = [(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 1])) for _ in range(2)]
        >>> [labels.shape for images, labels in genmix.prefetch(loader)]
        [torch.Size([3, 2]), torch.Size([3, 2])]
    """

    def __init__(self, genmix: Mixer, loader: Iterable[Any]) -> None:
        if not hasattr(loader, "__iter__"):
            raise InputError(f"prefetch: expected a DataLoader or another iterable, got a {type(loader).__name__}")
        self.genmix = genmix
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # as the loader: a TypeError where it has no length

    def __iter__(self) -> Iterator[Any]:
        device = self.genmix.bank.device
        if self.genmix.bank.resident or not self.genmix.training:
            for sample in self.loader:
                yield self.genmix(_on(device, sample))
            return
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="genmix-prefetch") as reader:
            ahead: _Ahead | None = None
            for sample in self.loader:
                following = self._begin(sample, reader, stream)
                if ahead is not None:
                    yield self._finish(ahead)
                ahead = following
            if ahead is not None:
                yield self._finish(ahead)

    def _begin(self, sample: Any, reader: ThreadPoolExecutor, stream: torch.cuda.Stream | None) -> _Ahead:
        with _used(stream):
            sample = _on(self.genmix.bank.device, sample)
            params = self.genmix.draw(sample)
            numbers = torch.where(params["from_batch"], 0, params["index"])
        return _Ahead(sample, params, reader.submit(self._fetch, numbers, stream))

    def _fetch(
        self, numbers: Tensor, stream: torch.cuda.Stream | None
    ) -> "tuple[dict[str, Tensor], torch.cuda.Event | None]":
        with _used(stream):
            partners = {"partners": self.genmix.bank.rows(numbers)}
            if self.genmix.masks is not None:
                partners["partner_masks"] = self.genmix.bank.mask_rows(numbers)
            return partners, None if stream is None else stream.record_event()

    def _finish(self, ahead: _Ahead) -> Any:
        partners, arrived = ahead.partners.result()
        params = {**ahead.params, **partners}
        if arrived is not None:
            current = torch.cuda.current_stream(self.genmix.bank.device)
            current.wait_event(arrived)
            # Made on the other stream, used on this one: their memory must not go to another batch before.
            tree_map_only(Tensor, lambda tensor: tensor.record_stream(current), (ahead.sample, params))
        return self.genmix(ahead.sample, params=params)


def _on(device: torch.device, sample: Any) -> Any:
    """Bring the sample's tensors to the device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), sample)


def _used(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
