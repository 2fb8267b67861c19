"""The network: the published sizes, what plain diffusers can open and what it refuses, and how it begins."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from genmix_transforms.generators.adm import ADMConfiguration, ADMUNet
from genmix_transforms.generators.adm.configuration import OFFICIAL
from genmix_transforms.generators.adm.network import build_network, initialise


@pytest.mark.parametrize(
    ("name", "millions"), [("64", 295.90), ("128", 421.53), ("256", 553.84), ("256-uncond", 552.81), ("512", 559.00)]
)
def test_parameter_counts_are_the_published_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_network(OFFICIAL[name])
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def variants(flags: ADMConfiguration) -> dict[str, ADMConfiguration]:
    return {
        "plain": flags,
        "four heads": replace(flags, num_head_channels=-1),
        "wider time embedding": replace(flags, num_channels=64, channel_mult=(0.5, 1)),
    }


@pytest.mark.parametrize("name", ["plain", "four heads", "wider time embedding"])
@torch.no_grad()
def test_a_saved_network_is_the_same_network(
    name: str, tiny_flags: ADMConfiguration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build_network(variants(tiny_flags)[name]).eval()
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path)
    assert not caplog.records  # no attribute of its config is unknown to it
    images, times, labels = torch.randn(2, 1, 16, 16), torch.tensor([3, 900]), torch.tensor([0, 2])
    expected = network(images, times, class_labels=labels).sample
    assert torch.equal(again(images, times, class_labels=labels).sample, expected)
    if name == "plain":
        assert type(network) is UNet2DModel
    else:
        assert type(network) is ADMUNet
        with pytest.raises(ValueError, match="ADMResnetDownsampleBlock2D does not exist"):
            UNet2DModel.from_pretrained(tmp_path)  # refuses, instead of drawing other images


def test_heads_are_those_asked_for(tiny_flags: ADMConfiguration) -> None:
    attentions = [
        module
        for module in build_network(replace(tiny_flags, num_head_channels=-1, num_heads=2)).modules()
        if hasattr(module, "heads")
    ]
    assert attentions
    assert {module.heads for module in attentions} == {2}
    assert {module.scale for module in attentions} == {32**-0.5}


def test_a_fresh_network_predicts_zero_and_follows_from_its_seed(tiny_flags: ADMConfiguration) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    states = []
    for seed in (3, 3, 4):
        with torch.random.fork_rng(devices=[]):
            network = build_network(tiny_flags)
        initialise(network, seed=seed)
        states.append(network.state_dict())
    assert torch.equal(torch.rand(2), expected)  # the global random numbers are left alone
    assert torch.equal(states[0]["conv_in.weight"], states[1]["conv_in.weight"])
    assert not torch.equal(states[0]["conv_in.weight"], states[2]["conv_in.weight"])
    with torch.no_grad():
        assert not network(torch.randn(1, 1, 16, 16), 3, class_labels=torch.tensor([0])).sample.any()
    assert not states[0]["mid_block.attentions.0.to_out.0.weight"].any()
    assert not states[0]["down_blocks.0.resnets.0.conv2.weight"].any()
    assert states[0]["down_blocks.0.resnets.0.conv1.weight"].any()
