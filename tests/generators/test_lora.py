"""Adapters: nothing at first, a seeded start, and files that diffusers and we open to the same output."""

import copy
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.utils import convert_state_dict_to_diffusers
from torch import Tensor

from genmix_transforms.errors import InputError, MissingExtraError, MissingPathError
from genmix_transforms.generators.lora import (
    ADAPTERS,
    adapter_parameters,
    adapter_state,
    add_adapters,
    load_adapter_state,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
)
from tests.generators.textual_inversion.tiny_pipelines import save_stable_diffusion

peft = pytest.importorskip("peft")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Diffusers wonders aloud that there are no adapters of the text encoder."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def stable_diffusion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_diffusion(tmp_path_factory.mktemp("base") / "tiny-stable-diffusion")


@pytest.fixture(scope="module")
def opened(stable_diffusion_folder: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(stable_diffusion_folder, subfolder="unet").eval()


@pytest.fixture
def unet(opened: Any) -> Any:
    return copy.deepcopy(opened)


def outputs(unet: Any) -> Tensor:
    random = torch.Generator().manual_seed(3)
    latents, context = torch.randn(2, 4, 4, 4, generator=random), torch.randn(2, 77, 16, generator=random)
    with torch.no_grad():
        return unet(latents, torch.tensor([3, 700]), encoder_hidden_states=context, return_dict=False)[0]


def moved(unet: Any, *, rank: int = 2) -> Any:
    """With adapters, and those away from their start."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in add_adapters(unet, rank=rank, seed=1):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return unet


def test_adapters_change_nothing_at_first(unet: Any) -> None:
    before, weights = outputs(unet), {name: value.clone() for name, value in unet.state_dict().items()}
    state = torch.random.get_rng_state()
    added = add_adapters(unet, rank=2, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(outputs(unet), before)
    # Two factors for each of four projections, of self- and cross-attention.
    attentions = sum(name.endswith("to_q.weight") for name in weights)
    assert len(added) == 2 * 4 * attentions
    assert [id(parameter) for parameter in added] == [
        id(parameter) for parameter in unet.parameters() if parameter.requires_grad
    ]
    kept = {name.replace(".base_layer.", "."): value for name, value in unet.state_dict().items() if "lora" not in name}
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name]) for name in weights)


def test_only_adapters_learn(unet: Any) -> None:
    moved(unet)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    unet(latents, 5, encoder_hidden_states=torch.ones(1, 77, 16), return_dict=False)[0].square().mean().backward()
    with_gradients = [name for name, parameter in unet.named_parameters() if parameter.grad is not None]
    assert with_gradients == [name for name, _ in unet.named_parameters() if "lora" in name]


def test_adapters_start_from_the_seed(opened: Any) -> None:
    first, same, other = (
        torch.cat([value.flatten() for value in add_adapters(copy.deepcopy(opened), rank=2, seed=seed)])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_what_is_saved_is_loaded(unet: Any, opened: Any, tmp_path: Path) -> None:
    expected = outputs(moved(unet, rank=3))
    assert (expected - outputs(opened)).abs().max() > 0.1
    assert save_adapters(tmp_path / "unet_lora", unet) == tmp_path / "unet_lora" / ADAPTERS
    again = copy.deepcopy(opened)
    load_adapters(again, tmp_path / "unet_lora")
    assert torch.equal(outputs(again), expected)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert {name: value.shape for name, value in adapter_state(again).items()} == {
        name: value.shape for name, value in adapter_state(unet).items()
    }


def test_diffusers_opens_them(unet: Any, stable_diffusion_folder: Path, opened: Any, tmp_path: Path) -> None:
    expected = outputs(moved(unet))
    save_adapters(tmp_path, unet)
    pipeline = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    assert torch.equal(outputs(pipeline.unet), expected)
    alone = copy.deepcopy(opened)  # as for LDM, whose pipeline has no such method
    alone.load_lora_adapter(tmp_path, prefix="unet", weight_name=ADAPTERS, use_safetensors=True)
    assert torch.equal(outputs(alone), expected)


def test_we_open_theirs(unet: Any, opened: Any, tmp_path: Path) -> None:
    """What diffusers' example scripts for LoRA save: the factors by their older names."""
    expected = outputs(moved(unet))
    layers = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(unet, adapter_name="genmix"))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    assert any(".lora.down." in name for name in safetensors.torch.load_file(tmp_path / ADAPTERS))
    again = copy.deepcopy(opened)
    load_adapters(again, tmp_path)
    assert torch.equal(outputs(again), expected)


