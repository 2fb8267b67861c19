"""The classes' rows: which gradients reach, and what are no embeddings."""

from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.class_rows import ClassRows, check_embeddings


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
