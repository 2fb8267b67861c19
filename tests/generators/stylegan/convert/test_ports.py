"""PyTorch ports: the images are those of a forward pass written out as the port does it."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.convert.ports import HUANGZH13, LERNAPPARAT, ROSINALITY, read_port
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings

State = dict[str, Tensor]
BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
WIDTHS = (8, 8, 8, 8, 4, 2, 1, 1, 1)
LATENT = 8


def rosinality(*, trained: int = 8, levels: int = 9) -> State:
    """A state dict of rosinality's layout: blocks up to 1024 pixels, of which those up to ``trained`` are trained."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    state: State = {}
    for number in (1, 3):
        state[f"style.{number}.linear.weight_orig"] = draw(LATENT, LATENT)
        state[f"style.{number}.linear.bias"] = draw(LATENT) * 0.3
    for level in range(levels):
        width, before, block = WIDTHS[level], WIDTHS[max(level - 1, 0)], f"generator.progression.{level}"
        rate = 0.3 if level <= trained else 0.0
        if level == 0:
            state[f"{block}.conv1.input"] = draw(1, width, 4, 4)
        elif level >= 5:
            state[f"{block}.conv1.0.weight"] = draw(before, width, 3, 3)
            state[f"{block}.conv1.0.bias"] = draw(width) * rate
            state[f"{block}.conv1.1.weight"] = BLUR.expand(width, 1, 3, 3).clone()
        else:
            state[f"{block}.conv1.1.conv.weight_orig"] = draw(width, before, 3, 3)
            state[f"{block}.conv1.1.conv.bias"] = draw(width) * rate
            state[f"{block}.conv1.2.weight"] = BLUR.expand(width, 1, 3, 3).clone()
        state[f"{block}.conv2.conv.weight_orig"] = draw(width, width, 3, 3)
        state[f"{block}.conv2.conv.bias"] = draw(width) * rate
        for half in (1, 2):
            state[f"{block}.noise{half}.weight_orig"] = draw(1, width, 1, 1) * rate
            state[f"{block}.adain{half}.style.linear.weight_orig"] = draw(2 * width, LATENT)
            state[f"{block}.adain{half}.style.linear.bias"] = torch.cat([torch.ones(width), torch.zeros(width)])
        state[f"generator.to_rgb.{level}.conv.weight_orig"] = draw(3, width, 1, 1)
        state[f"generator.to_rgb.{level}.conv.bias"] = draw(3) * rate
    return state


