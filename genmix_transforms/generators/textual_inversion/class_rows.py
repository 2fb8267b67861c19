"""The learned vectors, class by class: all that is trained, and each moved by images of its own class only."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError


class ClassRows(nn.Module):
    """A parameter ``(V, D)`` for each class.

    Args:
        rows: what they begin as, float32, in the classes' order; copied.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        super().__init__()
        self.rows = nn.ParameterList(nn.Parameter(row.detach().float().clone()) for row in rows)

    def forward(self, present: Sequence[bool] | None = None) -> Tensor:
        """The rows one below the other, ``(V_0 + V_1 + ..., D)``: the table behind the vocabulary.

        Args:
            present: whether a batch has images of the class. The rows of the others are cut off from the gradients:
                theirs stays None, not zero, and an optimiser then leaves alone both them and its own averages of them.
                (Adam moves a parameter with a gradient of zero, by its momentum.) None: all are.
        """
        return torch.cat(
            [row if present is None or present[number] else row.detach() for number, row in enumerate(self.rows)]
        )

    def values(self) -> list[Tensor]:
        """Copies of the rows, without gradients."""
        return [row.detach().clone() for row in self.rows]


def check_embeddings(embeddings: Mapping[str, Tensor], classes: Sequence[str], *, width: int, base: str) -> None:
    """Raise an :class:`InputError` if vectors are not for these classes and this base model.

    Args:
        embeddings: for every class ``(V, D)``.
        classes: the class names.
        width: D of the base model's word vectors.
        base: its name, for the message.
    """
    if set(embeddings) != set(classes):
        raise InputError(
            f"TextualInversion: embeddings must be for the classes {', '.join(classes)}; "
            f"got them for {', '.join(map(str, embeddings)) or 'none'}"
        )
    for name, rows in embeddings.items():
        if not isinstance(rows, Tensor) or rows.ndim != 2 or not len(rows) or rows.shape[1] != width:
            got = f"of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else f"a {type(rows).__name__}"
            raise InputError(
                f"TextualInversion: the embeddings of {name!r} are {got}; the base model {base} has word vectors of "
                f"width {width}, so (V, {width}) is expected: embeddings fit the base model that they were learned for"
            )
        if not rows.isfinite().all():
            raise InputError(f"TextualInversion: the embeddings of {name!r} hold NaN or infinity")