def test_state_goes_into_adapters_that_are_there(unet: Any, opened: Any) -> None:
    state = {name: value.clone() for name, value in adapter_state(moved(unet)).items()}
    other = copy.deepcopy(opened)
    assert adapter_state(other) == {}
    add_adapters(other, rank=2, seed=9)
    pointers = [parameter.data_ptr() for parameter in adapter_parameters(other)]
    load_adapter_state(other, state)
    assert torch.equal(outputs(other), outputs(unet))
    assert [parameter.data_ptr() for parameter in adapter_parameters(other)] == pointers
    fresh = copy.deepcopy(opened)
    load_adapter_state(fresh, state)
    assert torch.equal(outputs(fresh), outputs(unet))
    wider = copy.deepcopy(opened)
    add_adapters(wider, rank=3)
    with pytest.raises(InputError, match="other layers or another rank than the adapters that this U-Net has"):
        load_adapter_state(wider, state)


def test_adapters_come_off(unet: Any, opened: Any) -> None:
    remove_adapters(unet)  # none there: nothing happens
    moved(unet)
    remove_adapters(unet)
    assert adapter_parameters(unet) == []
    assert unet.state_dict().keys() == opened.state_dict().keys()
    assert torch.equal(outputs(unet), outputs(opened))
    add_adapters(unet, rank=1)  # and others go on


def test_merged_adapters_say_the_same_in_a_plain_network(unet: Any, opened: Any) -> None:
    expected = outputs(moved(unet))
    merge_adapters(unet)
    assert unet.state_dict().keys() == opened.state_dict().keys()
    assert torch.allclose(outputs(unet), expected, atol=1e-5)
    before = outputs(unet)
    merge_adapters(unet)  # none are left: nothing happens
    assert torch.equal(outputs(unet), before)
    add_adapters(unet, rank=1)  # and others go on


def test_a_network_that_diffusers_cannot_adapt_gets_adapters_of_any_name() -> None:
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",), block_out_channels=(32,), layers_per_block=1, norm_num_groups=32,
    )  # fmt: skip
    added = add_adapters(network, rank=2, name="default")
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert len(names) == len(added) > 0
    assert all(name.endswith((".lora_A.default.weight", ".lora_B.default.weight")) for name in names)


@pytest.mark.parametrize("rank", [0, 1.5, "2"])
def test_no_rank(unet: Any, rank: Any) -> None:
    with pytest.raises(InputError, match="lora_rank must be a whole number, at least 1"):
        add_adapters(unet, rank=rank)


def test_twice(unet: Any, tmp_path: Path) -> None:
    save_adapters(tmp_path, moved(unet))
    with pytest.raises(InputError, match="has adapters already; remove_adapters"):
        add_adapters(unet, rank=2)
    with pytest.raises(InputError, match="has adapters already; remove_adapters"):
        load_adapters(unet, tmp_path)


def test_nothing_to_save(unet: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this U-Net has no adapters to save"):
        save_adapters(tmp_path / "none", unet)
    assert not (tmp_path / "none").exists()


def test_files_that_do_not_fit(unet: Any, opened: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=f"{ADAPTERS}: no such file"):
        load_adapters(unet, tmp_path)
    good = adapter_state(moved(copy.deepcopy(opened)))
    name = next(iter(good))
    elsewhere = {key.replace("down_blocks.0", "down_blocks.7"): value for key, value in good.items()}
    for state, message in (
        ({}, "expected adapters of a U-Net alone .* found nothing"),
        ({"text_encoder.q.lora_A.weight": torch.zeros(2, 2)}, "found text_encoder.q.lora_A.weight"),
        ({"<cyst>": torch.zeros(2, 16)}, "expected adapters of a U-Net alone"),
        ({**good, name: torch.full_like(good[name], torch.nan)}, "holds NaN or infinity"),
        ({**good, name: torch.zeros(2, 5)}, r"factors of \(2, 5\) and \(8, 2\) for .*8 inputs and 8 outputs: they are"),
        (elsewhere, "change down_blocks.7.*which this U-Net does not have: they are another base model's"),
        (
            {key: value for key, value in good.items() if key != name},
            "of the two factors that change .*to_q, found B alone",
        ),
        ({name: torch.zeros(2), **{key: good[key] for key in good if key != name}}, "factors of"),
    ):
        safetensors.torch.save_file(state, tmp_path / ADAPTERS)
        with pytest.raises(InputError, match=f"{ADAPTERS}: .*({message})"):
            load_adapters(unet, tmp_path)
        assert torch.equal(outputs(unet), outputs(opened))
    (tmp_path / ADAPTERS).write_bytes(b"{")
    with pytest.raises(InputError, match=f"{ADAPTERS}: not a whole safetensors file"):
        load_adapters(unet, tmp_path)


def test_without_peft_the_error_names_the_extra(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state = adapter_state(moved(copy.deepcopy(unet)))
    monkeypatch.setitem(sys.modules, "peft", None)
    for call in (lambda: add_adapters(unet, rank=2), lambda: load_adapter_state(unet, state)):
        with pytest.raises(MissingExtraError, match=r"need peft: .* 'genmix-transforms\[lora\]'"):
            call()
