"""Batches of always the same size, each image with noise of its own: none depends on who is drawn with it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.randomness import noise


def whole_batches(
    labels: Tensor, seeds: Tensor, batch_size: int, shape: Sequence[int]
) -> Iterator[tuple[slice, Tensor, Tensor, Callable[[int], Tensor]]]:
    """Labels and noise in batches of always the same size, the last filled up with what is thrown away.

    Args:
        labels: whole numbers ``(n,)``, or rows of weights ``(n, K)``; the filling has 0.
        seeds: int64 ``(n,)``.
        batch_size: images in a batch.
        shape: of one image's noise.

    Yields:
        Where in the whole the batch belongs; its labels; the noise that it starts from (stream 0); and what gives the
        noise of any other stream, such as a step's number. The filling's noise is 0.
    """
    for start in range(0, len(labels), batch_size):
        here = slice(start, min(start + batch_size, len(labels)))
        missing = batch_size - (here.stop - here.start)
        own = seeds[here].tolist()

        def fresh(stream: int, own: list[int] = own, missing: int = missing) -> Tensor:
            return torch.cat([noise(own, shape, stream=stream), torch.zeros(missing, *shape)])

        yield here, F.pad(labels[here], (0, 0) * (labels.ndim - 1) + (0, missing)), fresh(0), fresh
