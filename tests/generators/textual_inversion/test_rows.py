"""The learned vectors: what they begin as, whose gradients reach them, and how the text encoder reads them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.rows import (
    NOISE,
    ClassRows,
    LearnedRows,
    check_embeddings,
    check_initial_words,
    initial_rows,
    token_ids,
)


def test_ids_of_the_vocabulary_read_the_table_and_those_above_it_the_rows() -> None:
    table, rows = nn.Embedding(8, 4), torch.randn(2, 4)  # two spare rows behind a vocabulary of six
    learned = LearnedRows(table, first=6)
    ids = torch.tensor([[0, 5, 6], [7, 6, 1]])
    assert torch.equal(learned(ids), table(ids))  # nothing learned: the table as it is
    learned.rows = rows
    expected = torch.cat([table.weight[:6], rows])[ids]
    assert torch.equal(learned(ids), expected)


def test_gradients_reach_the_rows_that_are_asked_for() -> None:
    table = nn.Embedding(6, 4).requires_grad_(False)
    learned = LearnedRows(table, first=6)
    learned.rows = rows = torch.randn(3, 4, requires_grad=True)
    learned(torch.tensor([[0, 6, 8, 8]])).sum().backward()
    assert rows.grad is not None
    assert rows.grad.sum(1).tolist() == [4, 0, 8]
    assert table.weight.grad is None


def test_the_rows_take_the_tables_precision() -> None:
    learned = LearnedRows(nn.Embedding(6, 4, dtype=torch.bfloat16), first=6)
    learned.rows = torch.randn(1, 4)
    assert learned(torch.tensor([[1, 6]])).dtype == torch.bfloat16


def test_rows_one_below_the_other() -> None:
    given = [torch.randn(2, 4), torch.randn(1, 4), torch.randn(3, 4)]
    rows = ClassRows(given)
    assert torch.equal(rows(), torch.cat(given))
    given[0].zero_()
    assert rows()[0].abs().sum() > 0  # copies
    assert all(torch.equal(value, parameter) for value, parameter in zip(rows.values(), rows.parameters(), strict=True))


def test_absent_classes_have_no_gradient_and_present_ones_always_have() -> None:
    rows = ClassRows([torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4)])
    rows([True, False, True])[:2].sum().backward()  # uses those of the first class alone
    first, second, third = (parameter.grad for parameter in rows.parameters())
    assert torch.equal(first, torch.ones(2, 4))
    assert second is None
    assert torch.equal(third, torch.zeros(2, 4))  # another process has images of it: there is something to average


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({"a": torch.zeros(1, 4)}, "for the classes a, b; got them for a"),
        ({"a": torch.zeros(1, 4), "b": torch.zeros(1, 5)}, r"'b' are of shape \(1, 5\); the base model tiny .*width 4"),
        ({"a": torch.zeros(4), "b": torch.zeros(1, 4)}, r"of shape \(4,\)"),
        ({"a": torch.zeros(0, 4), "b": torch.zeros(1, 4)}, r"of shape \(0, 4\)"),
        ({"a": [1.0], "b": torch.zeros(1, 4)}, "'a' are a list"),
        ({"a": torch.zeros(1, 4), "b": torch.full((1, 4), torch.nan)}, "'b' hold NaN or infinity"),
    ],
)  # fmt: skip
def test_what_are_no_embeddings(embeddings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_embeddings(embeddings, ("a", "b"), width=4, base="tiny")


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
        ({"c": "cyst"}, "initial_words for c, and the classes are a, b"),
        ({"a": " "}, "initial_words of 'a' must be a word or several, got ' '"),
        ({"a": "cyst 囊肿"}, "does not know all of 'cyst 囊肿', the initial words of 'a'; give others"),
    ],
)
def test_words_that_cannot_be(ldm: LatentDiffusion, words: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_initial_words(words, ("a", "b"), ldm.tokenizer)
