"""State dicts of the common PyTorch ports of StyleGAN: which tensor is which of our weights.

- *rosinality/style-based-gan-pytorch* (``generator.progression.0.conv1.input``, ...). It multiplies all weights by
  He's gain, trains the mapping network at full scale, adds the bias before the blur, and always has blocks up to 1024
  pixels, trained or not. Its discriminator has other widths than the published one, and stays behind.
- *huangzh13/StyleGAN.pytorch* (``g_synthesis.init_block.const``, ...) and *lernapparat*
  (``g_synthesis.blocks.4x4.const``, ...), whose weights are scaled as NVIDIA's, the flipped kernels from 128 pixels on
  included. Discriminators are files of their own there, and stay behind.
"""

import math
import re
from collections.abc import Iterable, Mapping
from itertools import takewhile

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.convert.nvidia import FIRST_FUSED, LARGEST, ForeignWeights, check_tensor
from genmix_transforms.generators.stylegan.layers import HE_GAIN
from genmix_transforms.generators.stylegan.network import LR_MULTIPLIER
from genmix_transforms.generators.stylegan.schedule import SMALLEST, resolution_at

ROSINALITY = "rosinality/style-based-gan-pytorch"
HUANGZH13 = "huangzh13/StyleGAN.pytorch"
LERNAPPARAT = "lernapparat"

_FIRST = {
    ROSINALITY: "generator.progression.0.conv1.input",
    HUANGZH13: "g_synthesis.init_block.const",
    LERNAPPARAT: "g_synthesis.blocks.4x4.const",
}
"""A tensor that only this port has."""

NORM_EPSILON = 1e-5
"""Of PyTorch's own instance norm, which the ports use."""

BLUR = ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16))

AVERAGES = ("g_running", "g_ema", "shadow", "gen_shadow", "average")
"""What the averaged weights are called in a file that has the others too."""


def read_port(tensors: Mapping[str, Tensor], *, size: int) -> ForeignWeights:
    """Recognize a port by its names, and bring its generator under ours.

    The tensors are those of a file of ``size`` bytes, by their names from the outermost dict on, joined by dots.

    Raises:
        InputError: no port's generator, or several.
    """
    found = [
        (source, name.removesuffix(first))
        for source, first in _FIRST.items()
        for name in tensors
        if name == first or name.endswith(f".{first}")
    ]
    averaged = [item for item in found if any(word in item[1].lower().split(".") for word in AVERAGES)]
    found = averaged or found
    if len(found) != 1:
        raise InputError(_what_else(tensors) if not found else f"several generators ({', '.join(p for _, p in found)})")
    source, prefix = found[0]
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    state = _State(own, size=size)
    return _rosinality(state) if source == ROSINALITY else _nvidias_scale(state, source)


def _what_else(tensors: Mapping[str, Tensor]) -> str:
    names = list(tensors)
    if any("modulation." in name or ".affine." in name or "mod_weight" in name for name in names):
        return "a StyleGAN2 or StyleGAN3 network; this release reads StyleGAN of version 1"
    if any("from_rgb." in name for name in names):
        return "a discriminator; give the file of the generator"
    some = ", ".join(names[:4])[:200]
    return f"expected a StyleGAN's generator ({'; '.join(_FIRST.values())}), found {some or 'no tensor'}, ..."


