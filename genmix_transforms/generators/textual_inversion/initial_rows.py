"""What the learned vectors begin as: words of the base model's own vocabulary."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.randomness import noise

NOISE = 0.1
"""Of the noise that tells vectors apart that would begin alike, as a share of the table's standard deviation."""


def check_initial_words(words: Mapping[str, str] | None, classes: Sequence[str], tokenizer: Any) -> dict[str, str]:
    """The words given for classes.

    Raises:
        InputError: words for other classes, none at all, or such that the tokenizer does not know.
    """
    words = {} if words is None else words
    if not isinstance(words, Mapping):
        raise InputError(
            "TextualInversion: initial_words must be {class: words}, such as {'cyst': 'dark cyst'}, "
            f"got {words!r}; None: the classes' names"
        )
    unknown = [str(name) for name in words if name not in classes]
    if unknown:
        raise InputError(
            f"TextualInversion: initial_words for {', '.join(unknown)}, and the classes are {', '.join(classes)}"
        )
    for name, text in words.items():
        if not isinstance(text, str) or not text.strip():
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
