"""Names between the original and diffusers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.generators.adm import ADMConfiguration
from genmix_transforms.generators.adm.configuration import OFFICIAL
from genmix_transforms.generators.adm.key_map import module_names, rename, split_projections
from genmix_transforms.generators.adm.network import build_network


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_weight_of_the_network_has_one_name_in_the_original(name: str) -> None:
    with torch.device("meta"):
        ours = {key.rpartition(".")[0] for key in build_network(OFFICIAL[name]).state_dict()}
    names = module_names(OFFICIAL[name])
    assert len(set(names.values())) == len(names)
    projections = {
        f"{here.removesuffix('qkv')}to_{letter}" for here in names.values() for letter in "qkv" if "qkv" in here
    }
    assert ours <= set(names.values()) | projections


def test_the_names_of_256_are_as_in_its_checkpoint() -> None:
    names = module_names(OFFICIAL["256"])
    assert {key.split(".")[1] for key in names if key.startswith("input_blocks")} == {str(n) for n in range(18)}
    assert {key.split(".")[1] for key in names if key.startswith("output_blocks")} == {str(n) for n in range(18)}
    assert names["input_blocks.10.1.qkv"] == "down_blocks.3.attentions.0.qkv"
    assert names["output_blocks.2.2.in_layers.2"] == "up_blocks.0.upsamplers.0.conv1"
    assert names["output_blocks.11.1.in_layers.2"] == "up_blocks.3.upsamplers.0.conv1"
    assert names["middle_block.1.norm"] == "mid_block.attentions.0.group_norm"


@given(st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_projections_are_taken_apart_as_attention_reads_them(heads: int, size: int, new_order: bool) -> None:
    width = heads * size
    value = torch.arange(3 * width * 2).view(3 * width, 2)
    parts = split_projections(value, heads=heads, new_order=new_order)
    for kind, part in enumerate(parts):
        for head in range(heads):
            start = kind * width + head * size if new_order else head * 3 * size + kind * size
            assert torch.equal(part[head * size : (head + 1) * size], value[start : start + size])


def test_what_has_no_name_keeps_its_own_and_everything_is_copied(tiny_flags: ADMConfiguration) -> None:
    weights = {"input_blocks.0.0.weight": torch.ones(2), "input_blocks.99.0.op.bias": torch.ones(2).half()}
    renamed = rename(weights, replace(tiny_flags, class_cond=False))
    assert set(renamed) == {"conv_in.weight", "input_blocks.99.0.op.bias"}
    assert all(value.dtype == torch.float32 for value in renamed.values())
    weights["input_blocks.0.0.weight"].zero_()
    assert renamed["conv_in.weight"].all()
