"""Placeholder tokens: one for each learned vector, in a copy of the base model's tokenizer."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import name_fault
from genmix_transforms.generators.arguments import check_class_names
from genmix_transforms.generators.textual_inversion.prompts import MAX_TOKENS, MOST_VECTORS


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names as a tuple.

    Raises:
        InputError: no list of different names that can be folders' names, or two that lower-case into one token.
    """
    classes = check_class_names(classes, name="TextualInversion")
    owners: dict[str, str] = {}
    for name in classes:
        if fault := name_fault(name):
            raise InputError(f"TextualInversion: class name {name!r}: {fault}")
        other = owners.setdefault(placeholder(name), name)
        if other != name:
            raise InputError(
                f"TextualInversion: the classes {other!r} and {name!r} would have the same token, {placeholder(name)}: "
                "tokens are lower-cased, with hyphens for spaces; rename one of the classes"
            )
    return classes


def check_vectors(vectors: int | Mapping[str, int], classes: Sequence[str]) -> dict[str, int]:
    """How many vectors each class has.

    Raises:
        InputError: a mapping without a number for each class.
    """
    if not isinstance(vectors, Mapping):
        vectors = dict.fromkeys(classes, vectors)
    if set(vectors) != set(classes):
        raise InputError(
            f"TextualInversion: vectors must be a number, or a number for each of the classes {', '.join(classes)}; "
            f"got them for {', '.join(map(str, vectors)) or 'none'}"
        )
    return {name: vectors[name] for name in classes}


def placeholder(name: str) -> str:
    """The first token of a class: lower case, since some tokenizers lower-case what they read.

    Example:
        >>> placeholder("Basal cell carcinoma")
        '<basal-cell-carcinoma>'
    """
    return f"<{'-'.join(name.lower().split())}>"


def token_names(name: str, vectors: int) -> tuple[str, ...]:
    """The tokens of a class, one for each vector, named as diffusers names them.

    Example:
        >>> token_names("cyst", 3)
        ('<cyst>', '<cyst>_1', '<cyst>_2')
    """
    first = placeholder(name)
    return (first, *(f"{first}_{number}" for number in range(1, vectors)))


class PlaceholderTokens:
    """The classes' tokens, and the ids of prompts that hold them.

    Args:
        tokenizer: the base model's; it is copied, not changed.
        vectors: how many each class has, in the classes' order.

    Attributes:
        names: of each class's tokens.
        first: id of the first; the others follow it.

    Raises:
        InputError: more vectors than a prompt has room for; the tokenizer knows one of the tokens already, or does not
            number new ones in order.
    """

    def __init__(self, tokenizer: Any, vectors: Mapping[str, int]) -> None:
        from transformers import AddedToken

        for name, count in vectors.items():
            if count > MOST_VECTORS:
                raise InputError(
                    f"TextualInversion: {count} vectors of class {name!r}, and a prompt has room for {MOST_VECTORS}; "
                    "give fewer"
                )
        self.names: dict[str, tuple[str, ...]] = {name: token_names(name, count) for name, count in vectors.items()}
        self.first: int = len(tokenizer)
        tokens = [token for names in self.names.values() for token in names]
        known = tokenizer.get_vocab()
        for name, own in self.names.items():
            for token in own:
                if token in known:
                    raise InputError(
                        f"TextualInversion: the tokenizer knows {token} already, which class {name!r} would be called: "
                        "learning it would change the base model's own word; rename the class"
                    )
        self._tokenizer = copy.deepcopy(tokenizer)
        # Not normalized: found in a prompt as they stand, before it is lower-cased or stripped of its accents.
        self._tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
        if self._tokenizer.convert_tokens_to_ids(tokens) != list(range(self.first, self.first + len(tokens))):
            raise InputError(
                f"TextualInversion: the base model's tokenizer does not number new tokens from {self.first} on, behind "
                "its own: it is not one that embeddings can be learned for"
            )

    def fill(self, template: str, name: str) -> str:
        """A template with a class's tokens in the place of its ``{}``."""
        return template.replace("{}", " ".join(self.names[name]))

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """The ids of prompts, padded: int64 ``(n, 77)``.

        Raises:
            InputError: a prompt of more than 77 tokens, beginning and end counted.
        """
        for prompt in prompts:
            if (length := self.length(prompt)) > MAX_TOKENS:
                raise InputError(
                    f"TextualInversion: a prompt of {length} tokens, and the text encoder reads {MAX_TOKENS}, "
                    f"beginning and end counted: {prompt!r}; shorten it"
                )
        padded = self._tokenizer(
            list(prompts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        ids: Tensor = padded.input_ids
        return ids.to(torch.int64)

    def length(self, prompt: str) -> int:
        """How many tokens a prompt has, beginning and end counted."""
        return len(self._tokenizer(prompt, verbose=False).input_ids)

    def check_own(self, templates: Sequence[str]) -> None:
        """Raise an :class:`InputError` for a template that names a class: images of others would move its vectors."""
        for template in templates:
            if any(token >= self.first for token in self._tokenizer(template, verbose=False).input_ids):
                raise InputError(
                    f"TextualInversion: the template {template!r} has a class's own token in it; {{}} stands for the "
                    "class, and the vectors of each are learned from its own images alone"
                )

    def check_room(self, templates: Sequence[str]) -> None:
        """Raise an :class:`InputError` if a class's tokens do not fit into all templates; it says how many would."""
        length, template, name = max(
            (self.length(self.fill(template, name)), template, name) for template in templates for name in self.names
        )
        if length > MAX_TOKENS:
            count = len(self.names[name])
            room = MAX_TOKENS - (length - count)
            way_out = f"give at most {room} vectors, or" if room > 0 else "give"
            raise InputError(
                f"TextualInversion: {template!r} with the {count} vectors of class {name!r} is {length} tokens long, "
                f"and the text encoder reads {MAX_TOKENS}, beginning and end counted: {way_out} shorter templates"
            )
