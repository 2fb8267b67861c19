"""What vectors begin as: words, several of them, too many of them, and none that the tokenizer knows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.initial_rows import (
    NOISE,
    check_initial_words,
    initial_rows,
    token_ids,
)
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion


def rows(
    model: LatentDiffusion, name: str = "cyst", *, words: str | None = None, vectors: int = 1, **more: int
) -> Tensor:
    return initial_rows(
        table(model), model.tokenizer, name, words=words, vectors=vectors, **{"seed": 0, "label": 0, **more}
    )


def table(model: LatentDiffusion) -> Tensor:
    weight: Tensor = model.learned.table.weight
    return weight


def of(model: LatentDiffusion, text: str) -> Tensor:
    return table(model)[torch.tensor(token_ids(model.tokenizer, text))].detach()


def test_a_word_each(ldm: LatentDiffusion) -> None:
    assert torch.equal(rows(ldm, words="lung cyst", vectors=2), of(ldm, "lung cyst"))
    assert torch.equal(rows(ldm, "cyst"), of(ldm, "cyst"))  # its name, which the tokenizer knows
    assert torch.equal(rows(ldm, "normal_tissue", vectors=2), of(ldm, "normal tissue"))


def test_more_vectors_than_words_go_round_with_a_little_noise(ldm: LatentDiffusion) -> None:
    got = rows(ldm, words="lung cyst", vectors=5)
    word = of(ldm, "lung cyst")
    assert torch.equal(got[:2], word)
    noise = got[2:] - word[[0, 1, 0]]
    assert noise.std() == pytest.approx(NOISE * float(table(ldm).std()), rel=0.35)
    assert len({tuple(row.tolist()) for row in got}) == 5
    assert torch.equal(rows(ldm, words="lung cyst", vectors=5), got)
    for other in ({"seed": 1}, {"label": 1}):
        changed = rows(ldm, words="lung cyst", vectors=5, **other)
        assert torch.equal(changed[:2], got[:2])
        assert not torch.equal(changed[2:], got[2:])


def test_more_words_than_vectors_are_shared_out(ldm: LatentDiffusion) -> None:
    word = of(ldm, "an image of lung cyst")
    assert torch.allclose(rows(ldm, words="an image of lung cyst"), word.mean(0, keepdim=True))
    got = rows(ldm, words="an image of lung cyst", vectors=2)
    assert torch.allclose(got, torch.stack([word[:3].mean(0), word[3:].mean(0)]))


def test_a_name_that_the_tokenizer_does_not_know_begins_as_the_mean_of_all_words(ldm: LatentDiffusion) -> None:
    got = rows(ldm, "囊肿", vectors=2)
    assert torch.allclose(got[0], table(ldm).mean(0))
    assert not torch.equal(got[0], got[1])


def test_a_name_in_pieces_says_what_the_base_model_reads_in_it(ldm: LatentDiffusion) -> None:
    ids = ldm.tokenizer("hemangioma", add_special_tokens=False).input_ids
    assert len(ids) == 10  # letters: the tiny vocabulary has no more of it
    assert torch.equal(rows(ldm, "hemangioma", vectors=10), table(ldm)[ids])


def test_words_that_are_given(ldm: LatentDiffusion) -> None:
    assert check_initial_words(None, ("a",), ldm.tokenizer) == {}
    given = {"b": "lung", "a": "cyst"}
    assert list(check_initial_words(given, ("a", "b", "c"), ldm.tokenizer).items()) == [("a", "cyst"), ("b", "lung")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cyst", r"initial_words must be \{class: words\}.*got 'cyst'"),
        ({"c": "cyst"}, "initial_words for c, and the classes are a, b"),
        ({"a": " "}, "initial_words of 'a' must be a word or several, got ' '"),
        ({"a": 3}, "must be a word or several, got 3"),
        ({"a": "cyst 囊肿"}, "does not know all of 'cyst 囊肿', the initial words of 'a'; give others"),
    ],
)
def test_words_that_cannot_be(ldm: LatentDiffusion, words: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_initial_words(words, ("a", "b"), ldm.tokenizer)
