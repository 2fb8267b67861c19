"""What a network knows of a class, by label: a row of a table, or rows mixed by the weights of a soft label."""

from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F


def look_up(table: Tensor, labels: Tensor) -> Tensor:
    """Rows of a table by their numbers, or mixed.

    Args:
        table: ``(K, ...)``, what is known of each class.
        labels: int64 ``(n,)``, or float32 ``(n, k)``: weights of the first ``k`` rows, each line with a sum of 1.

    Returns:
        ``(n, ...)`` of the table's dtype. A line with all weight on one class gives that class's row, bit for bit.

    Example:
        >>> import torch
        >>> table = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
        >>> look_up(table, torch.tensor([1, 0])).tolist()
        [[0.0, 4.0], [1.0, 0.0]]
        >>> look_up(table, torch.tensor([[0.75, 0.25]])).tolist()
        [[0.75, 1.0]]
    """
    if labels.ndim == 1:
        return table[labels]
    rows = table[: labels.shape[1]].float()
    # No matrix product: TF32 would round the rows, and bfloat16 under autocast.
    mixed = (labels.view(*labels.shape, *[1] * (rows.ndim - 1)) * rows).sum(dim=1)
    return mixed.to(table.dtype)


class ClassEmbedding(nn.Embedding):
    """An ``nn.Embedding`` of classes that also takes soft labels: their vector is the mixture of the classes' vectors.

    Source: Carlesso et al., "GeMix" (arXiv 2507.15577): a class-conditional generator is given a soft label in place of
    the one-hot label that it was trained with. An embedding is the linear layer that follows such a label.

    Example:
        >>> import torch
        >>> embedding = ClassEmbedding(3, 4)
        >>> vectors = embedding(torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]))
        >>> torch.equal(vectors[0], embedding(torch.tensor(1)))
        True
    """

    @classmethod
    def of(cls, embedding: nn.Embedding) -> Self:
        """One that shares the weights of another."""
        made = cls(embedding.num_embeddings, embedding.embedding_dim, _weight=embedding.weight)
        made.weight = embedding.weight  # itself, with its gradient, and not another parameter of the same numbers
        return made

    def forward(self, labels: Tensor) -> Tensor:
        """Labels, int64 of any shape or float32 ``(N, k)`` of weights, to vectors ``(N, D)``."""
        return look_up(self.weight, labels) if labels.is_floating_point() else F.embedding(labels, self.weight)
