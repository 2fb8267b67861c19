"""The names of weights in the original implementation, and what they are called in diffusers' network."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from genmix_transforms.generators.adm.configuration import ADMConfiguration

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0", "qkv": "qkv"}


def module_names(configuration: ADMConfiguration, *, classifier: bool = False) -> dict[str, str]:
    """The original's modules to ours, for a network or the noisy classifier of these flags.

    The three projections of an attention, which the original keeps in one, are here "qkv" too. Skip connections are
    named for every residual block; only those that change the width have one.

    Example:
        >>> from genmix_transforms.generators.adm.configuration import OFFICIAL
        >>> names = module_names(OFFICIAL["256"])
        >>> names["input_blocks.3.0.in_layers.2"], names["output_blocks.17.0.out_layers.3"]
        ('down_blocks.0.downsamplers.0.conv1', 'up_blocks.5.resnets.2.conv2')
    """
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        **dict(_down(configuration)),
        **dict(_residual("middle_block.0", "mid_block.resnets.0")),
        **dict(_attention("middle_block.1", "mid_block.attentions.0")),
        **dict(_residual("middle_block.2", "mid_block.resnets.1")),
    }
    if classifier:
        # The pooling's own parameter, the position embedding, has no module below it.
        return {
            **names,
            "out.0": "norm_out",
            "out.2": "pool",
            "out.2.qkv_proj": "pool.qkv",
            "out.2.c_proj": "pool.out",
        }
    return {
        **names,
        "label_emb": "class_embedding",
        **dict(_up(configuration)),
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }


def _down(configuration: ADMConfiguration) -> Iterator[tuple[str, str]]:
    number = 1
    for level, attends in enumerate(configuration.attention_levels):
        ours = f"down_blocks.{level}"
        for block in range(configuration.num_res_blocks):
            yield from _residual(f"input_blocks.{number}.0", f"{ours}.resnets.{block}")
            if attends:
                yield from _attention(f"input_blocks.{number}.1", f"{ours}.attentions.{block}")
            number += 1
        if level < len(configuration.widths) - 1:
            if configuration.resblock_updown:
                yield from _residual(f"input_blocks.{number}.0", f"{ours}.downsamplers.0")
            else:
                yield f"input_blocks.{number}.0.op", f"{ours}.downsamplers.0.conv"
            number += 1


def _up(configuration: ADMConfiguration) -> Iterator[tuple[str, str]]:
    levels = configuration.attention_levels
    number = 0
    for up, attends in enumerate(reversed(levels)):
        ours = f"up_blocks.{up}"
        for block in range(configuration.num_res_blocks + 1):
            theirs = f"output_blocks.{number}"
            yield from _residual(f"{theirs}.0", f"{ours}.resnets.{block}")
            if attends:
                yield from _attention(f"{theirs}.1", f"{ours}.attentions.{block}")
            if up < len(levels) - 1 and block == configuration.num_res_blocks:
                last = f"{theirs}.{2 if attends else 1}"
                if configuration.resblock_updown:
                    yield from _residual(last, f"{ours}.upsamplers.0")
                else:
                    yield f"{last}.conv", f"{ours}.upsamplers.0.conv"
            number += 1


def _residual(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{there}", f"{ours}.{here}") for there, here in _RESIDUAL.items())


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{there}", f"{ours}.{here}") for there, here in _ATTENTION.items())


def rename(
    weights: Mapping[str, Tensor], configuration: ADMConfiguration, *, classifier: bool = False
) -> dict[str, Tensor]:
    """The original's weights under our names; those that have none keep theirs.

    Args:
        weights: the original's, by its names.
        configuration: its flags.
        classifier: whether they are a noisy classifier's.

    Returns:
        float32, in memory of their own.
    """
    names = module_names(configuration, classifier=classifier)
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        module, _, leaf = key.rpartition(".")
        ours = f"{names.get(module, module)}.{leaf}"
        value = value.to(torch.float32, copy=True)
        if module.endswith((".qkv", ".proj_out", ".qkv_proj", ".c_proj")) and value.ndim == 3:
            value = value.squeeze(2)  # a convolution over positions, with a kernel of one: a linear layer
        if module.endswith(".qkv") and module in names:
            heads = configuration.heads(len(value) // 3)
            parts = split_projections(value, heads=heads, new_order=configuration.use_new_attention_order)
            for letter, part in zip("qkv", parts, strict=True):
                renamed[ours.replace(".qkv.", f".to_{letter}.")] = part
        else:
            renamed[ours] = value
    return renamed


def split_projections(value: Tensor, *, heads: int, new_order: bool) -> tuple[Tensor, ...]:
    """Queries, keys and values out of the original's one projection, ``(3 C, ...)`` to three of ``(C, ...)``.

    The new order keeps all queries, then all keys, then all values; the legacy order keeps the three head by head.

    Example:
        >>> split_projections(torch.arange(12), heads=2, new_order=False)
        (tensor([0, 1, 6, 7]), tensor([2, 3, 8, 9]), tensor([ 4,  5, 10, 11]))
    """
    if not new_order:
        value = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    return tuple(part.contiguous() for part in value.chunk(3))
