"""Tiny ADMs, and the network once more: plain functions written from the paper, on weights by the official names."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm import ADMConfiguration

TINY = ADMConfiguration(
    image_size=16,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(8,),
    num_head_channels=32,
    learn_sigma=True,
    class_cond=True,
    num_classes=3,
    resblock_updown=True,
    channels=1,
)


class Reference:
    """Dhariwal, Nichol (arXiv 2105.05233): the UNet and the classifier, their weights drawn on first use.

    ``weights`` then is a state dict in the layout of the published checkpoints.
    """

    def __init__(self, flags: ADMConfiguration, *, seed: int = 0) -> None:
        self.flags = flags
        self.weights: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(seed)

    def unet(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Noisy images, timesteps and labels to noise and variance."""
        flags = self.flags
        emb = self.time_embedding(t)
        if flags.class_cond:
            emb = emb + self.get("label_emb.weight", (flags.class_rows, emb.shape[1]))[y]
        kept, number = self.encoder(x, emb), 0
        x = self.middle(kept[-1], emb)
        for level in reversed(range(len(flags.widths))):
            for block in range(flags.num_res_blocks + 1):
                name, place = f"output_blocks.{number}", 1
                x = self.residual(f"{name}.0", torch.cat([x, kept.pop()], 1), emb, flags.widths[level])
                if flags.attention_levels[level]:
                    x, place = self.attention(f"{name}.1", x), 2
                if level and block == flags.num_res_blocks:
                    x = self.resample(f"{name}.{place}", x, emb, up=True)
                number += 1
        return self.conv("out.2", F.silu(self.norm("out.0", x)), flags.output_channels)

    def classifier(self, x: Tensor, t: Tensor) -> Tensor:
        """Noisy images and timesteps to logits."""
        emb = self.time_embedding(t)
        x = F.silu(self.norm("out.0", self.middle(self.encoder(x, emb)[-1], emb))).flatten(2)
        width = x.shape[1]
        x = torch.cat([x.mean(2, keepdim=True), x], 2)
        x = x + self.get("out.2.positional_embedding", (width, x.shape[2]))
        qkv = self.positions("out.2.qkv_proj", x, 3 * width).view(
            len(x), 3, -1, self.flags.num_head_channels, x.shape[2]
        )
        gathered = self.attend(*qkv.unbind(1))
        return self.positions("out.2.c_proj", gathered.flatten(1, 2), self.flags.num_classes)[:, :, 0]

    def encoder(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        kept = [self.conv("input_blocks.0.0", x, self.flags.widths[0])]
        for level, width in enumerate(self.flags.widths):
            for _ in range(self.flags.num_res_blocks):
                name = f"input_blocks.{len(kept)}"
                x = self.residual(f"{name}.0", kept[-1], emb, width)
                kept.append(self.attention(f"{name}.1", x) if self.flags.attention_levels[level] else x)
            if level < len(self.flags.widths) - 1:
                kept.append(self.resample(f"input_blocks.{len(kept)}.0", kept[-1], emb, up=False))
        return kept

    def middle(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.attention("middle_block.1", self.residual("middle_block.0", x, emb, x.shape[1]))
        return self.residual("middle_block.2", x, emb, x.shape[1])

    def residual(
        self, name: str, x: Tensor, emb: Tensor, width: int, *, change: Callable[..., Tensor] = lambda x: x
    ) -> Tensor:
        shortcut = change(x)
        h = self.conv(f"{name}.in_layers.2", change(F.silu(self.norm(f"{name}.in_layers.0", x))), width)
        if self.flags.use_scale_shift_norm:  # AdaGN, the paper's equation 3
            scale, shift = self.linear(f"{name}.emb_layers.1", F.silu(emb), 2 * width)[:, :, None, None].chunk(2, 1)
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = h + self.linear(f"{name}.emb_layers.1", F.silu(emb), width)[:, :, None, None]
            h = self.norm(f"{name}.out_layers.0", h)
        h = self.conv(f"{name}.out_layers.3", F.silu(h), width)
        return h + (
            shortcut if x.shape[1] == width else self.conv(f"{name}.skip_connection", shortcut, width, kernel=1)
        )

    def resample(self, name: str, x: Tensor, emb: Tensor, *, up: bool) -> Tensor:
        def larger(x: Tensor) -> Tensor:
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

        if self.flags.resblock_updown:  # BigGAN's
            return self.residual(name, x, emb, x.shape[1], change=larger if up else lambda x: F.avg_pool2d(x, 2))
        return (
            self.conv(f"{name}.conv", larger(x), x.shape[1]) if up else self.conv(f"{name}.op", x, x.shape[1], stride=2)
        )

    def attention(self, name: str, x: Tensor) -> Tensor:
        n, width, flat = len(x), x.shape[1], x.flatten(2)
        heads = self.flags.heads(width)
        qkv = self.positions(f"{name}.qkv", self.norm(f"{name}.norm", flat), 3 * width)
        if self.flags.use_new_attention_order:
            q, k, v = qkv.view(n, 3, heads, width // heads, -1).unbind(1)
        else:
            q, k, v = qkv.view(n, heads, 3, width // heads, -1).unbind(2)
        return x + self.positions(f"{name}.proj_out", self.attend(q, k, v).flatten(1, 2), width).view_as(x)

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each ``(N, heads, channels, positions)``."""
        return v @ (k.mT @ q / math.sqrt(q.shape[2])).softmax(2)

    def time_embedding(self, t: Tensor) -> Tensor:
        half = self.flags.num_channels // 2
        # In float32, as everywhere: at the last timesteps another order of the same operations shows in the outputs.
        angles = t[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        width = 4 * self.flags.num_channels
        first = self.linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1), width)
        return self.linear("time_embed.2", F.silu(first), width)

    def norm(self, name: str, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (32, -1)).flatten(2)
        grouped = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        weight, bias = (self.get(f"{name}.{part}", (x.shape[1],)).view(shape) for part in ("weight", "bias"))
        return grouped.view_as(x) * weight + bias

    def conv(self, name: str, x: Tensor, width: int, *, kernel: int = 3, stride: int = 1) -> Tensor:
        weight = self.get(f"{name}.weight", (width, x.shape[1], kernel, kernel))
        return F.conv2d(x, weight, self.get(f"{name}.bias", (width,)), stride, kernel // 2)

    def positions(self, name: str, x: Tensor, width: int) -> Tensor:
        weight = self.get(f"{name}.weight", (width, x.shape[1], 1))
        return F.conv1d(x, weight, self.get(f"{name}.bias", (width,)))

    def linear(self, name: str, x: Tensor, width: int) -> Tensor:
        return F.linear(x, self.get(f"{name}.weight", (width, x.shape[1])), self.get(f"{name}.bias", (width,)))

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self.weights:
            scale = 0.2 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
            self.weights[name] = torch.randn(shape, generator=self.random) * scale
            if len(shape) == 1 and name.endswith("weight"):  # a norm's
                self.weights[name] += 1
        return self.weights[name]


def draw_weights(flags: ADMConfiguration, *, classifier: bool = False, seed: int = 0) -> Reference:
    """A reference whose weights are all there."""
    reference = Reference(flags, seed=seed)
    x, t = torch.zeros(1, flags.input_channels, flags.image_size, flags.image_size), torch.zeros(1)
    reference.classifier(x, t) if classifier else reference.unet(x, t, torch.zeros(1, dtype=torch.int64))
    return reference


def make_adm(*, seed: int = 0, **options: Any) -> ADM:
    """An ADM that draws in milliseconds, with weights that make a difference (those ADM begins with predict zero)."""
    defaults = {"classes": ("a", "b", "c"), "configuration": TINY, "sampler": {"steps": 3, "batch_size": 4}}
    generator = ADM(**{**defaults, **options})
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in generator.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.05)
    return generator


@pytest.fixture(scope="session")
def tiny_flags() -> ADMConfiguration:
    return TINY


@pytest.fixture(scope="session")
def reference() -> Callable[..., Reference]:
    """Flags to the network once more, with random weights."""
    return draw_weights


@pytest.fixture(scope="session")
def tiny_adm() -> Callable[..., ADM]:
    return make_adm
