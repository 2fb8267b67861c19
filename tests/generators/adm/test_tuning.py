"""What is trained: all, attention, adapters; and that a copy for sampling is plain and says the same."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.tuning import prepare_for_tuning, trained, with_weights

TinyADM = Callable[..., ADM]


def network_of(tiny_adm: TinyADM) -> Any:
    return tiny_adm().network.eval()


def outputs(network: Any) -> torch.Tensor:
    noisy = torch.linspace(-1, 1, 2 * 256).view(2, 1, 16, 16)
    with torch.no_grad():
        return network(noisy, torch.tensor([3, 900]), class_labels=torch.tensor([0, 2]), return_dict=False)[0]


def test_all_is_all(tiny_adm: TinyADM) -> None:
    network = network_of(tiny_adm)
    prepare_for_tuning(network, "all")
    assert len(trained(network)) == len(list(network.parameters()))


def test_attention_is_attention_and_both_ends(tiny_adm: TinyADM) -> None:
    network = network_of(tiny_adm)
    prepare_for_tuning(network, "attention")
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {"conv_in.weight", "conv_out.bias", "class_embedding.weight", "conv_norm_out.weight"} <= names
    ends = {"conv_in", "conv_out", "conv_norm_out", "class_embedding"}
    assert all("attentions" in name or name.partition(".")[0] in ends for name in names)
    assert sum("to_q.weight" in name for name in names) == sum(
        "to_q.weight" in name for name, _ in network.named_parameters()
    )
    assert not any("resnets" in name for name in names)


def test_a_copy_has_the_values_given_and_leaves_the_network_alone(tiny_adm: TinyADM) -> None:
    network = network_of(tiny_adm)
    prepare_for_tuning(network, "attention")
    before = outputs(network)
    copy = with_weights(network, [torch.zeros_like(parameter) for parameter in trained(network)])
    assert copy.conv_in.weight.abs().sum() == 0
    assert torch.equal(copy.time_embedding.linear_1.weight, network.time_embedding.linear_1.weight)
    assert not trained(copy)
    assert torch.equal(outputs(network), before)


def test_adapters_change_nothing_at_first_and_are_few(tiny_adm: TinyADM) -> None:
    pytest.importorskip("peft")
    network = network_of(tiny_adm)
    before, size = outputs(network), sum(parameter.numel() for parameter in network.parameters())
    ends = sum(
        parameter.numel()
        for name in ("class_embedding", "conv_in", "conv_norm_out", "conv_out")
        for parameter in getattr(network, name).parameters()
    )
    width, attentions = 64, sum("to_q.weight" in name for name, _ in network.named_parameters())
    prepare_for_tuning(network, "lora", lora_rank=2, seed=5)
    assert torch.equal(outputs(network), before)
    # Four projections of 64 to 64 channels in each attention, each with two matrices of rank 2.
    assert sum(parameter.numel() for parameter in trained(network)) == ends + attentions * 4 * 2 * 2 * width
    assert sum(parameter.numel() for parameter in network.parameters()) > size


def test_adapters_start_from_the_seed(tiny_adm: TinyADM) -> None:
    pytest.importorskip("peft")
    networks = [network_of(tiny_adm) for _ in range(3)]
    state = torch.random.get_rng_state()
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        prepare_for_tuning(network, "lora", seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, same, other = (torch.cat([p.flatten() for p in trained(network)]) for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_merged_adapters_say_the_same_in_a_plain_network(tiny_adm: TinyADM) -> None:
    pytest.importorskip("peft")
    network = network_of(tiny_adm)
    plain = network_of(tiny_adm).state_dict()
    prepare_for_tuning(network, "lora", lora_rank=4)
    with torch.no_grad():
        for parameter in trained(network):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    copy = with_weights(network, trained(network))
    assert copy.state_dict().keys() == plain.keys()
    changed = [name for name, value in copy.state_dict().items() if not torch.equal(value, plain[name])]
    assert any("to_v.weight" in name for name in changed)
    assert not any("resnets" in name for name in changed)
    assert torch.allclose(outputs(copy), outputs(network), atol=1e-4)


def test_without_peft_the_error_names_the_extra(tiny_adm: TinyADM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"need peft: install it with pip install 'genmix-transforms\[lora\]'"):
        prepare_for_tuning(network_of(tiny_adm), "lora")


def test_an_unknown_way_is_refused(tiny_adm: TinyADM) -> None:
    with pytest.raises(InputError, match="tune must be one of all, attention, lora, got 'heads'"):
        prepare_for_tuning(network_of(tiny_adm), "heads")