def rosinality_images(state: State, latents: Tensor, noise: list[Tensor], *, step: int) -> Tensor:
    """Both layers of a block have the same noise there."""

    def scaled(name: str) -> Tensor:
        weight = state[name]
        return weight * math.sqrt(2 / (weight.shape[1] * weight[0][0].numel()))

    w = latents / (latents.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for number in (1, 3):
        name = f"style.{number}.linear"
        w = F.leaky_relu(F.linear(w, scaled(f"{name}.weight_orig"), state[f"{name}.bias"]), 0.2)

    def finish(values: Tensor, block: str, half: int, level: int) -> Tensor:
        values = F.leaky_relu(values + scaled(f"{block}.noise{half}.weight_orig") * noise[level], 0.2)
        name = f"{block}.adain{half}.style.linear"
        gamma, beta = F.linear(w, scaled(f"{name}.weight_orig"), state[f"{name}.bias"])[:, :, None, None].chunk(2, 1)
        return gamma * F.instance_norm(values) + beta

    values = torch.empty(0)
    for level in range(step + 1):
        block = f"generator.progression.{level}"
        if level == 0:
            values = state[f"{block}.conv1.input"].expand(len(latents), -1, -1, -1)
        else:
            if level >= 5:
                weight = state[f"{block}.conv1.0.weight"]
                weight = F.pad(weight * math.sqrt(2 / (weight.shape[0] * 9)), (1, 1, 1, 1))
                weight = sum(weight[..., y : y + 4, x : x + 4] for y in (0, 1) for x in (0, 1)) / 4
                values = F.conv_transpose2d(values, weight, state[f"{block}.conv1.0.bias"], stride=2, padding=1)
            else:
                name = f"{block}.conv1.1.conv"
                values = F.interpolate(values, scale_factor=2, mode="nearest")
                values = F.conv2d(values, scaled(f"{name}.weight_orig"), state[f"{name}.bias"], padding=1)
            values = F.conv2d(values, BLUR.expand(values.shape[1], 1, 3, 3), padding=1, groups=values.shape[1])
        values = finish(values, block, 1, level)
        name = f"{block}.conv2.conv"
        values = F.conv2d(values, scaled(f"{name}.weight_orig"), state[f"{name}.bias"], padding=1)
        values = finish(values, block, 2, level)
    name = f"generator.to_rgb.{step}.conv"
    return F.conv2d(values, scaled(f"{name}.weight_orig"), state[f"{name}.bias"])


def from_nvidia(arrays: dict[str, dict[str, np.ndarray]], *, plain: bool = False) -> State:
    """NVIDIA's arrays in huangzh13's layout, or with ``plain`` in lernapparat's: scales and flips are the same."""
    mapping, synthesis = arrays["mapping"], arrays["synthesis"]
    state: State = {}

    def put(name: str, array: np.ndarray) -> None:
        order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim, (0,))
        state[name] = torch.from_numpy(array).permute(order).contiguous()

    for name, array in mapping.items():
        if name == "LabelConcat/weight":
            state["class_embedding.weight"] = torch.from_numpy(array)
        else:
            put(f"g_mapping.{'' if plain else 'map.'}{name.replace('Dense', 'dense').replace('/', '.')}", array)
    full = max(int(name[9:].split("/")[0]) for name in synthesis if name.startswith("ToRGB_lod"))
    for level in range(full + 1):
        side = 4 << level
        if plain:
            block = f"g_synthesis.blocks.{side}x{side}"
        else:
            block = f"g_synthesis.blocks.{level - 1}" if level else "g_synthesis.init_block"
        for half, name in enumerate(("Conv0_up", "Conv1") if level else ("Const", "Conv")):
            theirs, conv = f"{side}x{side}/{name}", f"{block}.{name.lower()}"
            if name == "Const":
                state[f"{block}.const"] = torch.from_numpy(synthesis[f"{theirs}/const"])
                put(f"{block}.bias", synthesis[f"{theirs}/bias"])
            else:
                put(f"{conv}.weight", synthesis[f"{theirs}/weight"])
                put(f"{conv}.bias", synthesis[f"{theirs}/bias"])
            if name == "Conv0_up":
                state[f"{conv}.intermediate.kernel"] = BLUR[None, None]
            put(f"{block}.epi{half + 1}.top_epi.noise.weight", synthesis[f"{theirs}/Noise/weight"])
            put(f"{block}.epi{half + 1}.style_mod.lin.weight", synthesis[f"{theirs}/StyleMod/weight"])
            put(f"{block}.epi{half + 1}.style_mod.lin.bias", synthesis[f"{theirs}/StyleMod/bias"])
        if not plain or level == full:
            to_rgb = "g_synthesis.torgb" if plain else f"g_synthesis.to_rgb.{level}"
            put(f"{to_rgb}.weight", synthesis[f"ToRGB_lod{full - level}/weight"])
            put(f"{to_rgb}.bias", synthesis[f"ToRGB_lod{full - level}/bias"])
    if not plain:
        state["truncation.avg_latent"] = torch.from_numpy(arrays["own"]["dlatent_avg"])
    return state


def network_of(weights: Any, *, fmap_base: int, fmap_max: int, classes: int = 1) -> StyleGANNetwork:
    settings = StyleGANNetworkSettings(
        latent_size=LATENT,
        mapping_layers=2,
        fmap_base=fmap_base,
        fmap_max=fmap_max,
        conditioning="concatenate",
        blurred_bias="synthesis.layers.2.conv.bias" in weights.network,
        norm_epsilon=weights.norm_epsilon,
    )
    network = StyleGANNetwork(settings, resolution=4 << weights.full_growth, channels=3, classes=classes)
    ours = {name: tensor for name, tensor in weights.network.items() if name != "mean_w"}
    network.load_state_dict({**network.state_dict(), **ours})
    return network


def read(state: dict[str, Tensor]) -> Any:
    return read_port(state, size=10**9)


@pytest.mark.parametrize("step", [3, 5, 6])
def test_rosinality_draws_the_same(step: int) -> None:
    torch.manual_seed(0)
    state = rosinality(trained=step)
    weights = read(state)
    assert (weights.source, weights.full_growth, weights.discriminator) == (ROSINALITY, step, None)
    assert weights.notes == (f"trained up to {4 << step} pixels; the blocks above were never used, and are left out",)
    latents = torch.randn(2, LATENT)
    noise = [torch.randn(2, 1, 4 << level, 4 << level) for level in range(step + 1)]
    with torch.no_grad():
        expected = rosinality_images(state, latents, noise, step=step)
        network = network_of(weights, fmap_base=128, fmap_max=8)
        twice = [each for each in noise for _ in (0, 1)]
        assert torch.allclose(network(latents, torch.zeros(2, dtype=torch.int64), noise=twice), expected, atol=1e-4)


