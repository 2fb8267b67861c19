"""Rows of a table by label, and mixtures of them."""

import pytest
import torch
from torch import nn

from genmix_transforms.generators.class_embedding import ClassEmbedding, look_up


def test_a_soft_label_is_the_mixture_of_the_rows() -> None:
    table = torch.randn(5, 7, 3)
    weights = torch.rand(11, 5).softmax(dim=1)
    assert torch.allclose(look_up(table, weights), torch.einsum("nk,kab->nab", weights, table), atol=1e-6)
    order = torch.randperm(11)
    assert torch.equal(look_up(table, weights[order]), look_up(table, weights)[order])  # wherever in the batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_weight_on_one_row_is_that_row(dtype: torch.dtype) -> None:
    table = torch.randn(4, 6).to(dtype)
    labels = torch.tensor([3, 0, 0, 2])
    found = look_up(table, nn.functional.one_hot(labels, 4).float())
    assert found.dtype == dtype
    assert torch.equal(found, table[labels])
    assert torch.equal(found, look_up(table, labels))


def test_autocast_rounds_nothing() -> None:
    table, weights = torch.randn(3, 8), torch.tensor([[0.2, 0.3, 0.5]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = look_up(table, weights)
    assert torch.equal(inside, look_up(table, weights))


def test_fewer_weights_than_rows_are_those_of_the_first() -> None:
    table = torch.randn(4, 6)
    assert torch.equal(look_up(table, torch.tensor([[0.5, 0.5]])), table[:2].mean(0, keepdim=True))


def test_it_is_an_embedding_with_the_weights_of_another() -> None:
    plain = nn.Embedding(3, 4)
    made = ClassEmbedding.of(plain)
    assert made.weight is plain.weight
    assert isinstance(made, nn.Embedding)
    assert list(made.state_dict()) == list(plain.state_dict())
    labels = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(made(labels), plain(labels))
    made(torch.tensor([[0.25, 0.75, 0.0]])).sum().backward()
    assert plain.weight.grad is not None
    assert torch.equal(plain.weight.grad[:, 0], torch.tensor([0.25, 0.75, 0.0]))