class _State:
    """A state dict whose tensors are checked as they are taken."""

    def __init__(self, tensors: Mapping[str, Tensor], *, size: int) -> None:
        self.tensors = tensors
        self.left = size

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str, dimensions: int) -> Tensor:
        if name not in self.tensors:
            raise InputError(f"expected a StyleGAN's generator, found no tensor {name}")
        tensor = self.tensors[name]
        if tensor.ndim != dimensions:
            raise InputError(f"{name}: expected {dimensions} dimensions, got the shape {tuple(tensor.shape)}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise InputError(f"{name}: expected a plain tensor, got {tensor.layout} on {tensor.device}")
        # A view may show a few numbers as many: what is copied is never more than the file holds.
        self.left -= tensor.numel() * tensor.element_size()
        if self.left < 0:
            raise InputError("its tensors are larger than the file")
        return check_tensor(tensor, name=name)

    def first_missing(self, pattern: str, numbers: Iterable[int]) -> int:
        """How many names are there, one after the other, ``#`` being these numbers."""
        return sum(1 for _ in takewhile(lambda number: pattern.replace("#", str(number)) in self, numbers))


def _rosinality(theirs: _State) -> ForeignWeights:
    ours: dict[str, Tensor] = {}
    # Every second module is a leaky ReLU, and the first the pixel norm.
    for number in range(theirs.first_missing("style.#.linear.weight_orig", range(1, 100, 2))):
        name = f"style.{2 * number + 1}.linear"
        ours[f"mapping.layers.{number}.weight"] = theirs.take(f"{name}.weight_orig", 2) / LR_MULTIPLIER
        ours[f"mapping.layers.{number}.bias"] = theirs.take(f"{name}.bias", 1) / LR_MULTIPLIER
    full = theirs.first_missing("generator.to_rgb.#.conv.bias", range(LARGEST + 1)) - 1
    trained = 0
    for level in range(full + 1):
        block = f"generator.progression.{level}"
        for half in (0, 1):
            layer = f"synthesis.layers.{2 * level + half}"
            if level == half == 0:
                ours["synthesis.constant"] = theirs.take(f"{block}.conv1.input", 4)
                ours[f"{layer}.bias"] = torch.zeros(ours["synthesis.constant"].shape[1])
            elif half:
                ours[f"{layer}.conv.weight"] = theirs.take(f"{block}.conv2.conv.weight_orig", 4)
                ours[f"{layer}.bias"] = theirs.take(f"{block}.conv2.conv.bias", 1)
            else:
                weight, bias = _rosinality_up(theirs, f"{block}.conv1")
                ours[f"{layer}.conv.weight"], ours[f"{layer}.conv.bias"] = weight, bias
                ours[f"{layer}.bias"] = torch.zeros_like(bias)
            strength = theirs.take(f"{block}.noise{half + 1}.weight_orig", 4).flatten()
            ours[f"{layer}.noise_strength"] = strength * HE_GAIN / math.sqrt(max(1, len(strength)))
            style = f"{block}.adain{half + 1}.style.linear"
            ours[f"{layer}.style.weight"] = theirs.take(f"{style}.weight_orig", 2) * HE_GAIN
            shift = theirs.take(f"{style}.bias", 1)
            shift[: len(shift) // 2] -= 1  # its scale is all of the scale, ours what is more than 1
            ours[f"{layer}.style.bias"] = shift
            if strength.any():  # zero until it is trained
                trained = level
        to_rgb = f"generator.to_rgb.{level}.conv"
        ours[f"synthesis.to_rgb.{level}.weight"] = theirs.take(f"{to_rgb}.weight_orig", 4) * HE_GAIN
        ours[f"synthesis.to_rgb.{level}.bias"] = theirs.take(f"{to_rgb}.bias", 1)
    notes: tuple[str, ...] = ()
    if 0 < trained < full:
        notes = (f"trained up to {resolution_at(trained)} pixels; the blocks above were never used, and are left out",)
        ours = {name: tensor for name, tensor in ours.items() if _level_of(name) <= trained}
    return ForeignWeights(ROSINALITY, ours, norm_epsilon=NORM_EPSILON, notes=notes)


def _rosinality_up(theirs: _State, name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a doubling layer."""
    if f"{name}.0.weight" in theirs:
        # Fused: the kernel is flipped, as a transposed convolution's is, and a fourth of what it should be.
        weight = theirs.take(f"{name}.0.weight", 4).transpose(0, 1).flip(2, 3) / 4
        return weight.contiguous(), theirs.take(f"{name}.0.bias", 1)
    return theirs.take(f"{name}.1.conv.weight_orig", 4), theirs.take(f"{name}.1.conv.bias", 1)


def _level_of(name: str) -> int:
    if match := re.match(r"synthesis\.layers\.(\d+)\.", name):
        return int(match[1]) // 2
    return int(match[1]) if (match := re.match(r"synthesis\.to_rgb\.(\d+)\.", name)) else 0


def _nvidias_scale(theirs: _State, source: str) -> ForeignWeights:
    ours: dict[str, Tensor] = {}
    plain = source == LERNAPPARAT
    mapping = "g_mapping.dense#" if plain else "g_mapping.map.dense#"
    for number in range(theirs.first_missing(f"{mapping}.weight", range(100))):
        name = mapping.replace("#", str(number))
        ours[f"mapping.layers.{number}.weight"] = theirs.take(f"{name}.weight", 2)
        ours[f"mapping.layers.{number}.bias"] = theirs.take(f"{name}.bias", 1)
    if "class_embedding.weight" in theirs:
        ours["mapping.embedding.weight"] = theirs.take("class_embedding.weight", 2)
    for name in ("truncation.avg_latent", "g_mapping.truncation.avg_latent"):
        if name in theirs:
            ours["mean_w"] = theirs.take(name, 1)[None]
    first = "g_synthesis.blocks.4x4" if plain else "g_synthesis.init_block"
    blocks = [f"g_synthesis.blocks.{SMALLEST << level}x{SMALLEST << level}" for level in range(1, LARGEST + 1)]
    blocks = [first, *(blocks if plain else [f"g_synthesis.blocks.{number}" for number in range(LARGEST)])]
    blocks = list(takewhile(lambda block: f"{block}.conv1.weight" in theirs or block == first, blocks))
    ours["synthesis.constant"] = theirs.take(f"{first}.const", 4)
    for level, block in enumerate(blocks):
        for half, conv in enumerate(("conv0_up", "conv1") if level else ("", "conv")):
            layer = f"synthesis.layers.{2 * level + half}"
            if conv:
                weight = theirs.take(f"{block}.{conv}.weight", 4)
                fused = conv == "conv0_up" and level >= FIRST_FUSED
                ours[f"{layer}.conv.weight"] = weight.flip(2, 3) if fused else weight
                if conv == "conv0_up":
                    _check_blur(theirs, f"{block}.conv0_up.intermediate.kernel")
            ours[f"{layer}.bias"] = theirs.take(f"{block}.{conv}.bias" if conv else f"{block}.bias", 1)
            epilogue = f"{block}.epi{half + 1}"
            ours[f"{layer}.noise_strength"] = theirs.take(f"{epilogue}.top_epi.noise.weight", 1)
            ours[f"{layer}.style.weight"] = theirs.take(f"{epilogue}.style_mod.lin.weight", 2)
            ours[f"{layer}.style.bias"] = theirs.take(f"{epilogue}.style_mod.lin.bias", 1)
        to_rgb = f"g_synthesis.to_rgb.{level}"
        if plain:
            if level < len(blocks) - 1:
                continue  # it has only the last
            to_rgb = "g_synthesis.torgb"
        ours[f"synthesis.to_rgb.{level}.weight"] = theirs.take(f"{to_rgb}.weight", 4)
        ours[f"synthesis.to_rgb.{level}.bias"] = theirs.take(f"{to_rgb}.bias", 1)
    return ForeignWeights(source, ours, norm_epsilon=NORM_EPSILON)


def _check_blur(theirs: _State, name: str) -> None:
    """Refuse a network whose doubling layers do not blur: there it was an option, of which the kernel tells."""
    if name not in theirs or theirs.take(name, 4).squeeze().tolist() != [list(row) for row in BLUR]:
        raise InputError(f"made without the published blur ({name})")
