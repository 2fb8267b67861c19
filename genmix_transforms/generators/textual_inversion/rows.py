"""The learned vectors: what they begin as, how each class trains its own, and how a text encoder reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.randomness import noise

NOISE = 0.1
"""Of the noise that tells vectors apart that would begin alike, as a share of the table's standard deviation."""


class LearnedRows(nn.Module):
    """The vectors of token ids: those of the vocabulary from a frozen table, those above it from learned rows.

    The table is not made larger: a base model that was only lent keeps its vocabulary, its weights bit for bit and the
    shapes that its files have, and an optimizer never sees more than the rows.

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


class ClassRows(nn.Module):
    """A parameter ``(V, D)`` for each class.

    Args:
        rows: what they begin as, float32, in the classes' order; copied.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        super().__init__()
        self.rows: nn.ParameterList = nn.ParameterList(nn.Parameter(row.detach().float().clone()) for row in rows)

    def forward(self, present: Sequence[bool] | None = None) -> Tensor:
        """The rows one below the other, ``(V_0 + V_1 + ..., D)``: the table behind the vocabulary.

        Args:
            present: whether a batch has images of the class. The rows of the others are cut off from the gradients:
                theirs stays None, not zero, and an optimizer then leaves alone both them and its own averages of them.
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


def check_initial_words(words: Mapping[str, str] | None, classes: Sequence[str], tokenizer: Any) -> dict[str, str]:
    """The words given for classes.

    Raises:
        InputError: words for other classes, none at all, or such that the tokenizer does not know.
    """
    words = {} if words is None else words
    unknown = [str(name) for name in words if name not in classes]
    if unknown:
        raise InputError(
            f"TextualInversion: initial_words for {', '.join(unknown)}, and the classes are {', '.join(classes)}"
        )
    for name, text in words.items():
        if not text.strip():
            raise InputError(f"TextualInversion: initial_words of {name!r} must be a word or several, got {text!r}")
        if not token_ids(tokenizer, text):
            raise InputError(
                f"TextualInversion: the base model's tokenizer does not know all of {text!r}, the initial words of "
                f"{name!r}; give others"
            )
    return {name: words[name] for name in classes if name in words}


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text's tokens, without beginning and end; none where a part of it is unknown."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return [] if tokenizer.unk_token_id in ids else ids


def initial_rows(
    table: Tensor, tokenizer: Any, name: str, *, words: str | None, vectors: int, seed: int, label: int
) -> Tensor:
    """The vectors that a class begins with.

    The tokens of the words, w of them, become V vectors so:

    - as many or fewer (``w <= V``): vector v begins as token ``v mod w``; from the second round on with a little noise,
      a tenth of the table's standard deviation, so that no two begin alike;
    - more (``w > V``): the tokens are dealt out in order to V groups as even as can be, and each vector begins as the
      mean of its group.

    So with room enough, a prompt says at first what it says with the words in it.

    Args:
        table: the base model's word vectors ``(n, D)``.
        tokenizer: the base model's.
        name: of the class.
        words: to begin with; None: the class's name, if the tokenizer knows all of it, else one token that is the mean
            of the table.
        vectors: how many.
        seed: of the noise.
        label: the class's number: another class, other noise.

    Returns:
        float32 ``(V, D)``.
    """
    table = table[: len(tokenizer)].detach().float()
    ids = token_ids(tokenizer, name.replace("_", " ").replace("-", " ") if words is None else words)
    start = table[torch.tensor(ids, device=table.device)] if ids else table.mean(0, keepdim=True)
    count = len(start)
    if count > vectors:
        return torch.stack([group.mean(0) for group in start.tensor_split(vectors)])
    rows = start.repeat(-(-vectors // count), 1)[:vectors]
    fresh = noise([seed], tuple(rows.shape), stream=label)[0].to(table.device)
    fresh[:count] = 0
    return rows + NOISE * table.std() * fresh
