"""NVIDIA's networks of StyleGAN, version 1: which variable is which of our weights.

A file is a pickle of three networks: the generator, the discriminator, and the generator with averaged weights. A
network is a dict: the variables by name, the networks it is made of (mapping and synthesis), the options it was made
with, and its program text, which is not looked at.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.convert.restricted_pickle import Stored, StoredArray, read_pickle
from genmix_transforms.generators.stylegan.layers import EPSILON
from genmix_transforms.generators.stylegan.schedule import SMALLEST

SOURCE = "NVIDIA's StyleGAN"

LAST_VERSION = 3
"""Of a network's state in StyleGAN; StyleGAN2 has 4 and more."""

LARGEST = 8
"""Doublings of the largest network: 1024 pixels."""

FIRST_FUSED = 5
"""From 128 pixels on, doubling and convolving are one transposed convolution, unless an option says otherwise."""

_BLOCK = re.compile(r"([0-9]{1,4})x\1/(?:Conv1|Conv1_down)/weight")
_UNUSED = re.compile(r"lod|noise\d+")  # noise: the maps of one fixed picture; ours follow from an image's seed

PUBLISHED: dict[str, Any] = {
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "normalize_latents": True,
    "use_wscale": True,
    "use_styles": True,
    "use_noise": True,
    "use_instance_norm": True,
    "use_pixel_norm": False,
    "const_input_layer": True,
    "blur_filter": [1, 2, 1],
}
"""Options of the generator that change what its weights mean."""


@dataclass
class ForeignWeights:
    """What a file of somebody else's holds.

    Attributes:
        source: whose layout it was.
        network: tensors by the names of :class:`StyleGANNetwork`; without ``mean_w``, ``growth`` or the ``to_rgb`` of
            lower resolutions where the file has none.
        discriminator: tensors by the names of :class:`StyleGANDiscriminator`; None where the file has none that fits.
        norm_epsilon: of its instance norms.
        notes: what a user should know of the file.
    """

    source: str
    network: dict[str, Tensor]
    discriminator: dict[str, Tensor] | None = None
    norm_epsilon: float = EPSILON
    notes: tuple[str, ...] = ()

    @property
    def full_growth(self) -> int:
        """Doublings beyond 4 pixels."""
        return (
            sum(re.fullmatch(r"synthesis\.layers\.\d+\.style\.bias", name) is not None for name in self.network) // 2
            - 1
        )

    @property
    def levels_without_rgb(self) -> list[int]:
        """Resolutions, as doublings, at which the network cannot make an image."""
        return [level for level in range(self.full_growth) if f"synthesis.to_rgb.{level}.weight" not in self.network]


