"""The images of one shard after another, drawn in whole batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from genmix_transforms.generators.base import Generator

Key = tuple[int, int]
"""An image's label and seed."""


class ShardDrawing:
    """Draws the images of shards, in order, and none to throw away.

    A network computes whole batches, so that no image depends on how many were asked for: with batches of 48, it
    computes 96 images for a shard of 64. Here what a batch has beyond the end of a shard begins the next one.

    Args:
        generator: any kind.
        numbers: the shards to draw.
        shard: gives labels and seeds, int64 ``(n,)`` each, of a shard.
        ready: images ``(C, H, W)`` that are drawn and in no finished shard yet, at first those of an earlier run.
        drawn: called with a number of images whenever as many more are ready.
        told: from labels and seeds to what the generator is given as labels, such as soft ones.
    """

    def __init__(
        self,
        generator: Generator,
        numbers: Sequence[int],
        shard: Callable[[int], tuple[Tensor, Tensor]],
        *,
        ready: Mapping[Key, Tensor],
        drawn: Callable[[int], object],
        told: Callable[[Tensor, Tensor], Tensor] = lambda labels, seeds: labels,
    ) -> None:
        self._generator, self._numbers, self._shard, self._drawn = generator, numbers, shard, drawn
        self._told = told
        self.ready: dict[Key, Tensor] = dict(ready)
        self._earlier = frozenset(ready)
        # A class is drawn by itself where another network draws each.
        groups = [None] if generator.mixes_classes else range(len(generator.classes))
        self._to_draw = {group: self._keys(group) for group in groups}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images, labels and seeds of each shard; a shard counts as finished when the next one is asked for."""
        for number in self._numbers:
            labels, seeds = self._shard(number)
            keys = list(zip(labels.tolist(), seeds.tolist(), strict=True))
            self._drawn(sum(key in self._earlier for key in keys))
            for key in keys:
                while key not in self.ready:
                    self._draw_batch(None if self._generator.mixes_classes else key[0])
            yield torch.stack([self.ready[key] for key in keys]), labels, seeds
            for key in keys:
                del self.ready[key]

    def _keys(self, group: int | None) -> Iterator[Key]:
        """All images still to draw, of one class or of all, in the order of the shards."""
        for number in self._numbers:
            labels, seeds = self._shard(number)
            here = torch.ones_like(labels, dtype=torch.bool) if group is None else labels == group
            for key in zip(labels[here].tolist(), seeds[here].tolist(), strict=True):
                if key not in self._earlier:
                    yield key

    def _draw_batch(self, group: int | None) -> None:
        keys = list(islice(self._to_draw[group], self._generator.sample_batch))
        labels, seeds = torch.tensor(keys).unbind(1)
        self.ready.update(zip(keys, self._generator.sample(self._told(labels, seeds), seeds), strict=True))
        self._drawn(len(keys))
