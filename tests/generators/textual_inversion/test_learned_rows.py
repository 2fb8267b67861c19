"""The table of word vectors with learned rows behind it."""

import torch
from torch import nn

from genmix_transforms.generators.textual_inversion.learned_rows import LearnedRows


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