def check_tensor(tensor: Tensor, *, name: str) -> Tensor:
    """A weight as float32, in memory of its own; values that are no finite numbers are refused."""
    if not tensor.is_floating_point() or not tensor.numel():
        raise InputError(f"{name}: expected weights, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    tensor = tensor.to(torch.float32, copy=True).contiguous()
    if not torch.isfinite(tensor).all():
        raise InputError(f"{name}: holds values that are not finite")
    return tensor


def read_nvidia(path: str | Path) -> ForeignWeights:
    """Read a pickle of (G, D, Gs) or of one generator: the averaged one (Gs), and the discriminator where there is one.

    Raises:
        InputError: something else; nothing in the file was run.
    """
    path = Path(path)
    content = read_pickle(path)
    networks = list(content) if isinstance(content, (tuple, list)) else [content]
    if len(networks) not in (1, 3) or not all(isinstance(network, Stored) for network in networks):
        raise InputError(
            f"{path}: expected NVIDIA's three networks (G, D, Gs), found {_outline(content)}: not a StyleGAN"
        )
    try:
        generator = _Variables(networks[-1])
        discriminator = _Variables(networks[1]) if len(networks) == 3 else None
        # An array may be named again and again: what is copied is never more than the file holds.
        if sum(side.size for side in (generator, discriminator) if side) > path.stat().st_size:
            raise InputError("its variables are more than the file holds")
        weights = ForeignWeights(SOURCE, _network(generator))
        if discriminator is not None:
            weights.discriminator = _discriminator(discriminator)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return weights


class _Variables:
    """A network's variables by name, those of its parts included. What was asked for counts as known."""

    def __init__(self, network: Stored) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.options: dict[str, Any] = {}
        self.known: set[str] = set()
        components = network.state.get("components")
        parts = list(components.values()) if isinstance(components, dict) else []
        if len(parts) > 2 or not all(isinstance(part, Stored) for part in parts):
            raise InputError("a network of other parts than mapping and synthesis")
        for part in (network, *parts):
            self._add(part)
        if any(name.endswith("mod_weight") for name in self.arrays):
            raise InputError("a StyleGAN2 network; this release reads StyleGAN of version 1")
        self.full_growth = self._full_growth()

    def _add(self, part: Stored) -> None:
        version = part.state.get("version")
        if not isinstance(version, int) or version > LAST_VERSION:
            raise InputError(
                f"a network of format {version if isinstance(version, int) else 'unknown'}; this release reads "
                f"StyleGAN of version 1, which has format 2 or {LAST_VERSION} (StyleGAN2 has 4 and more)"
            )
        variables = part.state.get("variables")
        for item in variables if isinstance(variables, list) else ():
            match item:
                case (str(name), StoredArray(values=np.ndarray() as values)):
                    self.arrays[name] = values
                case _:
                    raise InputError("a network whose variables are not names and arrays")
        options = part.state.get("static_kwargs")
        if isinstance(options, dict):
            self.options.update(options)

    def _full_growth(self) -> int:
        sides = sorted(int(match[1]) for name in self.arrays if (match := _BLOCK.fullmatch(name)))
        if not sides or sides != [SMALLEST << level for level in range(1, len(sides) + 1)] or len(sides) > LARGEST:
            names = ", ".join(sorted(self.arrays)[:4]) or "nothing"
            raise InputError(f"expected a StyleGAN's blocks (8x8/Conv1/weight, 16x16/...), found {names[:200]}, ...")
        return len(sides)

    def check_options(self) -> None:
        """Refuse a network whose weights mean something else than the published one's."""
        for name, published in PUBLISHED.items():
            value = self.options.get(name, published)
            if not isinstance(value, (bool, int, float, str, list)) or value != published:
                said = f"={value}" if isinstance(value, (bool, int, float)) else " of another value"
                raise InputError(f"made with {name}{said}, not {published} as published")

    def fused_from(self) -> int:
        """The level from which on doubling and convolving were one transposed convolution."""
        fused = self.options.get("fused_scale", "auto")
        return {True: 1, False: LARGEST + 1}[fused] if isinstance(fused, bool) else FIRST_FUSED

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, name: str, dimensions: int) -> Tensor:
        """A variable."""
        if name not in self.arrays:
            raise InputError(f"expected a StyleGAN, found no variable {name}")
        array = self.arrays[name]
        if array.ndim != dimensions or array.dtype.kind != "f":
            raise InputError(
                f"{name}: expected weights of {dimensions} dimensions, got {array.dtype} of shape {array.shape}"
            )
        self.known.add(name)
        return check_tensor(torch.from_numpy(array.astype(np.float32)), name=name)

    def dense(self, name: str) -> Tensor:
        """``(in, out)`` as ``(out, in)``."""
        return self.take(f"{name}/weight", 2).T.contiguous()

    def kernel(self, name: str) -> Tensor:
        """``(height, width, in, out)`` as ``(out, in, height, width)``."""
        return self.take(f"{name}/weight", 4).permute(3, 2, 0, 1).contiguous()

    def bias(self, name: str) -> Tensor:
        return self.take(f"{name}/bias", 1)

    def check_all_known(self) -> None:
        """Refuse variables that nothing asked for: the network is another than we take it for."""
        rest = sorted(name for name in self.arrays if name not in self.known and not _UNUSED.fullmatch(name))
        if rest:
            raise InputError(f"holds variables that StyleGAN of version 1 does not: {', '.join(rest[:4])[:200]}")


