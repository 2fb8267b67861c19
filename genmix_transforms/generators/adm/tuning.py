"""What of a network is trained: all of it, its attention, or low-rank adapters (LoRA) on the attention."""

import copy

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.lora import add_adapters, merge_adapters

TUNE = ("all", "attention", "lora")

_ENDS = ("class_embedding", "conv_in", "conv_norm_out", "conv_out")
"""What new classes and channels change: trained whole, whatever else is."""


def prepare_for_tuning(network: nn.Module, tune: str, *, lora_rank: int = 8, seed: int = 0) -> None:
    """Mark what is to be trained, in place; for "lora", put the adapters in first.

    Args:
        network: an ADM network.
        tune: "all"; "attention": the attention layers, and both ends of the network; "lora": low-rank changes to the
            attention's projections, and both ends.
        lora_rank: of the changes.
        seed: of their start, which changes nothing of what the network says.

    Raises:
        InputError: no such way, or a rank below 1.
        MissingExtraError: "lora" without peft.

    Source: LoRA, Hu et al. (arXiv 2106.09685).
    """
    if tune not in TUNE:
        raise InputError(f"tune must be one of {', '.join(TUNE)}, got {tune!r}")
    network.requires_grad_(tune == "all")
    if tune == "all":
        return
    if tune == "lora":
        add_adapters(network, rank=lora_rank, seed=seed, name="default")  # as checkpoints of earlier releases call them
    else:
        for module in network.modules():
            if isinstance(module, Attention):
                module.requires_grad_(True)
    for name in _ENDS:
        end = getattr(network, name, None)
        if end is not None:
            end.requires_grad_(True)


def with_weights(network: nn.Module, values: list[torch.Tensor]) -> nn.Module:
    """A copy of a network in training, for sampling and saving: plain, with any adapters added to the weights.

    Args:
        network: as :func:`prepare_for_tuning` left it.
        values: for its trained parameters, in their order.
    """
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter, value in zip(trained(other), values, strict=True):
            parameter.copy_(value)
    merge_adapters(other)
    return other.eval().requires_grad_(False)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
