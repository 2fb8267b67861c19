"""Weights for other classes and channels: what a fine-tuning starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from genmix_transforms.generators.adm.configuration import ADMConfiguration

_ROWS = "class_embedding.weight"
_ENDS = ("conv_in.weight", "conv_out.weight", "conv_out.bias")


def adapt_configuration(
    configuration: ADMConfiguration,
    *,
    classes: int,
    channels: int | None = None,
    resolution: int | None = None,
    null_class: bool | None = None,
) -> ADMConfiguration:
    """The flags of the same network for so many classes, other channels or another size; None: as they are.

    A network that is told the class still is, if there is but one left; one that is not becomes so with several.
    """
    conditional = configuration.class_cond or classes > 1
    adapted = replace(
        configuration,
        class_cond=conditional,
        num_classes=classes if conditional else configuration.num_classes,
        channels=configuration.channels if channels is None else channels,
        null_class=conditional and (configuration.null_class if null_class is None else null_class),
    )
    return adapted if resolution is None else adapted.at(resolution)


def adapt_network(
    weights: Mapping[str, Tensor],
    *,
    old: ADMConfiguration,
    new: ADMConfiguration,
    old_classes: Sequence[str],
    new_classes: Sequence[str],
) -> dict[str, Tensor]:
    """The state dict of a network of ``new``, from that of one of ``old``, which differs in classes and channels alone.

    Returns:
        New tensors, on the same device.
    """
    adapted = {name: tensor.detach().clone() for name, tensor in weights.items() if name not in (_ROWS, *_ENDS)}
    if new.class_cond:
        adapted[_ROWS] = _class_rows(weights, old=old, new=new, old_classes=old_classes, new_classes=new_classes)
    inputs = new.input_channels // new.channels
    adapted["conv_in.weight"] = _spread_inputs(weights["conv_in.weight"], parts=inputs, channels=new.channels)
    outputs = new.output_channels // new.channels
    for name in ("conv_out.weight", "conv_out.bias"):
        adapted[name] = _average_outputs(weights[name], parts=outputs, channels=new.channels)
    return adapted


def _class_rows(
    weights: Mapping[str, Tensor],
    *,
    old: ADMConfiguration,
    new: ADMConfiguration,
    old_classes: Sequence[str],
    new_classes: Sequence[str],
) -> Tensor:
    width = weights["time_embedding.linear_2.bias"]
    if not old.class_cond:
        return width.new_zeros(new.class_rows or 0, len(width))
    rows = weights[_ROWS].detach()
    mean = rows[: old.num_classes].mean(0)
    known = dict(zip(old_classes, rows, strict=False))
    found = [known.get(name, mean) for name in new_classes]
    if new.null_class:
        found.append(rows[old.num_classes] if old.null_class else mean)
    return torch.stack(found)


def _spread_inputs(weight: Tensor, *, parts: int, channels: int) -> Tensor:
    """``(W, parts * old, 3, 3)`` to ``(W, parts * channels, 3, 3)``: the sum over a part's channels stays as it is."""
    split = weight.detach().unflatten(1, (parts, -1))
    if split.shape[2] == channels:
        return weight.detach().clone()
    share: Tensor = split.sum(2, keepdim=True) / channels
    return share.expand(-1, -1, channels, -1, -1).flatten(1, 2).contiguous()


def _average_outputs(value: Tensor, *, parts: int, channels: int) -> Tensor:
    """``(parts * old, ...)`` to ``(parts * channels, ...)``: every channel of a part is the mean of the old ones."""
    split = value.detach().unflatten(0, (parts, -1))
    if split.shape[1] == channels:
        return value.detach().clone()
    mean: Tensor = split.mean(1, keepdim=True)
    return mean.expand(-1, channels, *mean.shape[2:]).flatten(0, 1).contiguous()