def _network(variables: _Variables) -> dict[str, Tensor]:
    variables.check_options()
    ours: dict[str, Tensor] = {}
    full = variables.full_growth
    layers = 0
    while f"Dense{layers}/weight" in variables:
        ours[f"mapping.layers.{layers}.weight"] = variables.dense(f"Dense{layers}")
        ours[f"mapping.layers.{layers}.bias"] = variables.bias(f"Dense{layers}")
        layers += 1
    if "LabelConcat/weight" in variables:
        ours["mapping.embedding.weight"] = variables.take("LabelConcat/weight", 2)
    if "dlatent_avg" in variables:
        ours["mean_w"] = variables.take("dlatent_avg", 1)[None]
    ours["synthesis.constant"] = variables.take("4x4/Const/const", 4)
    for number in range(2 * full + 2):
        level = number // 2
        side = SMALLEST << level
        name = (("Const", "Conv") if level == 0 else ("Conv0_up", "Conv1"))[number % 2]
        theirs, layer = f"{side}x{side}/{name}", f"synthesis.layers.{number}"
        if number:
            kernel = variables.kernel(theirs)
            # TensorFlow's transposed convolution correlates with the flipped kernel.
            flipped = name == "Conv0_up" and level >= variables.fused_from()
            ours[f"{layer}.conv.weight"] = kernel.flip(2, 3) if flipped else kernel
        ours[f"{layer}.noise_strength"] = variables.take(f"{theirs}/Noise/weight", 1)
        ours[f"{layer}.bias"] = variables.bias(theirs)
        ours[f"{layer}.style.weight"] = variables.dense(f"{theirs}/StyleMod")
        ours[f"{layer}.style.bias"] = variables.bias(f"{theirs}/StyleMod")
    for level in range(full + 1):
        theirs = f"ToRGB_lod{full - level}"
        if f"{theirs}/weight" in variables or level == full:
            ours[f"synthesis.to_rgb.{level}.weight"] = variables.kernel(theirs)
            ours[f"synthesis.to_rgb.{level}.bias"] = variables.bias(theirs)
    if "lod" in variables:
        behind = float(variables.take("lod", 0))
        ours["growth"] = torch.tensor(min(max(full - behind, 1.0), float(full)))
    variables.check_all_known()
    return ours


def _discriminator(variables: _Variables) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    full = variables.full_growth
    names = {"last.conv": "4x4/Conv"}
    for level in range(full + 1):
        names[f"from_rgb.{level}"] = f"FromRGB_lod{full - level}"
    for level in range(1, full + 1):
        side = SMALLEST << level
        names[f"blocks.{level - 1}.conv"] = f"{side}x{side}/Conv0"
        names[f"blocks.{level - 1}.conv_down"] = f"{side}x{side}/Conv1_down"
    for our, theirs in names.items():
        ours[f"{our}.weight"] = variables.kernel(theirs)
        ours[f"{our}.bias"] = variables.bias(theirs)
    for our, theirs in (("last.dense", "4x4/Dense0"), ("last.score", "4x4/Dense1")):
        ours[f"{our}.weight"] = variables.dense(theirs)
        ours[f"{our}.bias"] = variables.bias(theirs)
    variables.check_all_known()
    return ours


def _outline(content: Any) -> str:
    """What a file holds, by type alone: values may be nested without end."""
    if isinstance(content, (tuple, list)):
        return (
            f"a {type(content).__name__} of {len(content)} ({', '.join(type(item).__name__ for item in content[:4])})"
        )
    return f"a {type(content).__name__}"