def test_rosinality_trained_to_the_top_or_not_at_all() -> None:
    for trained in (8, -1):
        weights = read(rosinality(trained=trained))
        assert weights.full_growth == 8
        assert weights.notes == ()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("resolution", [32, 128])
def test_ports_of_nvidias_scale_draw_the_same(resolution: int, plain: bool, nvidia: SimpleNamespace) -> None:
    torch.manual_seed(0)
    arrays = nvidia.generator_arrays(resolution=resolution)
    weights = read(from_nvidia(arrays, plain=plain))
    assert weights.source == (LERNAPPARAT if plain else HUANGZH13)
    assert weights.levels_without_rgb == (list(range(weights.full_growth)) if plain else [])
    network = network_of(weights, fmap_base=64, fmap_max=12)
    latents = torch.randn(2, LATENT)
    noise = [torch.randn(2, 1, side, side) for side in network.noise_sides()]
    with torch.no_grad():
        expected = nvidia.draw_images(arrays, latents, noise, epsilon=1e-5)
        assert torch.allclose(network(latents, torch.zeros(2, dtype=torch.int64), noise=noise), expected, atol=1e-4)


def test_classes(nvidia: SimpleNamespace) -> None:
    arrays = nvidia.generator_arrays(labels=3)
    network = network_of(read(from_nvidia(arrays)), fmap_base=64, fmap_max=12, classes=3)
    latents, labels = torch.randn(3, LATENT), torch.tensor([1, 2, 0])
    noise = [torch.randn(3, 1, side, side) for side in network.noise_sides()]
    with torch.no_grad():
        expected = nvidia.draw_images(arrays, latents, noise, labels=labels, epsilon=1e-5)
        assert torch.allclose(network(latents, labels, noise=noise), expected, atol=1e-4)


def test_the_average_is_preferred(nvidia: SimpleNamespace) -> None:
    average, other = rosinality(levels=3), {name: value + 1 for name, value in rosinality(levels=3).items()}
    both = {f"generator.{k}": v for k, v in other.items()} | {f"g_running.{k}": v for k, v in average.items()}
    constant = average["generator.progression.0.conv1.input"]
    assert torch.equal(read(both).network["synthesis.constant"], constant)
    with pytest.raises(InputError, match=r"several generators \(a\., b\.\)"):
        read({f"{prefix}.{k}": v for prefix in "ab" for k, v in average.items()})


def test_something_else(nvidia: SimpleNamespace) -> None:
    state = from_nvidia(nvidia.generator_arrays())

    def refused(tensors: State, message: str, size: int = 10**9) -> None:
        with pytest.raises(InputError, match=message):
            read_port(tensors, size=size)

    one = torch.zeros(1)
    refused({}, "expected a StyleGAN's generator .* found no tensor")
    refused({"main.0.weight": one}, r"expected a StyleGAN's generator .* found main\.0\.weight")
    refused({"g_ema.conv1.conv.modulation.weight": one}, "a StyleGAN2 or StyleGAN3 network")
    refused({"synthesis.b4.conv1.affine.weight": one}, "a StyleGAN2 or StyleGAN3 network")
    refused({"from_rgb.0.weight": one}, "a discriminator; give the file of the generator")
    kernel = "g_synthesis.blocks.0.conv0_up.intermediate.kernel"
    refused({**state, kernel: torch.ones(1, 1, 3, 3)}, "made without the published blur")
    refused({name: value for name, value in state.items() if name != kernel}, "made without the published blur")
    bias = "g_synthesis.init_block.bias"
    refused({name: value for name, value in state.items() if name != bias}, f"found no tensor {bias}")
    refused({**state, bias: torch.zeros(2, 2)}, r"bias: expected 1 dimensions, got the shape \(2, 2\)")
    refused({**state, bias: torch.zeros(12, dtype=torch.int64)}, "bias: expected weights")
    refused({**state, bias: torch.zeros(12).to_sparse()}, "bias: expected a plain tensor")
    refused({**state, bias: torch.zeros(12, device="meta")}, "bias: expected a plain tensor")
    refused({**state, bias: torch.zeros(1).expand(10**12)}, "its tensors are larger than the file")
