"""Class rows as all that is trained: what they say, what stays, and what is left when they are taken out."""

from collections.abc import Callable

import torch
from torch import nn

from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.class_rows import ClassRows, put_in_rows, take_out_rows

TinyADM = Callable[..., ADM]

LABELS = torch.tensor([2, 0, 3, 1])


def test_they_say_what_the_embedding_said() -> None:
    embedding = nn.Embedding(4, 5)
    rows = ClassRows(embedding, classes=3)
    assert torch.equal(rows(LABELS), embedding(LABELS))
    assert [(name, tuple(value.shape)) for name, value in rows.state_dict().items()] == [("rows", (3, 5))]
    plain = rows.plain()
    assert torch.equal(plain.weight, embedding.weight)
    with torch.no_grad():
        rows.rows.add_(1)
    assert torch.equal(plain.weight, embedding.weight)  # copies, here and there


def test_the_rows_of_the_classes_have_the_only_gradient() -> None:
    rows = ClassRows(nn.Embedding(4, 5), classes=3)
    rows(LABELS).sum().backward()
    assert torch.equal(rows.rows.grad, torch.ones(3, 5))


def test_a_network_without_them_is_the_plain_network_again(tiny_adm: TinyADM) -> None:
    network = tiny_adm().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    put_in_rows(network, classes=3)
    assert [name for name, value in network.named_parameters() if value.requires_grad] == ["class_embedding.rows"]
    for _ in range(2):
        take_out_rows(network)
        assert network.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
