"""A text encoder's table of word vectors, frozen, with rows of our own behind it."""

import torch
from torch import Tensor, nn


class LearnedRows(nn.Module):
    """The vectors of token ids: those of the vocabulary from a frozen table, those above it from learned rows.

    The table is not made larger: a base model that was only lent keeps its vocabulary, its weights bit for bit and the
    shapes that its files have, and an optimiser never sees more than the rows.

    Args:
        table: the text encoder's own embedding.
        first: the id of the first learned row; ids below it are the vocabulary's.
    """

    def __init__(self, table: nn.Module, *, first: int) -> None:
        super().__init__()
        self.table = table
        self.first = first
        self.rows: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids, int64 ``(N, L)``, to vectors ``(N, L, D)``.

        Gradients reach :attr:`rows`, a tensor ``(R, D)``, where the ids ask for them.
        """
        if self.rows is None:
            vectors: Tensor = self.table(ids)
            return vectors
        learned = ids >= self.first
        vectors = self.table(ids.masked_fill(learned, 0))
        rows = self.rows.to(vectors.dtype)[(ids - self.first).clamp_(min=0)]
        return torch.where(learned[..., None], rows, vectors)
