"""Files of NVIDIA's layout with random weights, and what their networks draw, computed as TensorFlow would."""

import io
import math
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

Arrays = dict[str, np.ndarray]


class Network:
    """Stands in for the class of that name while a file is written."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class EasyDict(dict):  # type: ignore[type-arg]
    """Likewise."""


Network.__module__ = "dnnlib.tflib.network"
EasyDict.__module__ = "dnnlib.util"


@pytest.fixture
def dnnlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the names that NVIDIA's pickles import, for Python's own pickler."""
    for name, content in (
        ("dnnlib", {}),
        ("dnnlib.util", {"EasyDict": EasyDict}),
        ("dnnlib.tflib", {}),
        ("dnnlib.tflib.network", {"Network": Network}),
    ):
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)


def network_state(variables: Arrays, *, components: Any = None, version: int = 3, **options: Any) -> Network:
    return Network(
        {
            "version": version,
            "name": "G",
            "static_kwargs": EasyDict(options),
            "components": EasyDict(components or {}),
            "build_module_src": "import os\nos.environ['GENMIX_TEST_RAN'] = 'yes'\n",
            "build_func_name": "G_style",
            "variables": [(name, np.float32(value) if not value.ndim else value) for name, value in variables.items()],
        }
    )


def generator_arrays(
    *,
    resolution: int = 32,
    channels: int = 3,
    latent: int = 8,
    layers: int = 2,
    labels: int = 0,
    fmap_base: int = 64,
    fmap_max: int = 12,
    lod: float = 0.0,
    seed: int = 0,
) -> dict[str, Arrays]:
    """The variables of the generator and of its two parts, random."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    full = int(math.log2(resolution)) - 2
    widths = [max(1, min(fmap_base >> (level + 1), fmap_max)) for level in range(full + 1)]
    mapping = {}
    if labels:
        mapping["LabelConcat/weight"] = draw(labels, latent)
    for number in range(layers):
        mapping[f"Dense{number}/weight"] = draw(latent * 2 if labels and not number else latent, latent) * 100
        mapping[f"Dense{number}/bias"] = draw(latent) * 10
    synthesis = {"lod": np.array(lod, np.float32)}
    for level, width in enumerate(widths):
        side = 4 << level
        before = widths[level - 1] if level else width
        for half, name in enumerate(("Conv0_up", "Conv1") if level else ("Const", "Conv")):
            block = f"{side}x{side}/{name}"
            synthesis[f"noise{2 * level + half}"] = draw(1, 1, side, side)
            if name == "Const":
                synthesis[f"{block}/const"] = draw(1, width, 4, 4)
            else:
                synthesis[f"{block}/weight"] = draw(3, 3, width if half else before, width)
            synthesis[f"{block}/Noise/weight"] = draw(width) * 0.3
            synthesis[f"{block}/bias"] = draw(width) * 0.3
            synthesis[f"{block}/StyleMod/weight"] = draw(latent, 2 * width)
            synthesis[f"{block}/StyleMod/bias"] = draw(2 * width) * 0.3
        synthesis[f"ToRGB_lod{full - level}/weight"] = draw(1, 1, width, channels)
        synthesis[f"ToRGB_lod{full - level}/bias"] = draw(channels)
    return {"own": {"dlatent_avg": draw(latent)}, "mapping": mapping, "synthesis": synthesis}


def discriminator_arrays(
    *, resolution: int = 32, channels: int = 3, labels: int = 0, fmap_base: int = 64, fmap_max: int = 12, **_: Any
) -> Arrays:
    random = np.random.default_rng(7)
    full = int(math.log2(resolution)) - 2
    widths = [max(1, min(fmap_base >> (level + 1), fmap_max)) for level in range(full + 1)]
    arrays: Arrays = {"lod": np.array(0, np.float32)}

    def layer(name: str, *shape: int) -> None:
        arrays[f"{name}/weight"] = random.standard_normal(shape).astype(np.float32)
        arrays[f"{name}/bias"] = random.standard_normal(shape[-1:]).astype(np.float32)

    for level in range(full, -1, -1):
        side, width = 4 << level, widths[level]
        layer(f"FromRGB_lod{full - level}", 1, 1, channels, width)
        if level:
            layer(f"{side}x{side}/Conv0", 3, 3, width, width)
            layer(f"{side}x{side}/Conv1_down", 3, 3, width, widths[level - 1])
    layer("4x4/Conv", 3, 3, widths[0] + 1, widths[0])
    layer("4x4/Dense0", widths[0] * 16, widths[0])
    layer("4x4/Dense1", widths[0], max(labels, 1))
    return arrays


def as_networks(
    arrays: dict[str, Arrays], judge: Arrays | None = None, *, version: int = 3, **options: Any
) -> tuple[Network, Network, Network]:
    """(G, D, Gs); G is something else than Gs, as its average."""
    judge = discriminator_arrays() if judge is None else judge

    def generator(scale: float) -> Network:
        parts = {
            part: network_state(
                {k: np.asarray(v * scale, v.dtype) for k, v in arrays[part].items()}, version=version, **options
            )
            for part in ("mapping", "synthesis")
        }
        return network_state(arrays["own"], components=parts, version=version, **options)

    return generator(0.5), network_state(judge, version=version), generator(1.0)


def dump(value: Any, *, protocol: int = 4) -> bytes:
    """The bytes of a pickle, with the names that numpy had when the official files were made."""
    content = io.BytesIO()
    pickle.dump(value, content, protocol=protocol)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    return (
        content.getvalue()
        .replace(b"c" + new + b"\n", b"c" + old + b"\n")
        .replace(b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(old)]) + old)
    )


def _norm(values: Tensor, epsilon: float) -> Tensor:
    values = values - values.mean(dim=(2, 3), keepdim=True)
    return values / (values.square().mean(dim=(2, 3), keepdim=True) + epsilon).sqrt()


def _blur(values: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = (taps[:, None] * taps / 16).expand(values.shape[1], 1, 3, 3)
    return F.conv2d(values, kernel, padding=1, groups=values.shape[1])


def _dense(values: Tensor, arrays: Arrays, name: str, *, gain: float = 2**0.5, rate: float = 1.0) -> Tensor:
    weight = torch.from_numpy(arrays[f"{name}/weight"])
    return values @ (weight * gain / weight.shape[0] ** 0.5 * rate) + torch.from_numpy(arrays[f"{name}/bias"]) * rate


def _kernel(arrays: Arrays, name: str, *, gain: float = 2**0.5) -> Tensor:
    """(height, width, in, out), at run time."""
    weight = torch.from_numpy(arrays[f"{name}/weight"])
    return weight * gain / math.prod(weight.shape[:3]) ** 0.5


def _conv(values: Tensor, arrays: Arrays, name: str, *, gain: float = 2**0.5) -> Tensor:
    weight = _kernel(arrays, name, gain=gain).permute(3, 2, 0, 1)
    return F.conv2d(values, weight, padding=weight.shape[-1] // 2)


def _conv_up(values: Tensor, arrays: Arrays, name: str, *, fused: bool) -> Tensor:
    if not fused:
        return _conv(values.repeat_interleave(2, 2).repeat_interleave(2, 3), arrays, name)
    # TensorFlow's conv2d_transpose: the gradient of a convolution, so without a flip of the kernel.
    weight = F.pad(_kernel(arrays, name).permute(2, 3, 0, 1), (1, 1, 1, 1))
    weight = weight[..., 1:, 1:] + weight[..., :-1, 1:] + weight[..., 1:, :-1] + weight[..., :-1, :-1]
    return F.conv_transpose2d(values, weight, stride=2, padding=1)


def draw_images(
    arrays: dict[str, Arrays],
    latents: Tensor,
    noise: list[Tensor],
    *,
    labels: Tensor | None = None,
    side: int | None = None,
    fused_from: int = 128,
    epsilon: float = 1e-8,
) -> Tensor:
    """What the network draws at ``side`` pixels, step by step as published."""
    mapping, synthesis = arrays["mapping"], arrays["synthesis"]
    values = latents
    if labels is not None:
        values = torch.cat([values, torch.from_numpy(mapping["LabelConcat/weight"])[labels]], dim=1)
    values = values / (values.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for number in range(len([name for name in mapping if name.endswith("bias")])):
        values = F.leaky_relu(_dense(values, mapping, f"Dense{number}", rate=0.01), 0.2)
    w = values
    largest = max(int(name.split("x")[0]) for name in synthesis if name.endswith("Conv1/weight"))
    side = largest if side is None else side
    values = torch.from_numpy(synthesis["4x4/Const/const"]).expand(len(latents), -1, -1, -1)
    here, number = 4, 0
    while here <= side:
        for name in ("Conv0_up", "Conv1") if here > 4 else ("Const", "Conv"):
            block = f"{here}x{here}/{name}"
            if name == "Conv0_up":
                values = _blur(_conv_up(values, synthesis, block, fused=here >= fused_from))
            elif name != "Const":
                values = _conv(values, synthesis, block)
            values = values + noise[number] * torch.from_numpy(synthesis[f"{block}/Noise/weight"])[:, None, None]
            values = F.leaky_relu(values + torch.from_numpy(synthesis[f"{block}/bias"])[:, None, None], 0.2)
            scale, shift = _dense(w, synthesis, f"{block}/StyleMod", gain=1.0)[:, :, None, None].chunk(2, dim=1)
            values = _norm(values, epsilon) * (scale + 1) + shift
            number += 1
        here *= 2
    lod = int(math.log2(largest // side))
    image = _conv(values, synthesis, f"ToRGB_lod{lod}", gain=1.0)
    return image + torch.from_numpy(synthesis[f"ToRGB_lod{lod}/bias"])[:, None, None]


def judge_images(arrays: Arrays, images: Tensor, labels: Tensor) -> Tensor:
    """The discriminator's logits, for a batch that is one group."""
    side = images.shape[-1]

    def activated(values: Tensor, name: str) -> Tensor:
        return F.leaky_relu(values + torch.from_numpy(arrays[f"{name}/bias"])[:, None, None], 0.2)

    values = activated(_conv(images, arrays, "FromRGB_lod0"), "FromRGB_lod0")
    while side > 4:
        values = activated(_conv(values, arrays, f"{side}x{side}/Conv0"), f"{side}x{side}/Conv0")
        name = f"{side}x{side}/Conv1_down"
        values = activated(F.avg_pool2d(_conv(_blur(values), arrays, name), 2), name)
        side //= 2
    deviation = (values.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    values = torch.cat([values, deviation.expand(len(values), 1, 4, 4)], dim=1)
    values = activated(_conv(values, arrays, "4x4/Conv"), "4x4/Conv").flatten(1)
    values = _dense(F.leaky_relu(_dense(values, arrays, "4x4/Dense0"), 0.2), arrays, "4x4/Dense1", gain=1.0)
    return values.gather(1, labels[:, None]).squeeze(1)


@pytest.fixture
def nvidia(dnnlib: None) -> types.SimpleNamespace:
    """Makes files of NVIDIA's layout, and computes what their networks do."""
    return types.SimpleNamespace(
        generator_arrays=generator_arrays,
        discriminator_arrays=discriminator_arrays,
        as_networks=as_networks,
        network_state=network_state,
        dump=dump,
        draw_images=draw_images,
        judge_images=judge_images,
        EasyDict=EasyDict,
        Network=Network,
    )


RUNNING = ("import", "exec", "os.system", "subprocess.Popen", "pickle.find_class")
_heard: list[str] = []
_listening = [False]
_hooked: list[Callable[..., None]] = []


def _listen(event: str, arguments: Any) -> None:
    if _listening[0] and event in RUNNING:
        _heard.append(f"{event} {arguments[:1]}")


@pytest.fixture(scope="session")
def nothing_runs() -> Callable[..., Any]:
    """``nothing_runs(function, *arguments)``: its result; fails if Python imported, compiled or started anything."""
    if not _hooked:  # there is no way to remove one
        sys.addaudithook(_listen)
        _hooked.append(_listen)

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        _heard.clear()
        _listening[0] = True
        try:
            return function(*arguments)
        finally:
            _listening[0] = False
            assert not _heard, _heard

    return call
