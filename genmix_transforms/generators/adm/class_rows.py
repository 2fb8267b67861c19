"""The rows of a class embedding as all that is trained: the rest of the network stays as it came."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.generators.class_embedding import ClassEmbedding


class ClassRows(nn.Module):
    """A class embedding of which the classes' rows are trained, and the row for "no class" is not.

    The small cousin of Textual Inversion: what a class is, as one vector for a network that is not changed.

    Args:
        embedding: the network's; its numbers are copied.
        classes: how many of its rows, the first ones, are those of classes.
    """

    def __init__(self, embedding: nn.Embedding, *, classes: int) -> None:
        super().__init__()
        rows = embedding.weight.detach()
        self.rows: nn.Parameter = nn.Parameter(rows[:classes].clone())
        # Apart, and not only without a gradient: weight decay would reach every row of one parameter.
        self.register_buffer("others", rows[classes:].clone(), persistent=False)
        self.others: Tensor

    def forward(self, labels: Tensor) -> Tensor:
        """Labels int64 ``(N,)`` to rows ``(N, D)``."""
        return F.embedding(labels, torch.cat([self.rows, self.others]))

    def plain(self) -> ClassEmbedding:
        """An embedding of all rows, as a network has it that is not in training."""
        rows = torch.cat([self.rows.detach(), self.others])
        return ClassEmbedding(len(rows), rows.shape[1], _weight=rows)


def put_in_rows(network: Any, *, classes: int) -> None:
    """Freeze a network, in place, but for the rows of its classes."""
    network.requires_grad_(False)
    network.class_embedding = ClassRows(network.class_embedding, classes=classes)


def take_out_rows(network: Any) -> None:
    """Undo :func:`put_in_rows`, in place: the rows are where the network keeps them. Without any, nothing happens."""
    if isinstance(getattr(network, "class_embedding", None), ClassRows):
        network.class_embedding = network.class_embedding.plain()
