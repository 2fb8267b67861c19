"""Batches of always the same size, each image with noise of its own: none depends on who is drawn with it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.randomness import noise


def whole_batches(
    labels: Tensor, seeds: Tensor, batch_size: int, shape: Sequence[int]
) -> Iterator[tuple[slice, Tensor, Tensor, Callable[[int], Tensor]]]:
    """Iterate over labels and noise in batches of one size; the last is filled up, and the filling is thrown away.

    An image then depends neither on who is drawn with it nor on how many are.

    Args:
        labels: whole numbers ``(n,)``, or rows of weights ``(n, K)``; the filling has 0.
        seeds: int64 ``(n,)``.
        batch_size: images in a batch.
        shape: of one image's noise.

    Yields:
        Where in the whole the batch belongs; its labels; the noise that it starts from (stream 0); and what gives the
        noise of any other stream, such as a step's number: float32 ``(batch_size, *shape)``, on the CPU. The filling's
        noise is 0.

    Example:
        >>> labels, seeds = torch.tensor([0, 1, 0]), torch.tensor([7, 8, 9])
        >>> for where, some, latents, _ in whole_batches(labels, seeds, 2, (16,)):
        ...     print(where, some.tolist(), tuple(latents.shape))
        slice(0, 2, None) [0, 1] (2, 16)
        slice(2, 3, None) [0, 0] (2, 16)
    """
    for start in range(0, len(labels), batch_size):
        here = slice(start, min(start + batch_size, len(labels)))
        missing = batch_size - (here.stop - here.start)
        own = seeds[here].tolist()

        def fresh(stream: int, own: list[int] = own, missing: int = missing) -> Tensor:
            return torch.cat([noise(own, shape, stream=stream), torch.zeros(missing, *shape)])

        yield here, F.pad(labels[here], (0, 0) * (labels.ndim - 1) + (0, missing)), fresh(0), fresh
